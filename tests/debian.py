"""Debian packages that tests need: installed where they are missing, as root."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path


def install(package: str) -> None:
    """Installs a package. Raises AssertionError, saying what to do, without root; CalledProcessError if apt fails."""
    assert os.geteuid() == 0, f"{package} is missing: apt-get install {package}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with Path(tempfile.gettempdir(), "g4agent-tests-apt.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # apt refuses to run twice, and another worker may need a package, too
        for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=True)
