"""The backend: what this host can enforce, and the opening of boxes."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from pathlib import Path

from g4agent.errors import LimitNotEnforceableError, SandboxUnavailableError
from g4agent.ports.sandbox import BoxSpec, Capabilities, LimitName
from g4agent_box.box import WORKSPACE, SupervisedBox
from g4agent_box.host import START_TIMEOUT, check_sockets, configure
from g4agent_box.inside.calls import CallLimits
from g4agent_bubblewrap import process
from g4agent_bubblewrap.cgroup import BoxCgroup, Cgroups, find_cgroups
from g4agent_bubblewrap.process import NAME
from g4agent_bubblewrap.rootfs import MountPlan, plan, python_paths
from g4agent_bubblewrap.sweep import new_label, sweep

ALWAYS: frozenset[LimitName] = frozenset({"wall", "output", "file_size", "open_files", "workspace"})
"""Limits that need nothing from the host."""
COUNTED: frozenset[LimitName] = frozenset({"memory", "processes", "cpu"})
"""Limits over all processes of a box together, for which the host's control groups are needed."""
DELEGATION_HINT = (
    "Start the program in a group of its own: systemd-run --user --scope -p Delegate=yes …, run it as root, or name "
    "the limit in BoxSpec.allow_degraded."
)
APPARMOR_SWITCH = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
USERNS_SWITCH = Path("/proc/sys/kernel/unprivileged_userns_clone")


class BubblewrapSandbox:
    """Boxes made by bubblewrap; see `g4agent.ports.sandbox.Sandbox`. Needs Linux 5.6 or newer, and no daemon.

    Started by root, every box runs as an unprivileged user id of its own; otherwise it runs as this process's user.
    """

    name = NAME

    def __init__(self) -> None:
        self._cgroups: Cgroups | None = None
        self._capabilities: Capabilities | None = None

    def capabilities(self) -> Capabilities:
        """Probes the host by running `true` as a box would run. Cached."""
        if self._capabilities is None:
            self._capabilities = self._probe()
        return self._capabilities

    async def open(self, spec: BoxSpec) -> SupervisedBox:
        """Opens a box. The calling thread must live as long as the box.

        Raises:
            ConfigError: A folder or socket of the specification cannot be used.
            LimitNotEnforceableError: The host lacks the means for a limit that may not be degraded.
            SandboxUnavailableError: bubblewrap cannot work here; the message says what to do.
        """
        cgroups = self._find_cgroups()
        missing = self._unenforced(cgroups)
        if refused := missing - spec.allow_degraded:
            names = tuple(sorted(refused))
            raise LimitNotEnforceableError(
                names, f"this host cannot enforce the limits {', '.join(names)} of a box", hint=DELEGATION_HINT
            )
        mount_plan = plan(spec)
        user = process.new_user()
        check_sockets(spec.sockets, user)
        cgroup = _create(cgroups, spec)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                command = process.supervisor_command(theirs.fileno())
                running = process.start(mount_plan, command, [theirs.fileno()], user, cgroup)
        except BaseException as error:
            ours.close()
            if cgroup is not None:
                cgroup.remove()
            if isinstance(error, OSError):
                raise _unavailable(str(error)) from error
            raise
        box = SupervisedBox(spec, running, ours, tuple(sorted(missing)))
        try:
            await configure(ours, _configuration(spec, missing, user))
        except BaseException as error:
            words = running.last_words()
            await box.close()
            if isinstance(error, OSError | TimeoutError):
                raise _unavailable(words) from error
            raise
        return box

    def _find_cgroups(self) -> Cgroups:
        """The usable control groups, swept of leftovers at the first use."""
        if self._cgroups is None:
            mountinfo, membership = Path("/proc/self/mountinfo").read_text(), Path("/proc/self/cgroup").read_text()
            self._cgroups = find_cgroups(mountinfo, membership)
            sweep(self._cgroups)
        return self._cgroups

    def _unenforced(self, cgroups: Cgroups) -> frozenset[LimitName]:
        own: frozenset[LimitName] = frozenset({"processes"}) if _nproc_is_per_box() else frozenset()
        return COUNTED - cgroups.enforced - own

    def _probe(self) -> Capabilities:
        if platform.system() != "Linux":
            return Capabilities(NAME, False, "bubblewrap needs Linux", frozenset())
        try:
            words = _try_true(plan(BoxSpec()))
            if words is not None:
                raise _unavailable(words)
        except SandboxUnavailableError as error:
            return Capabilities(NAME, False, str(error), frozenset())
        missing = self._unenforced(self._find_cgroups())
        enforced = (ALWAYS | COUNTED) - missing
        notes = tuple(f"The limit {name} is not enforced. {DELEGATION_HINT}" for name in sorted(missing))
        return Capabilities(NAME, True, None, enforced, notes)


def _create(cgroups: Cgroups, spec: BoxSpec) -> BoxCgroup | None:
    if not cgroups.mounts:
        return None
    try:
        return cgroups.create(new_label(), spec.limits)
    except OSError as error:
        raise SandboxUnavailableError(
            f"the control group of a box cannot be made: {error}", hint="Look at the limits of the parent group."
        ) from error


def _nproc_is_per_box() -> bool:
    """Whether RLIMIT_NPROC counts one box only: by user namespace since Linux 5.14, else by the box's own user id."""
    release = platform.release().split(".")
    return os.geteuid() == 0 or (int(release[0]), int(release[1].partition("-")[0])) >= (5, 14)


def _configuration(spec: BoxSpec, missing: frozenset[LimitName], user: int | None) -> dict[str, object]:
    """What the supervisor must know (`inside.supervisor.Supervisor`)."""
    limits = CallLimits(
        output_bytes=spec.limits.output_bytes,
        idle_seconds=spec.limits.idle_seconds,
        file_bytes=spec.limits.file_bytes,
        open_files=spec.limits.open_files,
        processes=spec.limits.processes if _nproc_is_per_box() else None,
        data_bytes=spec.limits.memory_bytes if "memory" in missing else None,
    )
    return {
        "workspace": WORKSPACE,
        "sys_path": list(python_paths().sys_path),
        "python_paths": [str(path.resolve()) for path in spec.python_paths],
        "limits": limits.as_dict(),
        "ports": dict(spec.ports),
    }


def _try_true(mount_plan: MountPlan) -> str | None:
    """Runs `true` as a box; gives bwrap's complaint if that fails."""
    running = process.start(mount_plan, ["true"], [], process.new_user(), None)
    try:
        code = running.popen.wait(START_TIMEOUT)
        return None if code == 0 else running.last_words() or f"exit code {code}"
    except subprocess.TimeoutExpired:
        running.popen.kill()
        running.popen.wait()
        return "it did not end"
    finally:
        running.errors.close()


def _unavailable(words: str) -> SandboxUnavailableError:
    """bwrap's complaint with the likely remedy."""
    if _is_set(APPARMOR_SWITCH, "1"):
        hint = (
            "AppArmor keeps users from making namespaces (Ubuntu 23.10 and newer). Allow it for all programs with "
            "`sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or write an AppArmor profile with "
            f"`userns,` for {process.find_bwrap()}."
        )
    elif _is_set(USERNS_SWITCH, "0"):
        hint = "User namespaces are switched off: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    elif Path("/.dockerenv").exists():
        hint = "A container must allow user namespaces and mounts: docker run --security-opt seccomp=unconfined …"
    else:
        hint = "Look for a user namespace limit: sysctl user.max_user_namespaces"
    return SandboxUnavailableError(f"bubblewrap cannot make a box here: {words or 'no message'}", hint=hint)


def _is_set(switch: Path, value: str) -> bool:
    return switch.exists() and switch.read_text().strip() == value


__all__ = ["BubblewrapSandbox"]
