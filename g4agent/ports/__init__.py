"""What a shelf package implements: a model runtime, a sandbox, a tool pack."""
