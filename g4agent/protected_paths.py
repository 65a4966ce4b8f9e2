"""Which files of a workspace a run may neither read nor change, or read and not change.

Tools that know this class refuse at once. A shell command can get around a tool, so this is
no boundary against one: a secret that must stay one does not belong in the workspace.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

INTERNAL = (".git", ".g4agent")
SECRETS = (
    *(".env", ".env.*", ".netrc", ".npmrc", ".pypirc", ".git-credentials", ".htpasswd", "credentials.json"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "*.jks"),
    *(".ssh", ".aws", ".gnupg"),
)
CI = (
    *(".github/workflows", ".github/actions", ".gitlab-ci.yml", ".circleci", ".travis.yml", "Jenkinsfile"),
    *("azure-pipelines.yml", ".buildkite", ".woodpecker", ".drone.yml", "bitbucket-pipelines.yml", ".ci"),
)
EXAMPLES = ("*.example", "*.sample", "*.template")
"""Names of files that only show how a secret one looks."""


@dataclass(frozen=True, slots=True)
class ProtectedPaths:
    """Patterns of paths, relative to the workspace, compared without regard to case.

    A pattern without `/` matches a file or folder of that name anywhere; one with `/` begins at the workspace. What
    lies in a folder that matches is protected too. `*` and `?` stand for characters other than `/`.
    """

    internal: tuple[str, ...] = INTERNAL
    """Neither read nor changed, and no part of the project."""
    secret: tuple[str, ...] = SECRETS
    """Neither read nor changed."""
    fixed: tuple[str, ...] = CI
    """Read, and not changed."""

    def is_internal(self, path: str) -> bool:
        return _any(self.internal, path)

    def is_secret(self, path: str) -> bool:
        return _any(self.secret, path) and not _any(EXAMPLES, path)

    def unreadable(self, path: str) -> str | None:
        """Why the file may not be read, or None."""
        if self.is_internal(path):
            return f"{path} is protected: it is internal"
        return f"{path} is protected: it may hold a secret" if self.is_secret(path) else None

    def unchangeable(self, path: str) -> str | None:
        """Why the file may not be changed, or None."""
        if _any(self.fixed, path):
            return f"{path} is protected: it may be read, not changed"
        return self.unreadable(path)


def _any(patterns: Iterable[str], path: str) -> bool:
    parts = path.lower().strip("/").split("/")
    return any(_matches(pattern.lower().strip("/").split("/"), parts, "/" in pattern) for pattern in patterns)


def _matches(pattern: list[str], parts: list[str], anchored: bool) -> bool:
    if not anchored:
        return any(fnmatchcase(part, pattern[0]) for part in parts)
    return len(parts) >= len(pattern) and all(map(fnmatchcase, parts, pattern))
