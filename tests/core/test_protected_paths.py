"""Which paths a run may not read or change."""

from __future__ import annotations

import pytest

from g4agent.protected_paths import CI, ProtectedPaths

PATHS = ProtectedPaths(fixed=(*CI, "tests/*.py"))


@pytest.mark.parametrize("path", [".git/config", "sub/.git/hooks/x", ".ENV", "a/.env.local", "keys/id_rsa", "x.pem"])
def test_internals_and_secrets_are_neither_read_nor_changed(path: str) -> None:
    """Anywhere in the tree, and on a file system that ignores case."""
    assert PATHS.unreadable(path) is not None and PATHS.unchangeable(path) is not None


@pytest.mark.parametrize("path", [".github/workflows/ci.yml", ".gitlab-ci.yml", "tests/test_a.py"])
def test_ci_files_and_what_was_named_are_read_only(path: str) -> None:
    """A run that changes its own judge proves nothing."""
    assert PATHS.unreadable(path) is None and PATHS.unchangeable(path) is not None


@pytest.mark.parametrize("path", ["src/a.py", ".env.example", ".github/README.md", ".gitignore", "a/tests/test_a.py"])
def test_the_rest_is_free(path: str) -> None:
    """A pattern that catches too much would make the agent useless."""
    assert PATHS.unchangeable(path) is None
