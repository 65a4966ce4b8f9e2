"""How the tests start the command."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable

COMMAND = [sys.executable, "-m", "g4agent"]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
"""`g4agent("run", "…", stdin="")`: runs the command to its end."""


def heed_ctrl_c() -> None:
    """For `preexec_fn`: a shell's background jobs, and their children, begin with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
