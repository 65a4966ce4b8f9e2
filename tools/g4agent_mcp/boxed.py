"""A server in a closed box, with its standard input and output passed on: `python -m g4agent_mcp.boxed`.

Its orders come in the environment variable G4AGENT_MCP_SERVER, because a command line can be read by everybody:
`{"command": […], "sandbox": name, "folders": […], "env": {…}, "limits": {…}, "net": ["host:port"]}`.
In the box, a few lines of Python connect to a socket that this process holds, and start the server with that as its
input and output.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import anyio

from g4agent.egress.destinations import parse_destinations
from g4agent.egress.service import Egress
from g4agent.ports.sandbox import BoxSpec, Limits
from g4agent.registry import load_sandbox

ORDERS = "G4AGENT_MCP_SERVER"
INSIDE = "/run/mcp.sock"
START = """\
import socket, subprocess, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
sys.exit(subprocess.call(sys.argv[2:], stdin=s, stdout=s))
"""
LONGEST_SECONDS = 365 * 24 * 3600.0
"""How long a server may run at a time."""
LAST_SECONDS = 1.0
"""For the server to end by itself when its input has ended."""


async def serve(settings: dict[str, Any]) -> int:
    """Runs the server until it ends, or its input does; gives its exit code."""
    with (
        tempfile.TemporaryDirectory(prefix="g4agent-mcp-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
        ExitStack() as stack,
    ):
        place = Path(folder) / "mcp.sock"
        listener.bind(str(place))
        place.chmod(0o666)  # the box runs as a user of its own; the folder keeps out all others
        listener.listen(1)
        spec = BoxSpec(
            limits=Limits(**settings["limits"]),
            python_paths=tuple(map(Path, settings["folders"])),
            sockets={INSIDE: place},
        )
        if settings["net"]:
            egress = Egress(parse_destinations(settings["net"]))
            sockets = {**spec.sockets, **stack.enter_context(egress.served())}
            spec = replace(spec, sockets=sockets, ports=egress.ports, env={**egress.environment, **spec.env})
        box = await load_sandbox(settings["sandbox"]).open(spec)
        try:
            code = 0
            async with anyio.create_task_group() as group:
                input_ended = anyio.Event()

                async def run() -> None:
                    nonlocal code
                    argv = ["python3", "-c", START, INSIDE, *settings["command"]]
                    done = await box.exec(argv, timeout=LONGEST_SECONDS, env=settings["env"])
                    os.write(2, done.stderr)
                    code = done.exit_code if done.exit_code is not None else 1
                    group.cancel_scope.cancel()

                group.start_soon(run)
                group.start_soon(_pass_on, listener, input_ended)
                await input_ended.wait()
                await anyio.sleep(LAST_SECONDS)
                group.cancel_scope.cancel()
            return code
        finally:
            await box.close()


async def _pass_on(listener: socket.socket, input_ended: anyio.Event) -> None:
    """Standard input goes to the server, and what it writes to standard output, by threads that only copy."""
    listener.setblocking(False)
    await anyio.wait_readable(listener)
    connection, _ = listener.accept()
    connection.setblocking(True)
    Thread(target=_copy_out, args=(connection,), daemon=True).start()
    await anyio.to_thread.run_sync(_copy_in, connection, abandon_on_cancel=True)
    input_ended.set()


def _copy_in(connection: socket.socket) -> None:
    try:
        while data := os.read(0, 65536):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the server has closed its input, or ended


def _copy_out(connection: socket.socket) -> None:
    with connection, suppress(ConnectionError):
        while data := connection.recv(65536):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


if __name__ == "__main__":
    exit_code = anyio.run(serve, json.loads(os.environ.pop(ORDERS)))
    os._exit(exit_code)  # a thread may still wait for input
