"""What nano can do on held-out tool names, people, products and wordings, greedily and without a grammar.

Single calls are compared with the expected call, given the right history. Tasks run to their end: those of the first
two kinds on the generators' own shops and projects, those of the examples and `coding task, sandbox` (more of the
generated projects) through the planner and the sandbox.

    python benchmarks/nano_eval.py [--count 30] [--seed 7] [--model FOLDER] [--kv-bits 4] [--json] [--check]
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import anyio
import torch
from _report import Report, Target, arguments, publish

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from coding_assistant import evaluate as coding_tasks
from coding_assistant.tasks import Edit
from coding_assistant.tasks import Task as Bug
from retail_checkout import evaluate as retail_tasks
from retail_checkout.plans import PLANS
from retail_checkout.tasks import Task

from g4agent import Budget, Sampling
from g4agent_torch.turboquant.codec import RATES
from training import coding, evaluate, export, generic, retail

TARGETS = {
    "single call": 5.0,
    "retail task": 10.0,
    "coding task": 20.0,
    "coding task, sandbox": 20.0,
    "retail example": 10.0,
}
"""Most misses in per cent."""
BUDGET = Budget(steps=12, step_tokens=256)
"""Ends a run in which nano repeats itself."""


def generated(folder: Path, count: int, seed: int, kv_bits: str) -> Counter[str]:
    """Hits and, under `… all`, totals of the generators' held-out samples."""
    nano, score, rng = evaluate.Nano(folder, kv_bits), Counter[str](), random.Random(seed)
    for _ in range(count):
        evaluate.exact(nano, generic.dialogue(rng, "heldout", turns=1), score, "generic")
        evaluate.exact(nano, retail.dialogue(rng, "heldout"), score, "retail")
        evaluate.exact(nano, coding.dialogue(rng, "heldout"), score, "coding")
        evaluate.retail_task(nano, rng, "heldout", score)
        evaluate.coding_task(nano, rng, "heldout", score)
    return score


def as_task(bug: coding.Project) -> Bug:
    """A generated project as the coding example takes it."""
    files = {bug.path: bug.source, bug.test_path: bug.test_source}
    return Bug(bug.path, files, Edit(bug.path, bug.wrong, bug.right))


async def through_the_sandbox(folder: Path, count: int, seed: int, kv_bits: str) -> Counter[str]:
    """The examples' tasks, and held-out bugs, with the real planner, tools, sandbox and payment service."""
    score = Counter[str]()
    settings = {"model": str(folder), "store": False, "sampling": Sampling(temperature=0), "budget": BUDGET}
    settings["model_options"] = {"kv_bits": kv_bits}
    async with retail_tasks.shop_agent.replace(**settings) as agent:
        await agent.load()
        for kind in PLANS:
            score["retail example"] += (await retail_tasks.run_task(agent, Task(kind, 0))).passed
            score["retail example all"] += 1
    async with coding_tasks.coding_agent.replace(**settings) as agent:
        await agent.load()
        bugs = [("coding example", task) for task in coding_tasks.TASKS]
        bugs += [("coding task, sandbox", as_task(bug)) for bug in coding.tasks("heldout", count, seed)]
        for name, task in bugs:
            score[name] += (await coding_tasks.run_task(agent, task)).passed
            score[f"{name} all"] += 1
    return score


def main() -> int:
    """Measures and prints; gives the exit code."""
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=30, help="samples of each generated kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--model", type=Path, default=export.NANO)
    parser.add_argument("--kv-bits", choices=("16", *RATES), default="16", help="of the cache")
    options = parser.parse_args()
    torch.set_num_threads(1)
    score = generated(options.model, options.count, options.seed, options.kv_bits)
    score += anyio.run(through_the_sandbox, options.model, options.count, options.seed, options.kv_bits)
    for kind in ("generic", "retail", "coding"):
        score["single call"] += score[f"{kind} call"]
        score["single call all"] += score[f"{kind} call all"]
    names = sorted({name.removesuffix(" all") for name in score})
    rows = {n: {"right": score[n], "of": score[f"{n} all"], "%": 100 * score[n] / score[f"{n} all"]} for n in names}
    targets = tuple(Target(f"misses in % of {n}", 100 - rows[n]["%"], limit) for n, limit in TARGETS.items())
    return publish(Report("nano on held-out samples", "count", rows, targets), options)


if __name__ == "__main__":
    sys.exit(main())
