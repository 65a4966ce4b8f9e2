"""The coding assistant: `g4agent run --agent examples/coding_assistant "The tests fail. Find the bug and fix it."`."""

from __future__ import annotations

from coding_assistant.tasks import TASKS
from g4agent import Agent
from g4agent_coding import tools

POLICY = """\
You fix bugs in a Python project. Run the tests, read the code, edit it, then run the tests again. \
Never change the tests. At the end, say in one sentence what was wrong."""


def workspace(seed: int) -> dict[str, bytes]:
    """A project with a bug; the seed picks which."""
    return TASKS[seed % len(TASKS)].workspace()


agent = Agent(name="coding_assistant", system=POLICY, tools=tools(), workspace=workspace)
