"""What Podman takes otherwise than Docker, whose programming interface it offers.

It reads a seccomp profile from a file, knows few options of private folders (no owner, no number of files), adds
folders to a read-only container that may be written and have no size, and hands the host's /etc/hosts on.
"""

from __future__ import annotations

import contextlib
import os
import resource
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g4agent.errors import SandboxUnavailableError
from g4agent_box.box import WORKSPACE

if TYPE_CHECKING:
    from docker import DockerClient

HOSTS = Path(__file__).with_name("hosts")
ADDED_FOLDERS = ("/run", "/var/tmp")
"""Folders that Podman makes writable in a container whose root is not, unless it is told what they are."""
OPEN_FILES = 4096
"""Descriptors of the box's own processes, where this process may have as many; a tool's are limited by its call."""


def is_podman(client: DockerClient) -> bool:
    """Whether the engine names itself so."""
    components = client.version().get("Components") or ()
    return any("podman" in component.get("Name", "").lower() for component in components)


def check_runtime(runtime: str | None, info: Mapping[str, Any]) -> None:
    """Podman takes a container's runtime and uses its own.

    Raises:
        SandboxUnavailableError: Its own is not the one asked for.
    """
    own = info.get("DefaultRuntime")
    if runtime is not None and runtime != own:
        raise SandboxUnavailableError(
            f"Podman runs every container by the runtime that it was started with, {own}, not by {runtime}",
            hint=f"Start it so: podman --runtime {runtime} system service …",
        )


@contextlib.contextmanager
def adapted(options: dict[str, Any], user: int, profile: str) -> Iterator[dict[str, Any]]:
    """The options of `containers.create` as Podman takes them, for as long as it reads the profile's file."""
    with tempfile.NamedTemporaryFile("w", prefix="g4agent-seccomp-", suffix=".json") as file:
        file.write(profile)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # an engine without root may be another user
        security = [f"seccomp={file.name}" if each.startswith("seccomp=") else each for each in options["security_opt"]]
        hosts = {"Type": "bind", "Source": str(HOSTS), "Target": "/etc/hosts", "ReadOnly": True}
        yield options | {
            "security_opt": security,
            # process 1 gives the workspace to the tools' user, and this right away
            "entrypoint": [*options["entrypoint"], WORKSPACE, str(user)],
            "cap_add": [*options["cap_add"], "CHOWN"],
            "tmpfs": {
                **{folder: _known(text) for folder, text in options["tmpfs"].items()},
                **dict.fromkeys(ADDED_FOLDERS, "ro,nosuid,nodev,noexec,size=4096,mode=0755"),
            },
            "mounts": [*options["mounts"], hosts],
            "ulimits": _process_limits(options["pids_limit"]),
        }


def _known(text: str) -> str:
    """A private folder's options without those that Podman refuses."""
    return ",".join(each for each in text.split(",") if each.partition("=")[0] not in ("nr_inodes", "uid", "gid"))


def _process_limits(processes: int) -> list[dict[str, Any]]:
    """Limits that the engine may give: its own defaults are more than a root without CAP_SYS_RESOURCE may."""
    files = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return [{"Name": "nofile", "Soft": files, "Hard": files}, {"Name": "nproc", "Soft": processes, "Hard": processes}]
