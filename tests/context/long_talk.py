"""A scripted model that also sums up when it is asked to, and tools with long results."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from g4agent import Agent, tool
from g4agent.context.reducer import QUESTION
from g4agent.ports.runtime import GenerateRequest, SampledToken
from g4agent.store import Store
from g4agent.testing import ScriptedEngine, ScriptedRuntime
from g4agent.testing.conversation import SCRIPTED

WINDOW = 6000
SUMMARY = "Lines were fetched; the sum is 42."


@tool(where="host", effect="pure")
def fetch(page: int, lines: int = 20) -> str:
    """Fetches a page.

    Args:
        page: Its number.
        lines: How many lines it shall have.
    """
    return "\n".join(f"page {page}, line {line}" for line in range(1, lines + 1))


@dataclass(slots=True)
class Talker(ScriptedRuntime):
    """Plays its script, and a summary wherever it is asked to sum up."""

    summary: str = SUMMARY
    script: list[str] = field(default_factory=list)
    asked: int = 0

    async def open_engine(self) -> ScriptedEngine:
        return TalkerEngine(self)


class TalkerEngine(ScriptedEngine):
    longest = 0
    """The longest sequence that any of these engines ever had."""

    async def append(self, ids: Sequence[int]) -> None:
        await super().append(ids)
        TalkerEngine.longest = max(TalkerEngine.longest, len(self._tokens))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[SampledToken, None]:
        runtime = self._runtime
        assert isinstance(runtime, Talker)
        said = runtime.tokenizer.decode(self._tokens[-900:])
        if QUESTION[:30] in said[said.rfind("<|turn>user") :]:
            runtime.asked += 1
            runtime.script.insert(runtime.position, runtime.summary + "<turn|>")
        async for token in super().generate(request):
            yield token


def talker(script: Sequence[str], window: int = WINDOW, **settings: Any) -> Talker:
    return Talker(list(script), replace(SCRIPTED, context_length=window), **settings)


def agent(store: Store | bool, runtime: Talker, **settings: Any) -> Agent:
    return Agent(model=runtime, tools=[fetch], system="Be brief.", store=store, **settings)


def fetching(page: int, lines: int = 20, thought: str = "") -> str:
    thinking = f"<|channel>thought\n{thought}\n<channel|>" if thought else ""
    return f"{thinking}<|tool_call>call:fetch{{page:{page},lines:{lines}}}<tool_call|><|tool_response>"


def decoded(runtime: Talker, tokens: Sequence[int]) -> str:
    return runtime.tokenizer.decode(list(tokens))
