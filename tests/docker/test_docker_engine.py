"""The tests' own engine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import docker_engine

STARTS_ONE = """
import sys, time
from docker_engine import Engine, engine_folder
with engine_folder() as folder:
    Engine(folder).start()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_engine_ends_with_killed_tests() -> None:
    """An engine that stayed would take memory, and its folder disk, from everything that runs later."""
    paths = [str(Path(docker_engine.__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths}\n{STARTS_ONE}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        folder = Path(tests.stdout.readline().strip())
        engine = Path("/proc") / (folder / "pidfile").read_text()
        assert engine.exists()
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while engine.exists() or folder.exists():
        assert time.monotonic() < deadline, "the engine outlives its tests"
        time.sleep(0.1)
