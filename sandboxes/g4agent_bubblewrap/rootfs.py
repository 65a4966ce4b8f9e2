"""What a box sees: the mount plan and the arguments of bwrap.

Read-only: the system's /usr, this Python interpreter with its packages, the tools' folders. Private and of fixed size:
the workspace, /tmp and /dev/shm. Of the host's /etc only `alternatives`, the linker's cache and the certificate
authorities, which name programs, libraries and companies; user names and hosts are made up. Nothing of /home, /var,
/run and /sys, but the sockets that were named.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from g4agent.errors import ConfigError, SandboxUnavailableError
from g4agent.ports.sandbox import BoxSpec, MiB
from g4agent_box.box import WORKSPACE
from g4agent_box.host import INSIDE, inside_folder, package_dirs, tool_folders

TMP_BYTES = 64 * MiB
SHM_BYTES = 16 * MiB
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
"""Where a box sees the host's list of certificate authorities, of which each distribution has its own place."""
HOST_CERTIFICATES = (CERTIFICATES, "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem")
UID_INSIDE = 1000

ETC = {
    "/etc/passwd": f"agent:x:{UID_INSIDE}:{UID_INSIDE}::/tmp:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "/etc/group": f"agent:x:{UID_INSIDE}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True, slots=True)
class PythonPaths:
    """What the worker's interpreter needs from the host."""

    interpreter: Path
    binds: tuple[Path, ...]
    """Read-only folders and files besides /usr."""
    sys_path: tuple[str, ...]
    """Entries for g4agent and its dependencies; the standard library's are the interpreter's own."""


@cache
def python_paths() -> PythonPaths:
    """Interpreter, virtual environment, and the installed packages of g4agent, wherever they lie."""
    executable: str = getattr(sys, "_base_executable", None) or sys.executable
    interpreter = Path(executable).resolve()
    if not interpreter.is_file():
        raise SandboxUnavailableError(
            f"there is no Python interpreter at {executable or '(unknown)'}",
            hint="The box runs tools with this process's interpreter; start g4agent with an ordinary Python.",
        )
    prefixes = [Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()]
    sites = [Path(entry).resolve() for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    binds = [*prefixes, *(site for site in sites if site.is_dir())]
    sys_path = [str(site) for site in sites if site.is_dir()]
    for package in package_dirs():
        binds.append(package)
        sys_path.append(str(package.parent))
    return PythonPaths(interpreter, outermost(binds), tuple(dict.fromkeys(sys_path)))


def outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths that lie in no other one and not in /usr, without repetition."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if path == Path("/"):
            raise ConfigError("the whole file system would be shown in the box", hint="Name the folders it needs.")
        if not path.is_relative_to("/usr") and not any(path.is_relative_to(each) for each in kept):
            kept.append(path)
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class MountPlan:
    """The arguments of bwrap for one box, and the host paths that its user must reach."""

    arguments: tuple[str, ...]
    """Without the file descriptors of `seccomp` and `files`."""
    files: tuple[tuple[str, bytes], ...]
    sources: tuple[Path, ...]


def plan(spec: BoxSpec) -> MountPlan:
    """The mount plan of a box.

    Raises:
        ConfigError: A folder of the specification does not exist.
    """
    python = python_paths()
    shown = outermost([*python.binds, *tool_folders(spec)])
    arguments = [*_isolation(), *_environment(spec), *_system()]
    arguments += ["--perms", "1777", "--size", str(min(TMP_BYTES, spec.limits.workspace_bytes)), "--tmpfs", "/tmp"]
    arguments += ["--perms", "0755", "--size", str(spec.limits.workspace_bytes), "--tmpfs", WORKSPACE]
    for path in shown:
        arguments += ["--ro-bind", str(path), str(path)]
    inside = inside_folder()
    arguments += ["--ro-bind", str(inside), f"{INSIDE}/g4agent_box/inside"]
    sockets = []
    for target, source in spec.sockets.items():
        sockets.append(source.resolve())
        arguments += ["--ro-bind", str(sockets[-1]), target]
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", WORKSPACE]
    files = tuple((path, text.encode()) for path, text in ETC.items())
    return MountPlan(tuple(arguments), files, (*shown, inside, *sockets, python.interpreter))


def _isolation() -> list[str]:
    user = str(UID_INSIDE)
    return [
        *("--unshare-all", "--unshare-user", "--disable-userns", "--uid", user, "--gid", user),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL", "--hostname", "g4agent"),
    ]


def _environment(spec: BoxSpec) -> list[str]:
    programs = [f"{prefix}/bin" for prefix in dict.fromkeys((sys.prefix, sys.base_prefix))]
    environment = {
        "PATH": ":".join(dict.fromkeys([*programs, "/usr/local/bin", "/usr/bin", "/bin"])),
        "HOME": "/tmp",
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "PYTHONUNBUFFERED": "1",
        "SSL_CERT_FILE": CERTIFICATES,
        **spec.env,
    }
    return ["--clearenv", *(word for name, value in environment.items() for word in ("--setenv", name, value))]


def _system() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/") / name
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            arguments += ["--ro-bind", str(path), str(path)]
    for optional in ("/etc/alternatives", "/etc/ld.so.cache"):
        arguments += ["--ro-bind-try", optional, optional]
    for bundle in HOST_CERTIFICATES:
        if Path(bundle).is_file():
            arguments += ["--ro-bind", bundle, CERTIFICATES]
            break
    return [*arguments, "--proc", "/proc", "--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]
