"""nano on small bugs whose words it has never seen, through the real planner, tools and sandbox."""

from __future__ import annotations

import pytest

from g4agent import Budget, Sampling

pytestmark = pytest.mark.anyio


async def test_nano_mends_held_out_bugs() -> None:
    """What the model's card says of small bugs is not true of the product."""
    from coding_assistant.agent import agent
    from coding_assistant.evaluate import run_task
    from coding_assistant.tasks import Edit, Task

    from training import coding

    budget = Budget(steps=12, step_tokens=256)
    async with agent.replace(model="nano", store=False, sampling=Sampling(temperature=0), budget=budget) as nano:
        for bug in coding.tasks("heldout", 3, 7):
            files = {bug.path: bug.source, bug.test_path: bug.test_source}
            judgement = await run_task(nano, Task(bug.path, files, Edit(bug.path, bug.wrong, bug.right)))
            assert judgement.passed, judgement.why
