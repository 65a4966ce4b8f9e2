"""One box's container: how it is closed off, started, reached, ended and removed."""

from __future__ import annotations

import os
import socket
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from g4agent.ports.sandbox import BoxSpec, LimitName, Limits, MiB
from g4agent_box.box import WORKSPACE
from g4agent_box.host import INSIDE, inside_folder, package_dirs, tool_folders
from g4agent_docker import podman
from g4agent_docker.engine import NAME, translated
from g4agent_docker.groups import Groups, read_oom_kills
from g4agent_docker.link import Link
from g4agent_docker.profile import seccomp_profile

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

PACKAGES = f"{INSIDE}/packages"
OWN_PROCESSES = 64
"""Places for the box's own processes, on top of the limit, which the kernel counts for the tools' user."""
TMP_BYTES = 64 * MiB
SHM_BYTES = 16 * MiB
INODES = 100_000
"""Files that each private folder may hold."""
OWNER_LABEL = "g4agent.owner"


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """What distinguishes one container from another."""

    image: str
    user: int
    label: str
    lease: float
    runtime: str | None
    podman: bool

    def options(self, spec: BoxSpec) -> dict[str, Any]:
        """Arguments of `containers.create`: closed until opened.

        Process 1 is root without rights, but for those that let it change to `user` and end `user`'s processes.
        """
        limits = spec.limits
        size = limits.workspace_bytes
        options = f"rw,exec,nosuid,nodev,nr_inodes={INODES}"
        return {
            "image": self.image,
            "entrypoint": ["python3", "-I", "-B", f"{INSIDE}/g4agent_box/inside/container.py", str(self.lease)],
            "command": [],
            "environment": self._environment(spec),
            "labels": {OWNER_LABEL: self.label},
            "name": self.label,
            "hostname": "g4agent",
            "user": "0:0",
            "working_dir": "/",
            "stdin_open": True,
            "auto_remove": True,
            "network_mode": "none",
            "read_only": True,
            "cap_drop": ["ALL"],
            "cap_add": ["SETUID", "SETGID", "KILL"],
            "security_opt": ["no-new-privileges", f"seccomp={seccomp_profile()}"],
            "ipc_mode": "private",
            "mem_limit": limits.memory_bytes,
            "memswap_limit": limits.memory_bytes,
            "pids_limit": limits.processes + OWN_PROCESSES,
            "nano_cpus": int(limits.cpus * 1e9),
            "shm_size": SHM_BYTES,
            "tmpfs": {
                WORKSPACE: f"{options},size={size},mode=0755,uid={self.user},gid={self.user}",
                "/tmp": f"{options},size={min(TMP_BYTES, size)},mode=1777",
            },
            "mounts": self._mounts(spec),
            "log_config": {"Type": "none", "Config": {}},
            **({} if self.runtime is None else {"runtime": self.runtime}),
        }

    def for_engine(self, options: dict[str, Any]) -> AbstractContextManager[dict[str, Any]]:
        """The options as the engine takes them, while it reads them."""
        return podman.adapted(options, self.user, seccomp_profile()) if self.podman else nullcontext(options)

    @staticmethod
    def _environment(spec: BoxSpec) -> dict[str, str]:
        standard = {"HOME": "/tmp", "USER": "agent", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "PYTHONUNBUFFERED": "1"}
        standard["SSL_CERT_FILE"] = "/etc/ssl/certs/ca-certificates.crt"
        return {**standard, **spec.env}

    @staticmethod
    def _mounts(spec: BoxSpec) -> list[dict[str, Any]]:
        shown = {f"{INSIDE}/g4agent_box/inside": inside_folder()}
        shown |= {f"{PACKAGES}/{path.name}": path for path in package_dirs()}
        shown |= {str(path): path for path in tool_folders(spec)}
        shown |= {target: source.resolve() for target, source in spec.sockets.items()}
        return [
            {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}
            for target, source in sorted(shown.items())
        ]


class RunningContainer:
    """A started container; see `g4agent_box.box.Holder`."""

    backend = NAME

    def __init__(self, client: DockerClient, container: Container, link: Link) -> None:
        self._client = client
        self._container = container
        self._link = link
        self._counter: Path | None = None
        """The kernel's count of memory kills; None where this process cannot see it."""
        self.unenforced: frozenset[LimitName] = frozenset()
        """Limits that the engine took and did not set."""

    def look_at_groups(self, limits: Limits) -> None:
        """Looks for the container's control groups on this host."""
        groups = Groups.of(self._client.api.inspect_container(str(self._container.id))["State"]["Pid"])
        self._counter = groups.oom_counter()
        self.unenforced = groups.unenforced(limits)

    def last_words(self) -> str:
        return self._link.last_words() or "the engine or the container is gone"

    def oom_kills(self) -> int:
        return 0 if self._counter is None else read_oom_kills(self._counter)

    async def wait(self) -> None:
        """Waits until the engine has let go of the container's streams, which it does at its end."""
        await anyio.wait_readable(self._link.ended)

    async def kill(self) -> None:
        """Ends the container by removing it. The engine is given a few seconds; the box's lease ends it without one."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(remove, self._client, str(self._container.id))
            self._link.cut()

    async def release(self) -> None:
        self._link.cut()
        await anyio.to_thread.run_sync(self._link.release)


def remove(client: DockerClient, container: str) -> None:
    """Ends and removes a container, if it is there and the engine answers."""
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    try:
        client.api.remove_container(container, force=True)
    except APIError:
        return  # it is gone, or on its way: `auto_remove`
    except (DockerException, RequestException, OSError):
        return  # no engine; process 1 ends when it hears nothing more


def start(client: DockerClient, plan: ContainerPlan, spec: BoxSpec, control: socket.socket) -> RunningContainer:
    """Creates, attaches to and starts a container; `control` is the far end of the box's control socket.

    Raises:
        SandboxUnavailableError: The engine refuses.
    """
    options = plan.options(spec)
    with translated("the box's container cannot be made"), plan.for_engine(options) as fitting:
        container = client.containers.create(**fitting)
    try:
        with translated("the box's container cannot be reached"):
            attached = _attach(client, str(container.id))
        link = Link(attached, control, plan.lease)
        running = RunningContainer(client, container, link)
        try:
            with translated("the box's container cannot be started"):
                container.start()
                running.look_at_groups(spec.limits)
        except BaseException:
            link.cut()
            link.release()
            raise
    except BaseException:
        remove(client, str(container.id))
        raise
    return running


def _attach(client: DockerClient, container: str) -> socket.socket:
    """The container's streams as a socket of this process alone."""
    wrapped: Any = client.api.attach_socket(container, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    with wrapped:
        return socket.socket(fileno=os.dup(wrapped.fileno()))
