"""An event loop in a thread of its own, in which connections live: longer than any run, and whatever loop a run has."""

from __future__ import annotations

from concurrent.futures import Future
from functools import cache
from threading import Thread

import anyio
from anyio.from_thread import BlockingPortal


@cache
def portal() -> BlockingPortal:
    """The way into the loop, which starts at its first use. Its thread does not keep the process from ending."""
    ready: Future[BlockingPortal] = Future()

    async def main() -> None:
        async with BlockingPortal() as opened:
            ready.set_result(opened)
            await opened.sleep_until_stopped()

    Thread(target=anyio.run, args=(main,), name="g4agent-mcp", daemon=True).start()
    return ready.result()
