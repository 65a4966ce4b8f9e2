"""Every error that g4agent raises on purpose. Each says what happened and, in `hint`, what to do next."""

from __future__ import annotations


class G4AgentError(Exception):
    """Base of all errors of this package.

    Args:
        message: What happened, in one sentence.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message}\n  {hint}")
        self.message = message
        self.hint = hint


class ConfigError(G4AgentError):
    """An option, file or combination of settings cannot be used."""


class ToolDefinitionError(G4AgentError):
    """A function, schema or command cannot become a tool. Raised where the tool is defined."""


class InvalidArguments(G4AgentError):
    """A call's arguments do not fit the tool's schema. The message is short: a model reads it and tries again."""


class SecretMissingError(ConfigError):
    """A tool names a secret for which there is no usable value, or reads one that it does not name."""


class ToolResultError(G4AgentError):
    """A tool returned something that JSON cannot express."""


class ImageError(G4AgentError):
    """An image cannot be used: it is none, is damaged or too large, or the model sees none."""


class ConversationError(G4AgentError):
    """The conversation was driven in an order that the native protocol does not allow."""


class TokenizerError(G4AgentError):
    """A tokenizer breaks its contract: it reads control tokens out of plain text."""


class ContextOverflowError(G4AgentError):
    """The next segment does not fit in the model's context window. Nothing of it was appended."""


class RuntimeUnavailableError(G4AgentError):
    """A model runtime is not installed or cannot work on this machine."""


class ModelLoadError(G4AgentError):
    """A checkpoint is missing, incomplete or not one that the runtime can run."""


class SandboxUnavailableError(G4AgentError):
    """The sandbox cannot work on this machine at all."""


class LimitNotEnforceableError(SandboxUnavailableError):
    """The host cannot enforce a limit that was asked for, and it was not allowed to be degraded by name.

    Args:
        limits: Names of the limits that cannot be enforced, as `allow_degraded` takes them.
    """

    def __init__(self, limits: tuple[str, ...], message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.limits = limits


class BoxClosedError(G4AgentError):
    """A call reached a box that was closed or whose inner process died."""


class WorkspacePathError(G4AgentError):
    """A path leaves the workspace, is not a regular file, or is too large."""


class StoreError(G4AgentError):
    """The store cannot be opened, read or written. Nothing that was committed is lost."""


class SessionNotFoundError(StoreError):
    """No session of that id is in the store."""


class SessionBusyError(StoreError):
    """Another process, or another part of this one, drives the session."""
