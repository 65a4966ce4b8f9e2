"""Hundreds of calls in one bubblewrap box leave nothing behind."""

from __future__ import annotations

import box_leaks
import pytest
from test_bubblewrap_life import leftovers, specification

from g4agent_bubblewrap import BubblewrapSandbox


@pytest.mark.anyio
@pytest.mark.slow
async def test_many_calls(sandbox: BubblewrapSandbox) -> None:
    """Processes, descriptors, control groups, mounts or temporary files grow with the number of calls."""
    await box_leaks.check(sandbox, specification(sandbox), leftovers)
