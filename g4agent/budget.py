"""What a run may use, and what it has used."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from g4agent.events import Usage
from g4agent.messages import ToolResult
from g4agent.verdict import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps for one run, that is for one user turn and its tool loop. None means no cap.

    A run that was interrupted goes on with what it had left, if its session is stored; one that had used up its budget
    is given a new one when it is taken up.
    """

    steps: int = 40
    """Model generations."""
    tokens: int | None = 200_000
    """Tokens generated and tokens appended, together."""
    thought_tokens: int | None = None
    """Tokens inside thought channels over the whole run; at the cap the channel is closed and the run goes on without
    thinking."""
    thought_tokens_per_step: int | None = 4096
    step_tokens: int = 8192
    """Tokens that one generation may have."""
    wall_seconds: float | None = 3600.0
    """Checked at every token and before every step; a call gets what is left as its timeout. Reading a long prompt is
    not broken off."""
    consecutive_errors: int = 3
    """Steps in a row whose every call failed: unknown tool, invalid arguments, exception, timeout, malformed."""
    repeats: int | None = 4
    """How often the same one to three steps, calls and results alike, may follow each other; see `g4agent.stuck`."""

    def __post_init__(self) -> None:
        assert self.steps > 0 and self.step_tokens > 0 and self.consecutive_errors > 0
        assert self.repeats is None or self.repeats > 1


@dataclass(slots=True)
class Spending:
    """Running count of one run against its budget."""

    budget: Budget
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    consecutive_errors: int = 0
    started: float = field(default_factory=time.monotonic)
    """Earlier than the run by what was spent before it."""
    carried: tuple[Usage, int] = (Usage(), 0)
    """Usage and steps from before the run was taken up."""

    def add_step(self, usage: Usage, results: Sequence[ToolResult]) -> None:
        """Counts a step. Denials are not errors: the model is told, and the policy decides what ends a run."""
        self.steps += 1
        self.usage += usage
        failed = [r for r in results if r.error is not None and r.error.kind != "denied"]
        if results:
            self.consecutive_errors = self.consecutive_errors + 1 if len(failed) == len(results) else 0

    def exhausted(self) -> Verdict | None:
        """The verdict that ends the run now, or None."""
        b, used = self.budget, self.usage
        if self.consecutive_errors >= b.consecutive_errors:
            return Verdict(Outcome.TOO_MANY_ERRORS, f"every call failed in {self.consecutive_errors} steps in a row")
        if self.steps >= b.steps:
            return Verdict(Outcome.BUDGET, f"step budget used up ({b.steps})")
        if b.tokens is not None and used.prompt_tokens + used.generated_tokens >= b.tokens:
            return Verdict(Outcome.BUDGET, f"token budget used up ({b.tokens})")
        if b.wall_seconds is not None and time.monotonic() - self.started >= b.wall_seconds:
            return Verdict(Outcome.BUDGET, f"time budget used up ({b.wall_seconds:g} s)")
        return None

    def used_here(self) -> tuple[Usage, int]:
        """Usage and steps of this run alone."""
        usage, steps = self.carried
        return self.usage - usage, self.steps - steps

    def step_tokens_left(self) -> int:
        """Cap for the next generation."""
        if self.budget.tokens is None:
            return self.budget.step_tokens
        left = self.budget.tokens - self.usage.prompt_tokens - self.usage.generated_tokens
        return max(1, min(self.budget.step_tokens, left))

    def thought_tokens_left(self) -> int | None:
        """Cap for thinking in the next generation; None: no cap."""
        caps = [c for c in (self.budget.thought_tokens_per_step,) if c is not None]
        if self.budget.thought_tokens is not None:
            caps.append(max(0, self.budget.thought_tokens - self.usage.thought_tokens))
        return min(caps) if caps else None

    def seconds_left(self) -> float | None:
        if self.budget.wall_seconds is None:
            return None
        return max(0.0, self.budget.wall_seconds - (time.monotonic() - self.started))
