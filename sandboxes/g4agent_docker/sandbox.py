"""The backend: what the engine can enforce, the opening of boxes, and the removal of what killed owners left."""

from __future__ import annotations

import itertools
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from g4agent.errors import LimitNotEnforceableError, SandboxUnavailableError
from g4agent.ports.sandbox import BoxSpec, Capabilities, LimitName
from g4agent_box.box import WORKSPACE, SupervisedBox
from g4agent_box.host import START_TIMEOUT, check_sockets, configure, unused_user
from g4agent_box.inside.calls import CallLimits
from g4agent_box.owner import owner_label, owner_runs
from g4agent_docker.container import OWNER_LABEL, PACKAGES, ContainerPlan, remove, start
from g4agent_docker.engine import NAME, connect, translated
from g4agent_docker.image import DEFAULT_IMAGE
from g4agent_docker.podman import check_runtime, is_podman

if TYPE_CHECKING:
    from docker import DockerClient

LEASE_SECONDS = 60.0
"""A box that hears nothing from its host for so long ends itself, whatever became of host and engine."""
ALWAYS: frozenset[LimitName] = frozenset({"wall", "output", "file_size", "open_files", "workspace"})
"""Limits that need nothing from the engine."""
ENGINE_SWITCHES: dict[LimitName, tuple[str, ...]] = {
    "memory": ("MemoryLimit",),
    "processes": ("PidsLimit",),
    "cpu": ("CpuCfsQuota", "CPUCfsQuota"),
}
"""What the engine's `info` calls its means for the other limits."""
HINT = (
    "The engine has no control groups for it: run it as root or with delegated version 2 groups, or name the limit in "
    "BoxSpec.allow_degraded."
)

_serial = itertools.count()


class DockerSandbox:
    """Boxes that are containers; see `g4agent.ports.sandbox.Sandbox`. The engine must run on this machine.

    Args:
        image: What boxes run in; made by `python -m g4agent_docker build`.
        base_url: Socket of the engine, Docker's or Podman's; by default `$DOCKER_HOST`, else Docker's own.
        runtime: An OCI runtime that the engine knows, such as `runsc` (gVisor); None is the engine's default.
        pull: Whether a missing image may be fetched from its registry.
        lease: Seconds after which a box that hears nothing from this process ends itself.
    """

    name = NAME

    def __init__(
        self,
        image: str = DEFAULT_IMAGE,
        *,
        base_url: str | None = None,
        runtime: str | None = None,
        pull: bool = False,
        lease: float = LEASE_SECONDS,
    ) -> None:
        self._image = image
        self._base_url = base_url
        self._runtime = runtime
        self._pull = pull
        self._lease = lease
        self._client: DockerClient | None = None
        self._podman = False
        self._enforced: frozenset[LimitName] = frozenset()
        self._capabilities: Capabilities | None = None

    def capabilities(self) -> Capabilities:
        """Probes the engine by running `true` in a box. Cached."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def open(self, spec: BoxSpec) -> SupervisedBox:
        """Opens a box in a container of its own.

        Raises:
            ConfigError: A folder or socket of the specification cannot be used.
            LimitNotEnforceableError: The engine lacks the means for a limit that may not be degraded.
            SandboxUnavailableError: No engine, no image, or the engine refuses; the message says what to do.
        """
        client = await anyio.to_thread.run_sync(self._connected)
        self._check_limits(spec)
        user = unused_user()
        check_sockets(spec.sockets, user)
        plan = ContainerPlan(self._image, user, owner_label(next(_serial)), self._lease, self._runtime, self._podman)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            running = await anyio.to_thread.run_sync(start, client, plan, spec, theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        self._enforced -= running.unenforced
        box = SupervisedBox(spec, running, ours, tuple(sorted(self._missing)))
        try:
            self._check_limits(spec)
            await configure(ours, _configuration(spec, user))
        except BaseException as error:
            words = running.last_words()
            await running.kill()
            await box.close()
            if isinstance(error, OSError | TimeoutError):
                raise SandboxUnavailableError(
                    f"the box did not start: {words}",
                    hint=self._start_hint(),
                ) from error
            raise
        return box

    @property
    def _missing(self) -> frozenset[LimitName]:
        """Limits for which the engine has no means, or which it took and did not set."""
        return frozenset(ENGINE_SWITCHES.keys() - self._enforced)

    def _check_limits(self, spec: BoxSpec) -> None:
        if refused := self._missing - spec.allow_degraded:
            names = tuple(sorted(refused))
            message = f"this engine cannot enforce the limits {', '.join(names)} of a box"
            raise LimitNotEnforceableError(names, message, hint=HINT)

    def _start_hint(self) -> str:
        hint = f"Does {self._image} hold Python 3.11 or newer? Build it: python -m g4agent_docker build"
        if self._runtime is None:
            return hint
        return f"{hint}. Is {self._runtime} new enough? gVisor has openat2 since September 2026."

    def _connected(self) -> DockerClient:
        """The engine's client. At the first use it is asked what it can do, and leftovers are removed."""
        if self._client is None:
            client = connect(self._base_url)
            with translated("the engine does not answer"):
                info = client.info()
                self._podman = is_podman(client)
            if self._podman:
                check_runtime(self._runtime, info)
                sweep(client)
            self._enforced = frozenset(
                limit for limit, names in ENGINE_SWITCHES.items() if any(info.get(name) for name in names)
            )
            self._require_image(client)
            self._client = client
        return self._client

    def _require_image(self, client: DockerClient) -> None:
        from docker.errors import ImageNotFound

        with translated(f"there is no image {self._image}"):
            try:
                client.images.get(self._image)
            except ImageNotFound:
                if not self._pull:
                    raise
                client.images.pull(self._image)

    def _probe(self) -> Capabilities:
        async def run_true() -> None:
            box = await self.open(BoxSpec(allow_degraded=frozenset(ENGINE_SWITCHES)))
            try:
                await box.exec(["true"], timeout=START_TIMEOUT)
            finally:
                await box.close()

        try:
            with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop
                thread.submit(anyio.run, run_true).result()
        except SandboxUnavailableError as error:
            return Capabilities(NAME, False, str(error), frozenset())
        missing = self._missing
        notes = tuple(f"The limit {name} is not enforced. {HINT}" for name in sorted(missing))
        return Capabilities(NAME, True, None, ALWAYS | self._enforced, notes)


def _configuration(spec: BoxSpec, user: int) -> dict[str, object]:
    """What the supervisor must know (`g4agent_box.inside.supervisor.Supervisor`)."""
    limits = CallLimits(
        output_bytes=spec.limits.output_bytes,
        idle_seconds=spec.limits.idle_seconds,
        file_bytes=spec.limits.file_bytes,
        open_files=spec.limits.open_files,
        processes=spec.limits.processes,
        data_bytes=None,
        user=user,
    )
    return {
        "workspace": WORKSPACE,
        "sys_path": [PACKAGES],
        "python_paths": [str(path.resolve()) for path in spec.python_paths],
        "limits": limits.as_dict(),
        "ports": dict(spec.ports),
    }


def sweep(client: DockerClient) -> list[str]:
    """Removes the containers of owners that no longer run, and gives their names."""
    removed = []
    for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}):
        if owner_runs(container.labels[OWNER_LABEL]) is False:
            remove(client, str(container.id))
            removed.append(container.labels[OWNER_LABEL])
    return removed
