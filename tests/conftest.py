"""Settings for the whole suite: one thread per process, no network, asyncio as the event loop, files side by side."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
BOXES = ("bubblewrap", "docker")
"""Folders of tests that look at the whole machine for what boxes and engines leave: never beside each other."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What `pytest --dist loadgroup` keeps on one worker, in order: a file, or all of `BOXES`."""
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group("boxes" if folder in BOXES else str(item.path)))
