"""`python -m g4agent` is the command `g4agent`."""

from g4agent.cli import main

main()
