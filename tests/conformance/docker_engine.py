"""A real container engine for the tests: installed from Debian where it is missing, started, and ended again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from debian import install

START_PATIENCE = 30.0
STOP_PATIENCE = 20.0
CLEAR_AWAY = """
cat
if engine=$(cat "$1/pidfile" 2>/dev/null); then
    kill "$engine"
    timeout $2 tail --pid="$engine" -f /dev/null || kill -9 "$engine"
fi
umount "$1/data-root" "$1/root/overlay" 2>/dev/null
rm -rf "$1"
"""
"""Waits for the end of its input, which is the end of these tests however they end, and clears away their engine.

An engine that is killed, or told to end as soon as it answers, leaves a mount of its root; that goes here, too."""


class Engine:
    """A dockerd of the tests' own, with no network set-up and a socket in its own folder."""

    packages: ClassVar[Mapping[str, str]] = {"dockerd": "docker.io"}
    """Program → Debian package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/engine.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers. Raises AssertionError with the end of its log if it does not."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # in its folder: Podman's conmon writes where it was started
                self._command(), stdout=log, stderr=log, start_new_session=True, cwd=self._folder
            )
        (self._folder / "pidfile").write_text(str(self._process.pid))
        deadline = time.monotonic() + START_PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, (self._folder / "log").read_text()[
                -2000:
            ]
            time.sleep(0.1)

    def _command(self) -> list[str]:
        options = [f"--{name}={self._folder / name}" for name in ("data-root", "exec-root")]
        options += ["-H", self.url, "--iptables=false", "--bridge=none", "--ip-forward=false"]
        return ["dockerd", f"--pidfile={self._folder / 'own-pidfile'}", *options]

    def _answers(self) -> bool:
        import docker
        from docker.errors import DockerException

        try:
            with contextlib.closing(docker.DockerClient(base_url=self.url, timeout=5)) as client:
                return bool(client.ping())
        except DockerException:
            return False

    def stop(self) -> None:
        """Ends the engine as an administrator would."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    def kill(self) -> None:
        """SIGKILL for the engine; its containers stay."""
        assert self._process is not None
        self._process.kill()
        self._gone()

    def _gone(self) -> None:
        assert self._process is not None
        self._process.wait()
        (self._folder / "pidfile").unlink(missing_ok=True)


class Podman(Engine):
    """A Podman service of the tests' own. Its runtime is runc: Debian's crun knows no hybrid control groups."""

    packages: ClassVar[Mapping[str, str]] = {"podman": "podman", "runc": "runc"}

    def _command(self) -> list[str]:
        options = [f"--{name}={self._folder / name}" for name in ("root", "runroot", "tmpdir")]
        options += ["--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=none"]
        return ["podman", *options, "system", "service", "--time=0", self.url]


ENGINES: Mapping[str, type[Engine]] = {"docker": Engine, "podman": Podman}


@contextlib.contextmanager
def engine_folder() -> Iterator[Path]:
    """A folder for an engine. Both go when this, or the process, ends, also by SIGKILL."""
    folder = Path(tempfile.mkdtemp(prefix="g4agent-engine-"))
    command = ["sh", "-c", CLEAR_AWAY, "sh", str(folder), str(STOP_PATIENCE)]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield folder
    finally:
        watcher.communicate()


def install_engine(kind: str) -> None:
    """Installs what one of `ENGINES` needs and this host lacks."""
    for program, package in ENGINES[kind].packages.items():
        if shutil.which(program) is None:
            install(package)


@contextlib.contextmanager
def running_engine(kind: str = "docker") -> Iterator[Engine]:
    """One of `ENGINES` with the boxes' image, made of this host's files. What it stores goes when it ends."""
    import docker

    from g4agent_docker.image import build_from_host

    install_engine(kind)
    with engine_folder() as folder:
        engine = ENGINES[kind](folder)
        engine.start()
        try:
            with contextlib.closing(docker.DockerClient(base_url=engine.url)) as client:
                build_from_host(client)
            yield engine
        finally:
            engine.stop()
