"""When room is made in the context window, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from g4agent.errors import ConfigError

Rung: TypeAlias = Literal["trim_results", "drop_thoughts", "summarise"]
RUNGS: tuple[Rung, ...] = get_args(Rung)


@dataclass(frozen=True, slots=True)
class ContextLadder:
    """Makes room before the window is full: rung by rung, until enough is free.

    Never touched are the system turn, the tools, the first prompt, and the last steps with the prompt that they belong
    to. A call and its result stay or go together. Fractions are of the window less what is kept free for the end of a
    turn and one more result.
    """

    start: float = 0.75
    """Above this fraction, room is made before the model goes on."""
    goal: float = 0.5
    """Down to this fraction, if that is possible."""
    recent: int = 3
    """Last model steps that stay as they are. Where that leaves too little room, the last two, or the last one."""
    result_tokens: int = 400
    """Older results that are longer than this keep their head and tail within it; the model reads the rest back by
    lines. In a small window it is an eighth of it."""
    largest_results: float = 0.25
    """What the results of one step may take of the window; longer ones are shortened as they come."""
    summary_tokens: int = 1024
    """Longest summary; in a small window an eighth of it."""
    rungs: tuple[Rung, ...] = RUNGS
    """Which are used, in this order."""

    def __post_init__(self) -> None:
        if not 0 < self.goal <= self.start < 1:
            raise ConfigError(
                f"a ladder from {self.start} down to {self.goal} of the window is not possible",
                hint="Give fractions with 0 < goal <= start < 1.",
            )
        if not 0 < self.largest_results < 1 or min(self.recent, self.result_tokens, self.summary_tokens) < 1:
            raise ConfigError(
                "the ladder's recent, result_tokens and summary_tokens are at least 1, its largest_results below 1",
                hint="Leave them out for the defaults.",
            )
        if unknown := set(self.rungs) - set(RUNGS):
            raise ConfigError(f"there is no rung called {unknown.pop()!r}", hint=f"The rungs: {', '.join(RUNGS)}.")
