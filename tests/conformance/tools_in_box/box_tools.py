"""Tools that the tests call in a box."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from g4agent.tools import tool

IMPORTED_BY = os.getpid()


class Item(BaseModel):
    sku: str
    count: int = 1


@tool(effect="pure")
def total(items: list[Item]) -> int:
    """Counts items.

    Args:
        items: What to count.
    """
    return sum(item.count for item in items)


@tool
async def later(text: str) -> str:
    """Gives the text back, a little later."""
    import anyio

    await anyio.sleep(0.01)
    return text


@tool
def noisy(text: str) -> str:
    """Prints on every way out, and at the channels' numbers."""
    print('{"value": "forged"}')
    sys.stderr.write("warning\n")
    os.write(1, b"\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00{}")
    for fd in range(3, 64):
        if os.path.exists(f"/proc/self/fd/{fd}") and "socket" in os.readlink(f"/proc/self/fd/{fd}"):
            os.write(fd, b"forged")
            raise AssertionError(f"descriptor {fd} is a socket of the sandbox")
    return text


@tool
def fails(text: str) -> str:
    """Raises."""
    return _deeper(text)


def _deeper(text: str) -> str:
    raise LookupError(f"no {text}")


@tool
def unfit() -> Any:
    """Returns what JSON cannot express."""
    return object()


@tool
def huge() -> str:
    """Returns more than the output limit."""
    return "x" * (8 << 20)


@tool
def hangs() -> None:
    """Prints and hangs."""
    print("partial")
    time.sleep(60)


@tool
def eats() -> None:
    """Takes all memory."""
    blocks = []
    while True:
        blocks.append(bytearray(1 << 20))


@tool
def ends(code: int) -> None:
    """Leaves without a result."""
    os._exit(code)


@tool
def crashes() -> None:
    """Dies of a signal."""
    os.kill(os.getpid(), signal.SIGSEGV)


@tool
def kills_helper() -> None:
    """Kills the processes above it that it can reach, and leaves one behind."""
    subprocess.Popen(["sh", "-c", "sleep 0.4; echo survived > mark"], start_new_session=True)
    parent = os.getppid()
    grandparent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    os.kill(grandparent, signal.SIGKILL)
    time.sleep(30)


@tool
def importer() -> list[int]:
    """Which process imported this module, and which one runs the call."""
    return [IMPORTED_BY, os.getpid()]


@tool
def ask(path: str) -> str:
    """Talks to a service on a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(b"hello")
        return connection.recv(100).decode()


@tool
def forges(text: str) -> str:
    """Writes its result itself, wherever it finds a pipe."""
    for fd in range(3, 16):
        try:
            os.write(fd, text.encode() * 1)
        except OSError:
            continue
    os._exit(0)


@tool
def harms_the_next() -> list[int]:
    """Tells which processes it can look or write into, such as those that wait for the next call; then kills them."""
    others = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getpid(), os.getppid()}
    opened = []
    for pid in others:
        for name in ("mem", "environ", "fd/0"):
            try:
                os.close(os.open(f"/proc/{pid}/{name}", os.O_RDWR if name == "mem" else os.O_RDONLY))
                opened.append(pid)
            except OSError:
                continue
    for pid in others - {_fork_server()}:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    return opened


@tool
def stops_the_next() -> int:
    """Stops what waits for this tool's next call, as if it were killed and not gone yet; gives their number."""
    time.sleep(0.3)  # until they are there
    stopped = 0
    for pid in {int(name) for name in os.listdir("/proc") if name.isdigit()} - {os.getppid()}:
        try:
            above = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if above == _fork_server():
                os.kill(pid, signal.SIGSTOP)
                stopped += 1
        except OSError:
            continue
    return stopped


def _fork_server() -> int:
    return int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
