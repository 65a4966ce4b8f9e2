"""Lets an agent mend each project in a session of its own, and judges the workspaces.

python -m coding_assistant.evaluate --model nano        from the folder `examples`
"""

from __future__ import annotations

import argparse

import anyio

from coding_assistant.agent import agent as coding_agent
from coding_assistant.tasks import PROMPT, TASKS, Judgement, Task, check
from g4agent import Agent, Sampling
from g4agent.ports.sandbox import PythonCall


async def run_task(agent: Agent, task: Task) -> Judgement:
    """Runs one task in a new session; the tests run in its sandbox, before and after."""
    prepared = agent.replace(workspace=lambda seed: task.workspace())
    run_tests = PythonCall("g4agent_coding.testing", "run_tests", {})
    async with prepared.session() as session:
        box = await session.open_box()
        before = await box.call(run_tests)
        result = await session.run(PROMPT)
        files = {path: await box.read_file(path) for path in await box.list_files()}
        tests = await box.call(run_tests)
    if not isinstance(before.value, dict) or not before.value.get("failed"):
        return Judgement(False, f"the tests did not fail at the start: {before.error or before.value}")
    if not result.verdict.ok:
        return Judgement(False, f"the run ended: {result.verdict.outcome}, {result.verdict.reason}")
    if not isinstance(tests.value, dict):
        return Judgement(False, f"the tests could not run: {tests.error}")
    return check(task, files, tests.value)


async def main(model: str) -> None:
    """Prints one line per task and the number that passed."""
    passed = 0
    async with coding_agent.replace(model=model, store=False, sampling=Sampling(temperature=0)) as agent:
        await agent.load()
        for task in TASKS:
            judgement = await run_task(agent, task)
            passed += judgement.passed
            print(f"{'pass' if judgement.passed else 'FAIL'}  {task.name}  {judgement.why}")
    print(f"{passed} of {len(TASKS)} tasks done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Mends the projects and counts those done right.")
    parser.add_argument("--model", default="nano")
    anyio.run(main, parser.parse_args().model)
