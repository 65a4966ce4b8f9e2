"""What a sandbox must keep a tool away from, set up on the host for the conformance suite."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Host:
    """Bait, each piece with the canary in it or behind it."""

    canary: str
    file: Path
    variable: str
    tcp_port: int
    udp_port: int
    abstract_socket: str
    path_socket: Path
    victim: int
    """Pid of a process of the same user as this one."""
    visitors: list[str] = field(default_factory=list)
    """Which listeners heard something."""

    def fill_in(self, script: str) -> str:
        """A probe's script with the names of the bait put in."""
        values = {
            "CANARY_FILE": str(self.file),
            "TCP_PORT": str(self.tcp_port),
            "UDP_PORT": str(self.udp_port),
            "ABSTRACT_SOCKET": self.abstract_socket,
            "PATH_SOCKET": str(self.path_socket),
            "VICTIM": str(self.victim),
        }
        for name, value in values.items():
            script = script.replace(f"@{name}@", value)
        return script


@contextlib.contextmanager
def bait(folder: Path) -> Iterator[Host]:
    """Sets up the bait, all of it on this machine, and takes it away again."""
    canary = f"canary-{secrets.token_hex(16)}"
    file = folder / "secret.txt"
    file.write_text(canary)
    file.chmod(0o644)
    variable = f"G4AGENT_TEST_SECRET_{secrets.token_hex(4)}"
    os.environ[variable] = canary
    abstract = f"g4agent-test-{secrets.token_hex(8)}"
    sockets = [socket.socket(socket.AF_INET), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)]
    sockets += [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    tcp, udp, unix_abstract, unix_path = sockets
    tcp.bind(("127.0.0.1", 0))
    udp.bind(("127.0.0.1", 0))
    unix_abstract.bind(f"\0{abstract}")
    unix_path.bind(str(folder / "service.sock"))
    (folder / "service.sock").chmod(0o666)
    command = [sys.executable, "-c", "import time; time.sleep(86400)", "g4agent-test-victim"]
    victim = subprocess.Popen(command, env=os.environ | {"VICTIM_SECRET": canary})
    host = Host(
        canary=canary,
        file=file,
        variable=variable,
        tcp_port=tcp.getsockname()[1],
        udp_port=udp.getsockname()[1],
        abstract_socket=abstract,
        path_socket=folder / "service.sock",
        victim=victim.pid,
    )
    for listener, name in ((tcp, "tcp"), (unix_abstract, "abstract"), (unix_path, "path")):
        listener.listen(8)
        threading.Thread(target=_accept, args=(listener, name, host.visitors), daemon=True).start()
    threading.Thread(target=_receive, args=(udp, host.visitors), daemon=True).start()
    try:
        yield host
        assert victim.poll() is None, "something in a box killed a process of the host"
    finally:
        victim.kill()
        victim.wait()
        del os.environ[variable]
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread
            each.close()


def _accept(listener: socket.socket, name: str, visitors: list[str]) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
            visitors.append(name)


def _receive(udp: socket.socket, visitors: list[str]) -> None:
    with contextlib.suppress(OSError):
        while udp.recv(100):
            visitors.append("udp")
