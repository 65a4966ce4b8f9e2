"""Debian packages that tests need: installed where they are missing, as root."""

from __future__ import annotations

import os
import subprocess


def install(package: str) -> None:
    """Installs a package. Raises AssertionError, saying what to do, without root; CalledProcessError if apt fails."""
    assert os.geteuid() == 0, f"{package} is missing: apt-get install {package}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
        subprocess.run(["apt-get", "-qq", *command], env=environment, stdout=subprocess.DEVNULL, check=True)
