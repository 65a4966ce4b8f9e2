"""The development environment is the pinned one."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CONSTRAINTS = Path(__file__).parents[2] / "constraints-dev.txt"


def _needed(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    """Adds what an installed distribution needs, directly or not, to `found`: name → version."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        environments = [{"extra": extra} for extra in extras | {""}]
        if requirement.marker is not None and not any(map(requirement.marker.evaluate, environments)):
            continue
        key = canonicalize_name(requirement.name)
        if key in found and not requirement.extras:
            continue
        try:
            found[key] = Version(distribution(key).version).public
        except PackageNotFoundError:
            found[key] = "missing"
            continue
        _needed(key, frozenset(requirement.extras), found)


def test_every_package_is_pinned_and_installed_as_pinned() -> None:
    """One that is not pinned is another version tomorrow, and breaks a build in which nothing has changed."""
    pins = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[canonicalize_name(name)] = version
    needed: dict[str, str] = {}
    _needed("g4agent", frozenset({"all", "dev"}), needed)
    needed.pop("g4agent", None)
    assert {name: pins.get(name) for name in needed} == needed
