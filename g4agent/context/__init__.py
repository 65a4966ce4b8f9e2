"""A context that does not run over: what is in the window, and what is taken out of it before it is full."""
