"""What the context window is filled with."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Ledger:
    """Tokens of a transcript by what they belong to. Together they are the transcript's length, exactly."""

    system: int = 0
    """The system turn without the tools."""
    tools: int = 0
    """Their declarations."""
    user: int = 0
    """What people said."""
    summary: int = 0
    """What stands in the place of older turns."""
    thoughts: int = 0
    calls: int = 0
    results: int = 0
    answers: int = 0
    """The model's visible text, and the structure of its turns."""
    window: int | None = None
    """Tokens that the model's context holds; None where that is not known."""
    token_bytes: float | None = None
    """What a further token takes in the KV cache, scales included; None where that is not known. What a cache takes
    once (the windows of sliding layers, the precise start and tail of a compressed one) is not in it."""

    @property
    def parts(self) -> dict[str, int]:
        """Tokens by kind."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("window", "token_bytes")}

    @property
    def total(self) -> int:
        """The transcript's length in tokens."""
        return sum(self.parts.values())

    @property
    def bytes(self) -> dict[str, int] | None:
        """Bytes of the KV cache by kind; None where they are not known."""
        if self.token_bytes is None:
            return None
        return {name: round(tokens * self.token_bytes) for name, tokens in self.parts.items()}
