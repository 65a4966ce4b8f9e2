"""A module that floods the box with processes and output while it is imported."""

import os
import time

print("x" * 1_000_000, flush=True)
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
except OSError:
    pass


def never() -> int:
    """Cannot be forked for."""
    return 1
