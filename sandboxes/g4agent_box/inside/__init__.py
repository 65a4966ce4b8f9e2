"""What runs inside a box: standard library only, Python 3.11 or newer, never imported with anything of the host."""
