"""Masked calls in the embedded engine: what it forces, what it leaves free, and that no call can be wrong."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from pydantic import BaseModel

from g4agent import Agent, Budget, CallRules, Outcome, Sampling
from g4agent.errors import ConfigError
from g4agent.events import CallReady, Event, GenerationFinished
from g4agent.gemma4.conversation import NativeConversation
from g4agent.gemma4.tokens import CALL_OPEN, CHANNEL_OPEN
from g4agent.messages import ToolResult
from g4agent.ports.runtime import ConversationSetup, GenerateRequest, GenerationLimits, OutputMask
from g4agent.testing import ScriptedRuntime
from g4agent.tools import CommandTarget, Tool
from g4agent_torch import load
from g4agent_torch.runtime import TorchRuntime
from g4agent_torch.sampling import choose

pytestmark = pytest.mark.anyio

ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"}, "n": {"type": "integer", "maximum": 9}},
    "required": ["sku"],
    "additionalProperties": False,
}


def make(name: str, schema: dict[str, Any]) -> Tool:
    return Tool(name, f"Does {name}.", schema, CommandTarget(("true",)), effect="pure")


ORDER = make("order", {"type": "object", "properties": {"items": {"type": "array", "items": ITEM, "maxItems": 2}}})
PING = make("ping", {"type": "object", "properties": {"level": {"enum": ["low", "high"]}}, "required": ["level"]})
TOOLS = (ORDER, PING)


@pytest.fixture(scope="module")
def nano() -> TorchRuntime:
    return load("nano")


async def conversation(
    runtime: TorchRuntime, tools: Sequence[Tool] = TOOLS, rules: CallRules | None = None, thinking: bool = False
) -> NativeConversation:
    engine = await runtime.open_engine()
    talk = NativeConversation(runtime.info, runtime.tokenizer, engine, runtime.accepts_grammar)
    await talk.begin(ConversationSetup("", tuple(tools), thinking, rules or CallRules()))
    await talk.add_user("Please do it.")
    return talk


async def step(talk: NativeConversation, sampling: Sampling, most: int = 120) -> list[Event]:
    return [event async for event in talk.generate(0, GenerationLimits(most, 20, sampling))]


def called(events: Sequence[Event]) -> list[CallReady]:
    return [event for event in events if isinstance(event, CallReady)]


@pytest.mark.parametrize("thinking", [False, True])
async def test_a_required_call_comes_first_and_is_valid(nano: TorchRuntime, thinking: bool) -> None:
    for seed in range(8):
        talk = await conversation(nano, rules=CallRules("required"), thinking=thinking)
        events = await step(talk, Sampling(temperature=1.5, top_p=1.0, top_k=0, seed=seed))
        first = called(events)[0]
        assert first.repairs == () and first.call.name in ("order", "ping")
        {tool.name: tool for tool in TOOLS}[first.call.name].validate(first.call.arguments)


async def test_the_named_tool_is_called_and_after_it_anything_goes(nano: TorchRuntime) -> None:
    talk = await conversation(nano, rules=CallRules("ping", parallel=False))
    [ready] = called(await step(talk, Sampling(temperature=0)))
    assert ready.call.name == "ping"
    await talk.add_results([ToolResult(ready.call.id, "ping", "pong")])
    events = await step(talk, Sampling(temperature=0), most=12)
    assert isinstance(events[-1], GenerationFinished)  # an answer or a call: not forced to call for ever


async def test_without_parallel_calls_a_step_has_one(nano: TorchRuntime) -> None:
    for seed in range(6):
        talk = await conversation(nano, rules=CallRules("required", parallel=False))
        events = await step(talk, Sampling(temperature=2.0, top_p=1.0, top_k=0, seed=seed))
        assert len(called(events)) == 1 and events[-1].reason == "calls"  # type: ignore[union-attr]


async def test_no_call_where_none_is_allowed(nano: TorchRuntime) -> None:
    for seed in range(6):
        talk = await conversation(nano, rules=CallRules("none"))
        await step(talk, Sampling(temperature=2.0, top_p=1.0, top_k=0, seed=seed), most=60)
        assert CALL_OPEN not in talk.engine.tokens


async def test_sessions_with_different_tools_do_not_disturb_each_other(nano: TorchRuntime) -> None:
    talks = [await conversation(nano, [tool], CallRules("required")) for tool in TOOLS]
    for talk, tool in zip(talks, TOOLS, strict=True):
        [ready, *_] = called(await step(talk, Sampling(temperature=1.0)))
        assert ready.call.name == tool.name


async def test_forced_tokens_join_the_next_forward_pass(nano: TorchRuntime) -> None:
    """The frame, names and keys cost no pass of their own; what was forced is in the cache like the rest."""
    passes, forward = [], nano._decoder.forward  # type: ignore[union-attr]

    def counted(ids: Sequence[int], *args: Any, **kwargs: Any) -> torch.Tensor | None:
        passes.append(len(ids))
        return forward(ids, *args, **kwargs)

    talk = await conversation(nano, rules=CallRules("ping", parallel=False))
    start = talk.length
    nano._decoder.forward = counted  # type: ignore[union-attr, method-assign]
    try:
        [ready] = called(await step(talk, Sampling(temperature=0)))
    finally:
        nano._decoder.forward = forward  # type: ignore[union-attr, method-assign]
    written = talk.length - start
    assert written > 10 and len(passes) <= 4, (written, passes)
    assert ready.signals is not None and ready.signals.tool == 1.0


async def test_outside_calls_the_logits_are_left_alone(nano: TorchRuntime) -> None:
    engine = await nano.open_engine()
    await engine.append([2, *nano.tokenizer.encode("Hello")])
    free = GenerateRequest(12, Sampling(seed=3), frozenset())
    tokens = [token async for token in engine.generate(free)]
    await engine.truncate(len(engine.tokens) - 12)
    masked = GenerateRequest(12, Sampling(seed=3), frozenset(), mask=OutputMask('%llguidance {}\nstart: "call:x{}"\n'))
    assert [token.id async for token in engine.generate(masked)] == [token.id for token in tokens]


async def test_signals_tell_a_sure_call_from_a_forced_one(nano: TorchRuntime) -> None:
    talk = await conversation(nano, rules=CallRules("required"))
    ready = called(await step(talk, Sampling(temperature=0)))[0]
    assert ready.signals is not None
    assert 0 < ready.signals.tool <= 1 and 0 < ready.signals.arguments <= 1 and 0 <= ready.signals.mask_pressure <= 1


def test_probabilities_are_among_what_is_allowed() -> None:
    logits = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125]))
    token = choose(logits, Sampling(temperature=0), 0, torch.tensor([False, True, True, False]))
    assert token.id == 1
    assert token.allowed_mass == pytest.approx(0.375)
    assert token.logprob == pytest.approx(torch.log(torch.tensor(0.25 / 0.375)).item())


async def test_thoughts_are_free_and_a_call_may_follow_one(nano: TorchRuntime) -> None:
    talk = await conversation(nano, rules=CallRules("required"), thinking=True)
    for seed in range(20):
        events = await step(talk, Sampling(temperature=1.0, seed=seed), most=160)
        written = talk.engine.tokens
        if CHANNEL_OPEN in written:
            assert list(written).index(CHANNEL_OPEN) < list(written).index(CALL_OPEN)
            assert called(events)
            return
        await talk.rewind()
    raise AssertionError("nano never thought")


class Weather(BaseModel):
    """An answer with a shape."""

    city: str
    degrees: int
    sky: Literal["clear", "cloudy"]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_a_typed_answer_is_of_its_type(nano: TorchRuntime, temperature: float) -> None:
    agent = Agent(model=nano, output=Weather, store=False, sampling=Sampling(temperature, top_k=20, seed=4))
    result = await agent.replace(budget=Budget(step_tokens=400)).run("What is the weather in Rome?")
    if result.verdict.outcome is Outcome.DONE:
        assert isinstance(result.output, Weather)
    else:  # a string that the model did not end within its tokens
        assert result.verdict.outcome is Outcome.CUT_OFF and result.output is None


async def test_an_engine_without_masks_validates_the_typed_answer() -> None:
    right = '{"city": "Rome", "degrees": 21, "sky": "clear"}'
    for said, outcome in ((right, Outcome.DONE), ("It is warm.", Outcome.NO_ANSWER)):
        agent = Agent(model=ScriptedRuntime([f"{said}<turn|>"]), output=Weather, store=False)
        result = await agent.run("What is the weather in Rome?")
        assert result.verdict.outcome is outcome
        assert result.output == (Weather(city="Rome", degrees=21, sky="clear") if outcome is Outcome.DONE else None)


async def test_a_choice_that_cannot_be_kept_is_refused(nano: TorchRuntime) -> None:
    with pytest.raises(ConfigError, match="no tool called"):
        await conversation(nano, rules=CallRules("pong"))
    with pytest.raises(ConfigError, match="cannot promise"):
        await Agent(model=ScriptedRuntime([]), tools=TOOLS, calls=CallRules("required"), store=False).run("Hi")


# 10,000 calls of random weights --------------------------------------------------------------------------------------


def schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """A random schema of what the grammar says in full."""
    kinds = ["string", "short", "code", "integer", "number", "boolean", "enum", "date"]
    kind = rng.choice(kinds + (["array", "object", "object", "anyOf"] if depth else []))
    match kind:
        case "string" | "boolean":
            return {"type": kind}
        case "short":
            return {"type": "string", "minLength": 1, "maxLength": rng.randint(3, 12)}
        case "code":
            return {"type": "string", "pattern": rng.choice(["^[A-Z]{3}-[0-9]+$", "ab", "^x|y$"])}
        case "integer" | "number":
            low = rng.randint(-50, 50)
            return {"type": kind, **rng.choice([{}, {"minimum": low, "maximum": low + 30}, {"exclusiveMinimum": low}])}
        case "enum":
            return {"enum": rng.sample(["a", "bb", "c c", 3, 4.5, None, True, "ää"], 3)}
        case "date":
            return {"type": "string", "format": rng.choice(["date", "date-time", "uuid", "email", "ipv4"])}
        case "array":
            return {"type": "array", "items": schema(rng, depth - 1), "maxItems": rng.randint(0, 3)}
        case "anyOf":
            return {"anyOf": [schema(rng, depth - 1) for _ in range(2)]}
        case _:
            names = rng.sample(["name", "Count", "to_do", "x9", "Zip"], rng.randint(0, 3))
            required = [name for name in names if rng.random() < 0.5]
            members = {name: schema(rng, depth - 1) for name in names}
            return {"type": "object", "properties": members, "required": required, "additionalProperties": False}


async def random_calls(runtime: TorchRuntime, schemas: int, each: int) -> AsyncIterator[tuple[Tool, Event]]:
    """What random weights make of `schemas` tools, `each` times."""
    for seed in range(schemas):
        rng = random.Random(seed)
        members = {name: schema(rng) for name in ("a", "b")[: rng.randint(1, 2)]}
        tool = make("go", {"type": "object", "properties": members, "required": list(members)})
        for turn in range(each):
            talk = await conversation(runtime, [tool], CallRules("required", parallel=False))
            assert not talk.masks.unmasked, members
            sampling = Sampling(rng.uniform(1.0, 2.0), top_p=1.0, top_k=0, seed=seed * each + turn)
            for event in await step(talk, sampling, most=300):
                yield tool, event
            await talk.close()


async def check_random_calls(runtime: TorchRuntime, schemas: int, each: int) -> None:
    complete, total = 0, schemas * each
    async for tool, event in random_calls(runtime, schemas, each):
        if isinstance(event, CallReady) and event.repairs != ("truncated_call",):  # cut off by the step's tokens
            assert event.repairs == () and event.call.name == "go"
            tool.validate(event.call.arguments)
            complete += 1
    assert complete > 0.6 * total, f"only {complete} of {total} calls ended within their tokens"


@pytest.mark.parametrize("variant", ["E2B", "31B"])
async def test_random_weights_cannot_write_a_wrong_call(runtime: Callable[..., TorchRuntime], variant: str) -> None:
    await check_random_calls(runtime(variant), schemas=12, each=2)


@pytest.mark.slow
async def test_ten_thousand_random_calls_are_all_right(runtime: Callable[..., TorchRuntime]) -> None:
    await check_random_calls(runtime("two layers"), schemas=400, each=25)
