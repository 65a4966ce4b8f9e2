"""How the tests start the command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

COMMAND = [sys.executable, "-m", "g4agent"]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""`g4agent("run", "…", stdin="")`: runs the command to its end."""
