"""Network by permission: a proxy on the host through which a box reaches the named places, and nothing else."""
