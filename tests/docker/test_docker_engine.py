"""The tests' own engine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import docker_engine
import pytest
from docker_engine import STOP_PATIENCE, install_engine

STARTS_ONE = """
import sys, time
from docker_engine import Engine, engine_folder
with engine_folder() as folder:
    engine = Engine(folder)
    engine.start()
    pid = (folder / "pidfile").read_text()
    if sys.argv[1:] == ["kill"]:
        engine.kill()
    print(folder, pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("first", [[], ["kill"]], ids=["running", "killed"])
def test_engine_ends_with_killed_tests(first: list[str]) -> None:
    """An engine that stayed would take memory, and its folder disk, from everything that runs later."""
    install_engine("docker")
    paths = [str(Path(docker_engine.__file__).parent), str(Path(__file__).parents[1])]
    code = f"import sys; sys.path[:0] = {paths}\n{STARTS_ONE}"
    with subprocess.Popen([sys.executable, "-c", code, *first], stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        folder, pid = (Path(word) for word in tests.stdout.readline().split())
        assert folder.exists() and ("/proc" / pid).exists() == (not first)
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + STOP_PATIENCE + 30
    while ("/proc" / pid).exists() or folder.exists():
        assert time.monotonic() < deadline, "the engine outlives its tests"
        time.sleep(0.1)
