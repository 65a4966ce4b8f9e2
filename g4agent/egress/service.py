"""The proxy as a service of a session: on the host in a thread of its own, in the box behind a port of its loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from g4agent.egress.destinations import Destination
from g4agent.egress.proxy import MAX_HEAD, Proxy
from g4agent.events import NetworkAttempt

BOX_SOCKET = "/run/g4agent/egress.sock"
BOX_PORT = 3128
"""Of the box's own 127.0.0.1."""
BACKLOG = 64
MAX_DIFFERENT = 200
"""Different attempts between two looks at them; what goes beyond is counted together."""
OTHERS = NetworkAttempt("(others)", 0, False, "too many different places to list")


class Egress:
    """Lets one box reach `allowed`, and remembers what was tried.

    The socket lies in a private folder with a short path: a unix socket's path may have no more than 107 bytes.
    """

    def __init__(self, allowed: Collection[Destination]) -> None:
        self._allowed = tuple(allowed)
        self._attempts: Counter[NetworkAttempt] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def served(self) -> Iterator[Mapping[str, Path]]:
        """Serves until the block ends; gives path in the box → socket on the host."""
        with tempfile.TemporaryDirectory(prefix="g4agent-egress-") as folder:
            path = Path(folder) / "socket"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            path.chmod(0o666)  # a box connects as a user of its own; the private folder keeps others out
            listener.listen(BACKLOG)
            loop = asyncio.new_event_loop()
            serving = loop.create_task(self._serve(listener))
            thread = threading.Thread(target=_run, args=(loop, serving), name="g4agent-egress", daemon=True)
            thread.start()
            try:
                yield {BOX_SOCKET: path}
            finally:
                loop.call_soon_threadsafe(serving.cancel)
                thread.join()

    ports: Mapping[int, str] = MappingProxyType({BOX_PORT: BOX_SOCKET})
    """Where the box offers the proxy (`BoxSpec.ports`)."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What tells programs in the box of the proxy. Their own servers in the box are reached without it."""
        address = f"http://127.0.0.1:{BOX_PORT}"
        named = {each.host for each in self._allowed}
        own = ",".join(host for host in ("localhost", "127.0.0.1", "::1") if host not in named)
        names = {"HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": own}
        return names | {name.lower(): value for name, value in names.items()}

    def take_attempts(self) -> list[NetworkAttempt]:
        """What was tried since the last time, in order; equal attempts are one, with their count."""
        with self._lock:
            attempts, self._attempts = self._attempts, Counter()
        return [replace(attempt, count=count) for attempt, count in attempts.items()]

    def _note(self, attempt: NetworkAttempt) -> None:
        with self._lock:
            known = attempt in self._attempts or len(self._attempts) < MAX_DIFFERENT
            self._attempts[attempt if known else OTHERS] += 1

    async def _serve(self, listener: socket.socket) -> None:
        proxy = Proxy(self._allowed, self._note)
        async with asyncio.TaskGroup() as connections:

            def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                connections.create_task(proxy.handle(reader, writer))

            server = await asyncio.start_unix_server(accept, sock=listener, limit=MAX_HEAD)
            try:
                await asyncio.get_running_loop().create_future()  # until cancelled, which ends the connections, too
            finally:
                server.close()


def _run(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
    asyncio.set_event_loop(loop)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)
    finally:
        loop.close()
