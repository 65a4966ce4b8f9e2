"""The cap on thinking within one generation."""

from __future__ import annotations

from dataclasses import dataclass

from g4agent.gemma4.tokens import CALL_OPEN, CHANNEL_CLOSE, CHANNEL_OPEN


@dataclass(slots=True)
class ThoughtMeter:
    """Counts the tokens between `<|channel>` and `<channel|>`, which do not count themselves."""

    limit: int | None
    inside: bool
    used: int = 0

    @property
    def must_close(self) -> bool:
        """True where the next token has to be `<channel|>`."""
        return self.inside and self.limit is not None and self.used >= self.limit

    def see(self, token: int) -> None:
        """Takes note of a token that became part of the sequence. A call ends a thought that was left open."""
        if token in (CHANNEL_CLOSE, CALL_OPEN):
            self.inside = False
        elif self.inside:
            self.used += 1
        elif token == CHANNEL_OPEN:
            self.inside = True
