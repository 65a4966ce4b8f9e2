"""Starts a box's supervisor: `python -I -S __main__.py CONTROL_FD`, with the folder above on `sys.path`."""

import sys
from pathlib import PurePosixPath

sys.path.insert(0, str(PurePosixPath(__file__).parents[2]))

from g4agent_box.inside.supervisor import main

main(int(sys.argv[1]))
