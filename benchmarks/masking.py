"""nano's calls with and without the mask, and what the mask costs outside calls.

Held-out invented tools and the shop's tools, the first call after the user's words: how many calls came to their end,
how many of them are valid without repair, how many of all are right, forward passes per call, and tokens per CPU second
with the prompt's own pass. Outside calls the same free text is generated with and without a mask at hand, in turns.

    python benchmarks/masking.py [--count 60] [--rounds 7] [--json] [--check]
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import torch
from _report import Report, Target, arguments, publish

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from retail_checkout.agent import POLICY
from retail_checkout.tools import TOOLS

from g4agent.events import CallReady
from g4agent.gemma4.conversation import NativeConversation
from g4agent.gemma4.grammar import call_grammar
from g4agent.ports.runtime import (
    CallRules,
    ConversationSetup,
    GenerateRequest,
    GenerationLimits,
    OutputMask,
    Sampling,
)
from g4agent.tools import CommandTarget, InvalidArguments, Tool
from g4agent_torch import load
from training import generic, retail

TEMPERATURES = (0.0, 0.7, 1.0)
FREE_TOKENS = 160


@dataclass(frozen=True)
class Case:
    """Tools, the user's words and the call that is right."""

    system: str
    tools: tuple[Tool, ...]
    prompt: str
    expected: tuple[str, dict[str, Any]]


@dataclass
class Score:
    """Sums over the cases of one setting."""

    cases: int = 0
    calls: int = 0
    valid: int = 0
    right: int = 0
    passes: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def row(self) -> dict[str, float]:
        return {
            "called %": 100 * self.calls / self.cases,
            "valid %": 100 * self.valid / self.calls,
            "right %": 100 * self.right / self.cases,
            "passes": self.passes / self.cases,
            "tokens/s": self.tokens / self.seconds,
        }


def cases(count: int, seed: int) -> list[Case]:
    """Half of invented tools, half of the shop's, all held out."""
    rng, found = random.Random(seed), list[Case]()
    while len(found) < count // 2:
        tools = generic._tools(rng, "heldout")
        wanted = rng.choice(tools)
        properties = wanted.schema["properties"]
        values = {key: generic._value(rng, properties[key], "heldout") for key in properties}
        if values:
            made = tuple(Tool(t.name, f"{t.verb} {t.noun}", t.schema, CommandTarget(("true",))) for t in tools)
            ask = generic._ask(rng, wanted, values, first=True)
            found.append(Case("You are a helpful assistant.", made, ask, (wanted.name, values)))
    while len(found) < count:
        wish = retail.case(rng, "heldout").wish
        if wish.kind != "talk":
            step = next(retail.serve(wish))
            assert not isinstance(step, str)
            found.append(Case(POLICY, tuple(TOOLS), wish.prompt, (step[1], step[2])))
    return found


async def first_call(runtime: Any, case: Case, masked: bool, sampling: Sampling, score: Score) -> None:
    """The first call after the user's words."""
    passes, forward = 0, runtime._decoder.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        return forward(*args, **kwargs)

    talk = NativeConversation(runtime.info, runtime.tokenizer, await runtime.open_engine(), runtime.accepts_grammar)
    rules = CallRules(parallel=False, masked=masked)
    await talk.begin(ConversationSetup(case.system, case.tools, False, rules))
    await talk.add_user(case.prompt)
    await talk.engine.mark()
    made: CallReady | None = None
    runtime._decoder.forward = counted
    before, began = talk.length, time.process_time()
    try:
        async for event in talk.generate(0, GenerationLimits(160, None, sampling)):
            if isinstance(event, CallReady) and made is None:
                made = event
    finally:
        runtime._decoder.forward = forward
    score.seconds += time.process_time() - began
    score.tokens += talk.length - before
    score.passes += passes
    score.cases += 1
    await talk.close()
    if made is None or made.repairs == ("truncated_call",):  # it answered in words, or its tokens were used up
        return
    score.calls += 1
    if made.repairs:
        return
    tools = {tool.name: tool for tool in case.tools}
    try:
        tools[made.call.name].validate(made.call.arguments)
    except (KeyError, InvalidArguments):
        return
    score.valid += 1
    score.right += (made.call.name, dict(made.call.arguments)) == case.expected


async def free_text(runtime: Any, mask: OutputMask | None) -> float:
    """CPU seconds for some text outside calls."""
    engine = await runtime.open_engine()
    await engine.append([2, *runtime.tokenizer.encode("Hello, how are you today?")])
    request = GenerateRequest(FREE_TOKENS, Sampling(temperature=0), frozenset(), mask=mask)
    began, ids = time.process_time(), list[int]()
    async for token in engine.generate(request):
        ids.append(token.id)
    seconds = time.process_time() - began
    assert 48 not in ids and len(ids) == FREE_TOKENS, "the text was to have no call"
    await engine.close()
    return seconds


async def measure(count: int, rounds: int, seed: int) -> Report:
    """All settings over the same cases."""
    runtime: Any = load("nano")
    rows: dict[str, dict[str, float]] = {}
    chosen = cases(count, seed)
    for case in chosen:  # compiled once per set of tools, outside the measurement
        assert runtime.accepts_grammar(call_grammar(case.tools, parallel=False).text)
    for temperature in TEMPERATURES:
        scores = {False: Score(), True: Score()}
        for index, case in enumerate(chosen):
            sampling = Sampling(temperature, top_p=1.0, top_k=0, seed=index)
            for masked in (False, True):
                await first_call(runtime, case, masked, sampling, scores[masked])
        for masked, score in scores.items():
            name = "greedy" if temperature == 0 else f"temperature {temperature}"
            rows[f"{name}, {'masked' if masked else 'free'}"] = score.row()
    mask = OutputMask(call_grammar(TOOLS).text)
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds + 1):
        for masked in (False, True) if turn % 2 else (True, False):
            seconds = await free_text(runtime, mask if masked else None)
            if turn:
                times[masked].append(seconds)
    free, held = statistics.median(times[False]), statistics.median(times[True])
    rows["outside calls, free"] = {"tokens/s": FREE_TOKENS / free}
    rows["outside calls, mask at hand"] = {"tokens/s": FREE_TOKENS / held}
    ratio = statistics.median(h / f for h, f in zip(times[True], times[False], strict=True))
    invalid = sum(100 - row["valid %"] for name, row in rows.items() if name.endswith("masked"))
    fewer = [rows[f"{n}, masked"]["passes"] / rows[f"{n}, free"]["passes"] for n in _names(rows)]
    targets = (
        Target("masked calls that are invalid, %", invalid, 0),
        Target("time outside calls, mask at hand over free", ratio, 1.03),
        Target("forward passes inside calls, masked over free", max(fewer), 1.0),
    )
    return Report("nano's first calls", "per call", rows, targets, ("g4agent", "torch", "llguidance"))


def _names(rows: dict[str, dict[str, float]]) -> Sequence[str]:
    return [name.removesuffix(", masked") for name in rows if name.endswith(", masked")]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=60, help="calls per setting")
    parser.add_argument("--rounds", type=int, default=7, help="of the measurement outside calls")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    return publish(anyio.run(measure, options.count, options.rounds, options.seed), options)


if __name__ == "__main__":
    sys.exit(main())
