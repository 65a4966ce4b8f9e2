"""Talking to the engine: its address, its time limits, and its failures as errors of this package."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from g4agent.errors import SandboxUnavailableError

if TYPE_CHECKING:
    from docker import DockerClient

NAME = "docker"
REQUEST_TIMEOUT = 15
"""Seconds for one request to the engine; a start is the slowest, and takes half a second."""
DEFAULT_URL = "unix:///var/run/docker.sock"


def connect(base_url: str | None) -> DockerClient:
    """A client; nothing is asked of the engine but its version.

    Args:
        base_url: Address of a Docker or Podman socket, such as `unix:///run/podman/podman.sock`; by default
            `$DOCKER_HOST`, else Docker's own.

    Raises:
        SandboxUnavailableError: The docker SDK is not installed, or no engine answers.
    """
    try:
        import docker
    except ImportError as error:
        raise SandboxUnavailableError(
            "the docker SDK for Python is not installed", hint="pip install 'g4agent[docker]'"
        ) from error
    url = base_url or os.environ.get("DOCKER_HOST") or DEFAULT_URL
    if not url.startswith("unix://"):
        raise SandboxUnavailableError(
            f"the engine at {url} cannot be used: a box shows files of this machine, so its engine must run here",
            hint="Name a unix socket: DockerSandbox(base_url='unix:///run/…') or DOCKER_HOST=unix:///run/….",
        )
    with translated(f"no engine answers at {url}"):
        return docker.DockerClient(base_url=url, timeout=REQUEST_TIMEOUT, version="auto")


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns whatever the SDK raises into SandboxUnavailableError with a hint."""
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.exceptions import RequestException

    try:
        yield
    except ImageNotFound as error:
        raise SandboxUnavailableError(
            f"{what}: {error.explanation or error}",
            hint="Build it: python -m g4agent_docker build --from-host (or without: then from its Dockerfile). "
            "Nothing is pulled unless DockerSandbox(pull=True) says so.",
        ) from error
    except APIError as error:
        hint = "Look at the engine's log, and at the options of DockerSandbox."
        raise SandboxUnavailableError(f"{what}: {error.explanation or error}", hint=hint) from error
    except (DockerException, RequestException, OSError) as error:
        hint = (
            "Start the engine (systemctl start docker), let this user use its socket, or name another one with "
            "DOCKER_HOST=unix://…"
        )
        raise SandboxUnavailableError(f"{what}: {_short(error)}", hint=hint) from error


def _short(error: BaseException) -> str:
    """The innermost reason, which the SDK wraps several times."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error)
