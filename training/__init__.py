"""How the default model *nano* was made. Never imported by the product; see README.md for the one command."""
