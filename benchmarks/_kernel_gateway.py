"""smolagents' Docker executor, as `sandbox_latency` measures it: its image made of this host's files, and its calls."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

IMAGE = "g4agent-benchmark-kernel"
PACKAGES = ("jupyter_kernel_gateway", "ipykernel")
"""What the executor's own Dockerfile installs."""
GATEWAY = '["python3", "-m", "kernel_gateway", "--KernelGatewayApp.ip=0.0.0.0", "--KernelGatewayApp.port=8888"]'
CODE, COMMAND = "print(sum([1, 2, 3]))", "import subprocess; subprocess.run(['true'], check=True)"


@contextmanager
def kernel_image(engine: str) -> Iterator[None]:
    """The executor's image at an engine, with the packages from the package index and no other image below it."""
    from docker import DockerClient

    from g4agent_docker.host_files import PATH, write_root

    with tempfile.TemporaryDirectory() as folder, closing(DockerClient(base_url=engine, timeout=600)) as client:
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", f"{folder}/site", *PACKAGES]
        subprocess.run(install, check=True)
        root = Path(folder, "root.tar")
        with tarfile.open(root, mode="w") as archive:
            write_root(archive, distributions(path=[f"{folder}/site"]), "root:x:0:0::/tmp:/bin/sh\n")
        client.api.import_image_from_file(
            str(root), repository=IMAGE, changes=[f"ENV PATH={PATH}", "ENV HOME=/tmp", f"CMD {GATEWAY}"]
        )
        try:
            yield
        finally:
            client.images.remove(IMAGE, force=True)


def measure_executor(engine: str, calls: int) -> dict[str, list[float]]:
    """Times in ms: a container until its first code has run, then calls in it."""
    from smolagents.monitoring import AgentLogger, LogLevel  # type: ignore[import-untyped]
    from smolagents.remote_executors import DockerExecutor  # type: ignore[import-untyped]

    os.environ["DOCKER_HOST"] = engine
    times: dict[str, list[float]] = {"cold": [], "call": [], "command": []}
    started = time.perf_counter()
    executor = DockerExecutor([], AgentLogger(level=LogLevel.ERROR), image_name=IMAGE, build_new_image=False)
    try:
        _timed(times["cold"], executor, CODE, started)
        for _ in range(calls):
            _timed(times["command"], executor, COMMAND)
            _timed(times["call"], executor, CODE)
    finally:
        executor.container.kill()
        executor.container.remove()
        executor.client.close()
    return times


def _timed(times: list[float], executor: Any, code: str, started: float | None = None) -> None:
    started = time.perf_counter() if started is None else started
    output = executor(code)
    times.append(1000 * (time.perf_counter() - started))
    assert output.logs.strip() == ("6" if code == CODE else ""), output
