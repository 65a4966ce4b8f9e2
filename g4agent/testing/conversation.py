"""A model that says what the script says, one reply per step."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from g4agent.errors import ConversationError
from g4agent.events import CallReady, GenerationFinished, ModelEvent, TextDelta, ThoughtDelta, Usage
from g4agent.image import ImagesOfCalls, Prompt, shown
from g4agent.messages import JsonValue, ToolCall, ToolResult
from g4agent.ports.runtime import Conversation, ConversationSetup, GenerationLimits, ModelInfo, TranscriptDelta

SCRIPTED = ModelInfo(
    name="scripted",
    fingerprint="scripted",
    variant="small",
    context_length=1 << 30,
    parameters=0,
    dtype="none",
    device="none",
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model does in one step."""

    calls: tuple[tuple[str, dict[str, JsonValue]], ...] = ()
    text: str = ""
    thought: str = ""


def say(text: str, *, thought: str = "") -> Reply:
    """A reply that ends the turn with `text`."""
    return Reply(text=text, thought=thought)


def call(tool: str, /, **arguments: JsonValue) -> Reply:
    """A reply with one call."""
    return Reply(calls=((tool, arguments),))


def calls(*replies: Reply) -> Reply:
    """The calls of several replies at once, to run in parallel."""
    return Reply(calls=tuple(c for reply in replies for c in reply.calls))


Script = Sequence[Reply | Callable[[Sequence[ToolResult]], Reply]]
"""A reply may be a function of the results of the step before."""


@dataclass(slots=True)
class ScriptedModel:
    """A chat runtime whose conversations all read from one script."""

    script: Script
    info: ModelInfo = SCRIPTED
    prompts: list[str] = field(default_factory=list)
    """Every user turn that was given."""
    results: list[ToolResult] = field(default_factory=list)
    """Every tool result that was given."""
    position: int = 0

    async def open_conversation(self) -> Conversation:
        return _ScriptedConversation(self)

    async def close(self) -> None:
        return None

    def assert_complete(self) -> None:
        """Raises AssertionError unless every reply of the script was used."""
        assert self.position == len(self.script), f"{len(self.script) - self.position} scripted replies were not used"


class _ScriptedConversation:
    def __init__(self, model: ScriptedModel) -> None:
        self._model = model
        self._last: Sequence[ToolResult] = ()

    async def begin(self, setup: ConversationSetup) -> None:
        return None

    async def restore(self, setup: ConversationSetup, tokens: Sequence[int]) -> None:
        return None

    async def add_user(self, prompt: Prompt) -> None:
        self._model.prompts.append(shown(prompt))

    async def add_results(
        self, results: Sequence[ToolResult], images: ImagesOfCalls | None = None
    ) -> Sequence[ToolResult]:
        self._last = results
        self._model.results += results
        return results

    async def generate(self, step: int, limits: GenerationLimits) -> AsyncGenerator[ModelEvent, None]:
        model = self._model
        if model.position >= len(model.script):
            raise ConversationError("the script is over", hint="Add a reply to the ScriptedModel's script.")
        scripted = model.script[model.position]
        model.position += 1
        reply = scripted(self._last) if callable(scripted) else scripted
        if reply.thought:
            yield ThoughtDelta(reply.thought)
        if reply.text:
            yield TextDelta(reply.text)
        for index, (name, arguments) in enumerate(reply.calls):
            yield CallReady(ToolCall(f"s{step}c{index}", name, arguments))
        yield GenerationFinished("calls" if reply.calls else "turn_end", Usage())

    async def rewind(self) -> None:
        return None

    def take_delta(self) -> TranscriptDelta:
        return TranscriptDelta(0, ())

    @property
    def length(self) -> int:
        return 0

    @property
    def usage(self) -> Usage:
        return Usage()

    async def close(self) -> None:
        return None
