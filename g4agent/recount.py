"""What a user turn had used when it was interrupted, so that taking it up again goes on with its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from g4agent.messages import ToolCall
from g4agent.verdict import Outcome

if TYPE_CHECKING:
    from g4agent.planner import Turn
    from g4agent.store import Store
    from g4agent.store.records import StoredStep


def recount(turn: Turn, store: Store, session_id: str) -> None:
    """Counts the committed steps of the session's last user turn as spent by `turn`.

    A turn that had come to the end of its budget gets a new one: whoever takes it up wants it to go on. Waiting, for a
    person or between two processes, does not count.
    """
    verdict = store.session(session_id).verdict
    if verdict is not None and verdict.outcome is Outcome.BUDGET:
        return
    steps = _of_last_turn(store.steps(session_id))
    calls = store.calls(session_id)
    for step in steps:
        if step.kind != "model":  # what was said, and room that was made in the window
            turn.spending.usage += step.usage
            turn.spending.started -= step.usage.seconds
            continue
        made = [call for call in calls if call.step == step.index and call.result is not None]
        results = [call.result for call in made if call.result is not None]
        wanted = [ToolCall(call.call_id, call.name, call.arguments) for call in made]
        turn.spending.add_step(step.usage, results)
        turn.spending.started -= step.usage.seconds + max((call.seconds for call in made), default=0.0)
        if turn.circles is not None and made:
            turn.circles.see(wanted, results)
    turn.spending.carried = (turn.spending.usage, turn.spending.steps)


def _of_last_turn(steps: list[StoredStep]) -> list[StoredStep]:
    """The steps since the user last spoke, or since a budget was last used up."""
    first = 0
    for place, step in enumerate(steps):
        if step.kind == "user":
            first = place
        elif step.verdict is not None and step.verdict.outcome is Outcome.BUDGET:
            first = place + 1
    return steps[first:]
