"""A module that takes too long to import, the first time."""

import time
from pathlib import Path

if not Path("/workspace/imported").exists():
    Path("/workspace/imported").touch()
    time.sleep(30)


def quick() -> int:
    """Gives one."""
    return 1
