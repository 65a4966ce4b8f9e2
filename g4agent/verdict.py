"""How a run ended, and the exit code that says so to a shell or a CI server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """Every way in which a run can end."""

    DONE = "done"
    BUDGET = "budget"
    TOO_MANY_ERRORS = "too_many_errors"
    NO_ANSWER = "no_answer"
    CONTEXT_FULL = "context_full"
    MODEL_ERROR = "model_error"
    CUT_OFF = "cut_off"
    INFRASTRUCTURE = "infrastructure"
    AWAITING_APPROVAL = "awaiting_approval"
    STUCK = "stuck"
    DENIED = "denied"
    NOTHING_DONE = "nothing_done"
    CHECK_FAILED = "check_failed"
    INTERRUPTED = "interrupted"


EXIT_CODES: dict[Outcome, int] = {
    Outcome.DONE: 0,
    Outcome.BUDGET: 10,
    Outcome.TOO_MANY_ERRORS: 11,
    Outcome.NO_ANSWER: 12,
    Outcome.CONTEXT_FULL: 13,
    Outcome.MODEL_ERROR: 14,
    Outcome.CUT_OFF: 15,
    Outcome.INFRASTRUCTURE: 16,
    Outcome.AWAITING_APPROVAL: 17,
    Outcome.STUCK: 18,
    Outcome.DENIED: 19,
    Outcome.NOTHING_DONE: 20,
    Outcome.CHECK_FAILED: 21,
    Outcome.INTERRUPTED: 130,
}
"""1 and 2 stay free for crashes and wrong command lines."""


_RESUMABLE = frozenset(
    {
        Outcome.INTERRUPTED,
        Outcome.BUDGET,
        Outcome.MODEL_ERROR,
        Outcome.INFRASTRUCTURE,
        Outcome.AWAITING_APPROVAL,
    }
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the run ended and, in a sentence, why."""

    outcome: Outcome
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.DONE

    @property
    def resumable(self) -> bool:
        """Whether the run stopped between two steps of a turn, so that it can go on where it was."""
        return self.outcome in _RESUMABLE

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.outcome]
