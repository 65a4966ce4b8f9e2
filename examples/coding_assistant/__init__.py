"""An assistant that mends small Python projects until their tests pass."""
