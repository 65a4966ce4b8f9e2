"""What a framework itself costs per tool step, and whether a step gets dearer the longer a session is.

A scripted model makes N calls of a tool that adds two numbers, one after another, and then answers. No model runs and
nothing is sent anywhere: what remains is the framework. Processor time of all threads, median of several runs.

    python benchmarks/step_overhead.py [--steps 50 200 1000] [--rounds 5] [--no-peers] [--json] [--check]

Rows of ours: without a store; with every step committed to SQLite; and with the native transcript, in which each call
is parsed from token ids and each result rendered to them (about 100 single-byte tokens a step). The peers are measured
as favourably as can be: without a store, their logs off, and without turning the history into a model's input.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
from _report import Report, Target, arguments, publish

from g4agent import Agent, Budget, tool
from g4agent.ports.runtime import ChatRuntime, TokenRuntime
from g4agent.store import Store
from g4agent.testing import Reply, ScriptedModel, ScriptedRuntime, call, say

STEPS = (50, 200, 1000)
LIMIT_MS = 1.0
STORE_LIMIT_MS = 4.0
FLAT = 1.3
"""How much dearer a step of the longest run may be than one of the shortest."""
NATIVE_CALL = "<|tool_call>call:add{a:1,b:2}<tool_call|><|tool_response>"

Run = Callable[[], Coroutine[Any, Any, object]]
Contender = Callable[[int], Run]
"""Prepares a run of that many steps. What it does before it returns is not measured."""


@tool(effect="pure", where="host")
def add(a: int, b: int) -> int:
    """Add two integers.

    Args:
        a: One.
        b: The other.
    """
    return a + b


def _ours(model: ChatRuntime | TokenRuntime, steps: int, store: Store | bool) -> Run:
    budget = Budget(steps=steps + 1, tokens=None, wall_seconds=None, repeats=None)
    agent = Agent(model=model, tools=[add], budget=budget, store=store)

    async def run() -> None:
        result = await agent.run("Add.")
        assert result.verdict.ok and len(result.results) == steps

    return run


def _script(steps: int) -> list[Reply]:
    return [call("add", a=1, b=2)] * steps + [say("Done.")]


def run_g4agent(steps: int) -> Run:
    return _ours(ScriptedModel(_script(steps)), steps, store=False)


def run_native(steps: int) -> Run:
    return _ours(ScriptedRuntime([NATIVE_CALL] * steps + ["Done.<turn|>"]), steps, store=False)


def run_stored(store: Store) -> Contender:
    return lambda steps: _ours(ScriptedModel(_script(steps)), steps, store)


def run_pydantic_ai(steps: int) -> Run:
    from pydantic_ai import Agent as PydanticAgent
    from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import AgentInfo, FunctionModel
    from pydantic_ai.usage import UsageLimits

    left = iter(range(steps))

    def reply(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if next(left, None) is None:
            return ModelResponse(parts=[TextPart("Done.")])
        return ModelResponse(parts=[ToolCallPart("add", {"a": 1, "b": 2})])

    def add(a: int, b: int) -> int:
        """Add two integers."""
        return a + b

    agent = PydanticAgent(FunctionModel(reply), tools=[add])
    return lambda: agent.run("Add.", usage_limits=UsageLimits(request_limit=None))


def run_smolagents(steps: int) -> Run:
    from smolagents import ToolCallingAgent, tool  # type: ignore[import-untyped]
    from smolagents.models import (  # type: ignore[import-untyped]
        ChatMessage,
        ChatMessageToolCall,
        ChatMessageToolCallFunction,
        MessageRole,
        Model,
    )
    from smolagents.monitoring import LogLevel  # type: ignore[import-untyped]

    left = iter(range(steps))

    class Scripted(Model):  # type: ignore[misc]
        def generate(self, *args: Any, **kwargs: Any) -> ChatMessage:
            if next(left, None) is None:
                function = ChatMessageToolCallFunction(name="final_answer", arguments={"answer": "Done."})
            else:
                function = ChatMessageToolCallFunction(name="add", arguments={"a": 1, "b": 2})
            made = ChatMessageToolCall(id="1", type="function", function=function)
            return ChatMessage(role=MessageRole.ASSISTANT, content=None, tool_calls=[made])

    @tool  # type: ignore[untyped-decorator]
    def add(a: int, b: int) -> int:
        """Add two integers.

        Args:
            a: One.
            b: The other.
        """
        return a + b

    agent = ToolCallingAgent([add], Scripted(), max_steps=steps + 1, verbosity_level=LogLevel.OFF)

    async def run() -> None:
        assert agent.run("Add.") == "Done."

    return run


PEERS: dict[str, Contender] = {"pydantic-ai": run_pydantic_ai, "smolagents": run_smolagents}


def ms_per_step(contender: Contender, steps: int, rounds: int) -> float:
    """Median over the rounds, of processor time in ms."""
    figures = []
    for _ in range(rounds):
        run = contender(steps)
        gc.collect()
        before = time.process_time()
        anyio.run(run)
        figures.append(1000 * (time.process_time() - before) / steps)
    return statistics.median(figures)


def measure(steps: list[int], rounds: int, peers: bool) -> Report:
    """All contenders at all lengths. Peers, which take long, run fewer rounds at great length."""
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "store.db") as store:
        ours: dict[str, Contender] = {
            "g4agent": run_g4agent,
            "g4agent with store": run_stored(store),
            "g4agent, native transcript": run_native,
        }
        rows: dict[str, dict[str, float | None]] = {}
        for name, contender in (ours | PEERS if peers else ours).items():
            anyio.run(contender(5))
            enough = {n: rounds if name in ours else max(1, min(rounds, 500 // n)) for n in steps}
            rows[name] = {f"N = {n}": ms_per_step(contender, n, enough[n]) for n in steps}
    return Report(
        "Framework cost per tool step",
        "CPU ms",
        rows,
        tuple(_targets(rows, f"N = {min(steps)}", f"N = {max(steps)}")),
        ("g4agent", "pydantic-ai-slim", "smolagents"),
    )


def _targets(rows: dict[str, dict[str, float | None]], shortest: str, longest: str) -> list[Target]:
    limits = {"g4agent": LIMIT_MS, "g4agent with store": STORE_LIMIT_MS}
    targets = []
    for name in ("g4agent", "g4agent with store", "g4agent, native transcript"):
        first, last = rows[name][shortest], rows[name][longest]
        assert first is not None and last is not None
        if name in limits:
            targets.append(Target(f"{name}, ms at {shortest}", first, limits[name]))
        targets.append(Target(f"{name}, {longest} over {shortest}", last / first, FLAT))
    return targets


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="lengths of the runs")
    parser.add_argument("--rounds", type=int, default=5, help="runs per figure (default: 5)")
    parser.add_argument("--no-peers", action="store_true", help="measure g4agent only")
    options = parser.parse_args()
    return publish(measure(options.steps, options.rounds, not options.no_peers), options)


if __name__ == "__main__":
    sys.exit(main())
