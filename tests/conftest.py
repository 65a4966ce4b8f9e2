"""Settings for the whole suite: one thread per process, no network, asyncio as the event loop, files side by side."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
settings.register_profile("suite", deadline=None)  # other tests run at the same time, so times say little
settings.load_profile("suite")
BOXES = ("bubblewrap", "docker")
"""Folders of tests that look at the whole machine for what boxes and engines leave: never beside each other."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class SideBySide(LoadScopeScheduling):
    """What stays on one worker, in order: a file's tests, and all those of `BOXES`.

    xdist's own groups (`--dist loadgroup`) are names appended to node ids, which pytest 9.2 no longer lets it change.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = PurePosixPath(nodeid.split("::")[0])
        return "boxes" if any(folder in file.parts for folder in BOXES) else str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    return SideBySide(config, log)
