"""What every backend asks of the host: users, sockets, folders, and the start of a box's supervisor."""

from __future__ import annotations

import compileall
import contextlib
import importlib.util
import json
import random
import socket
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import anyio

from g4agent.errors import ConfigError
from g4agent.ports.sandbox import BoxSpec
from g4agent_box import inside
from g4agent_box.inside.protocol import READY

INSIDE = "/opt/g4agent"
"""Where a box sees the package of the supervisor."""
UNUSED_UIDS = range(60706, 61184)
"""User ids that no distribution and no service manager gives to anybody (systemd, docs/UIDS-GIDS.md)."""
START_TIMEOUT = 20.0
"""Seconds in which a supervisor must be ready."""


def unused_user() -> int:
    """A user id of its own for a box, so that the kernel counts its processes apart from all others."""
    return random.choice(UNUSED_UIDS)


def check_sockets(sockets: Mapping[str, Path], user: int | None) -> None:
    """Raises ConfigError for what is no socket, or one that the box's user may not connect to."""
    for path in sockets.values():
        if not path.is_socket():
            raise ConfigError(f"{path} is not a unix socket", hint="Start the service before the box is opened.")
        if user is not None and not path.stat().st_mode & 0o002:
            raise ConfigError(
                f"the box may not connect to {path}: it runs as user {user}, not as root",
                hint="Give the socket mode 0666, in a folder with mode 0700 to keep other users out.",
            )


def tool_folders(spec: BoxSpec) -> list[Path]:
    """The specification's folders with tools' modules. Raises ConfigError where one is not there."""
    folders = [path.resolve() for path in spec.python_paths]
    for path in folders:
        if not path.is_dir():
            raise ConfigError(f"{path} is not a folder", hint="BoxSpec.python_paths names folders with tools' modules.")
        if path == Path("/"):
            raise ConfigError("the whole file system would be shown in the box", hint="Name the folders it needs.")
    return folders


@cache
def inside_folder() -> Path:
    """The package that runs in the box. It is compiled here, if this process may: the host imports little of it, and a
    box, which sees it read-only, would compile it at each start."""
    folder = Path(inside.__file__).resolve().parent
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError):
            compileall.compile_dir(folder, quiet=2)
    return folder


def package_dirs() -> Iterable[Path]:
    """The folders of g4agent and of the installed tool packs; outside site-packages where they are edited in place."""
    names = ["g4agent", *(entry.module.partition(".")[0] for entry in entry_points(group="g4agent.tools"))]
    for name in dict.fromkeys(names):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            yield Path(next(iter(spec.submodule_search_locations))).resolve()


async def configure(control: socket.socket, configuration: dict[str, object]) -> None:
    """Sends a supervisor its configuration and waits until it is ready. Raises OSError or TimeoutError."""
    control.send(json.dumps(configuration).encode())
    with anyio.fail_after(START_TIMEOUT):
        await anyio.wait_readable(control)
    if control.recv(64) != READY:
        raise ConnectionError("the supervisor did not start")
