"""A real container engine for the tests: installed from Debian where it is missing, started, and ended again."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from debian import install

START_PATIENCE = 30.0


class Engine:
    """A dockerd of the tests' own, with no network set-up and a socket in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/engine.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers. Raises AssertionError with the end of its log if it does not."""
        places = ["--data-root", "--exec-root", "--pidfile"]
        options = [word for name in places for word in (name, str(self._folder / name.strip("-")))]
        options += ["-H", self.url, "--iptables=false", "--bridge=none", "--ip-forward=false"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_PATIENCE
        while not self._answers():
            assert time.monotonic() < deadline and self._process.poll() is None, (self._folder / "log").read_text()[
                -2000:
            ]
            time.sleep(0.1)

    def _answers(self) -> bool:
        import docker
        from docker.errors import DockerException

        try:
            with contextlib.closing(docker.DockerClient(base_url=self.url, timeout=5)) as client:
                return bool(client.ping())
        except DockerException:
            return False

    def kill(self) -> None:
        """SIGKILL for the engine; its containers stay."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        (self._folder / "pidfile").unlink(missing_ok=True)

    def stop(self) -> None:
        """Ends the engine, its containers and its own containerd."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


@contextlib.contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine with the boxes' image, made of this host's files. What it stores goes when it ends."""
    import docker

    from g4agent_docker.image import build_from_host

    if shutil.which("dockerd") is None:
        install("docker.io")
    folder = Path(tempfile.mkdtemp(prefix="g4agent-engine-"))
    engine = Engine(folder)
    try:
        engine.start()
        with contextlib.closing(docker.DockerClient(base_url=engine.url)) as client:
            build_from_host(client)
        yield engine
    finally:
        with contextlib.suppress(AssertionError):
            engine.stop()
        shutil.rmtree(folder, ignore_errors=True)
