"""The image that boxes run in: built from the Dockerfile, or, where no registry is at hand, from this host's files.

Both hold the same: a shell with the usual commands, git, and Python with the packages that g4agent needs (and those
named). g4agent itself is not in it; a box mounts the one that runs, so the two always fit.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from g4agent.errors import ConfigError
from g4agent_box.host import UNUSED_UIDS
from g4agent_docker import host_files
from g4agent_docker.engine import translated

if TYPE_CHECKING:
    from docker import DockerClient

DEFAULT_IMAGE = "g4agent-box:latest"
RECIPE_LABEL = "g4agent.recipe"
"""Label with the digest of what an image was made from."""
BUILD_TIMEOUT = 600


def passwd() -> str:
    """User names for process 1 and for every user id that a box may have."""
    users = "".join(f"agent{uid}:x:{uid}:{uid}::/tmp:/bin/sh\n" for uid in UNUSED_UIDS)
    return "root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n" + users


def needed_packages(extra: Sequence[str] = ()) -> list[Distribution]:
    """The installed distributions that g4agent and the named ones need, without g4agent itself, by name.

    Raises:
        ConfigError: A named one is not installed here, so its version is unknown.
    """
    found: dict[str, Distribution] = {}
    waiting = ["g4agent", *extra]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError as error:
            raise ConfigError(f"the package {name} is not installed", hint="Install it here first.") from error
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    del found["g4agent"]
    return [found[name] for name in sorted(found)]


def recipe(packages: Iterable[Distribution]) -> str:
    """A digest that changes whenever an image made from this host's files would."""
    versions = [f"{each.name}=={each.version}" for each in packages]
    sources = [Path(module).read_text() for module in (__file__, host_files.__file__)]
    return hashlib.sha256(json.dumps([versions, sources, host_files.python_identity()]).encode()).hexdigest()


def build(
    client: DockerClient, tag: str = DEFAULT_IMAGE, *, extra: Sequence[str] = (), base: str | None = None
) -> None:
    """Builds the image from the Dockerfile. This asks the registry of its base image, and a package index.

    Raises:
        SandboxUnavailableError: The engine cannot be reached or the build fails.
    """
    requirements = "".join(f"{each.name}=={each.version}\n" for each in needed_packages(extra))
    files = {
        "Dockerfile": Path(__file__).with_name("Dockerfile").read_text(),
        "requirements.txt": requirements,
        "passwd": passwd(),
    }
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, text in files.items():
            host_files.add_text(archive, name, text)
    context.seek(0)
    with translated("the image cannot be built"):
        arguments = {} if base is None else {"BASE": base}
        client.images.build(
            fileobj=context, custom_context=True, tag=tag, buildargs=arguments, rm=True, timeout=BUILD_TIMEOUT
        )


def build_from_host(client: DockerClient, tag: str = DEFAULT_IMAGE, *, extra: Sequence[str] = ()) -> bool:
    """Makes the image from this host's own programs, Python and packages; needs no registry. Linux with glibc.

    Returns:
        False where the image was there already, made from the very same.

    Raises:
        ConfigError: A program that the image must have is not installed here.
        SandboxUnavailableError: The engine cannot be reached or refuses.
    """
    packages = needed_packages(extra)
    digest = recipe(packages)
    with translated("the image cannot be made"):
        if any(image.labels.get(RECIPE_LABEL) == digest for image in client.images.list(tag)):
            return False
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w") as archive:
            host_files.write_root(archive, packages, passwd())
        file.seek(0)
        name, _, version = tag.rpartition(":")
        with translated("the image cannot be made"):
            answer = client.api.import_image_from_data(
                file,
                repository=name,
                tag=version,
                changes=[f"LABEL {RECIPE_LABEL}={digest}", f"ENV PATH={host_files.PATH}"],
            )
        if "error" in answer:
            raise ConfigError(f"the engine refused the image: {answer}")
    return True
