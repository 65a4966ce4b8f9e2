"""The native conversation over a scripted token engine: what is appended, what is cut, where a transcript may end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g4agent.errors import ContextOverflowError, ConversationError
from g4agent.events import CallMalformed, CallReady, GenerationFinished, ModelEvent, TextDelta, ThoughtDelta
from g4agent.gemma4.conversation import NativeConversation
from g4agent.gemma4.sections import without_thoughts
from g4agent.gemma4.tokens import CONTROL_TOKENS, TURN_CLOSE
from g4agent.messages import ToolError, ToolResult
from g4agent.ports.runtime import ConversationSetup, GenerationLimits, ModelInfo, Sampling
from g4agent.testing import ScriptedEngine, ScriptedRuntime
from g4agent.testing.conversation import SCRIPTED
from g4agent.tools import tool

pytestmark = pytest.mark.anyio

LIMITS = GenerationLimits(max_tokens=500, thought_limit=None, sampling=Sampling())
CALL = "<|tool_call>call:add{a:1,b:2}<tool_call|>"
LARGE = replace(SCRIPTED, variant="large")


@tool(where="host", effect="pure")
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


async def started(
    script: Sequence[str], *, thinking: bool = False, info: ModelInfo = SCRIPTED, system: str = "Be brief."
) -> tuple[NativeConversation, ScriptedEngine, ScriptedRuntime]:
    runtime = ScriptedRuntime(script, info=info)
    engine = await runtime.open_engine()
    conversation = NativeConversation(info, runtime.tokenizer, engine)
    await conversation.begin(ConversationSetup(system, (add,), thinking))
    return conversation, engine, runtime


async def step(conversation: NativeConversation, index: int = 0) -> list[ModelEvent]:
    return [event async for event in conversation.generate(index, LIMITS)]


def text(engine: ScriptedEngine, runtime: ScriptedRuntime, since: str = "<|turn>user") -> str:
    decoded = runtime.tokenizer.decode(list(engine.tokens))
    return decoded[decoded.index(since) :]


async def test_a_tool_loop_stays_inside_one_model_turn() -> None:
    """Results go right behind the calls, without a turn in between, and the second step continues there."""
    conversation, engine, runtime = await started([CALL + "<|tool_response>", "3<turn|>"])
    await conversation.add_user("1 + 2?")
    first = await step(conversation)
    assert [type(e) for e in first if isinstance(e, CallReady)] == [CallReady]
    await conversation.add_results([ToolResult("s0c0", "add", 3)])
    second = await step(conversation, 1)
    assert [e.text for e in second if isinstance(e, TextDelta)] == ["3"]
    assert text(engine, runtime) == (
        f"<|turn>user\n1 + 2?<turn|>\n<|turn>model\n{CALL}<|tool_response>"
        "response:add{value:3}<tool_response|>3<turn|>"
    )


@pytest.mark.parametrize("end", ["<|tool_response>", "<eos>", "<turn|>", ""])
async def test_after_calls_the_transcript_always_asks_for_results(end: str) -> None:
    """Small models sometimes end a call turn with another stop token: the response opener is put right."""
    conversation, engine, runtime = await started([CALL + end])
    await conversation.add_user("Go")
    events = await step(conversation)
    assert isinstance(events[-1], GenerationFinished) and events[-1].reason == "calls"
    assert text(engine, runtime, "<|tool_call>") == CALL + "<|tool_response>"


@pytest.mark.parametrize("end", ["<turn|>", "<eos>", "<|tool_response>"])
async def test_after_an_answer_the_turn_is_closed(end: str) -> None:
    """Whatever stop token ended an answer, the next user turn must find the model turn closed."""
    conversation, engine, runtime = await started(["Hello." + end, "Bye.<turn|>"])
    await conversation.add_user("Hi")
    await step(conversation)
    await conversation.add_user("Bye")
    assert text(engine, runtime, "Hello.") == "Hello.<turn|>\n<|turn>user\nBye<turn|>\n<|turn>model\n"


async def test_thoughts_stay_in_the_loop_and_leave_with_the_next_user_turn() -> None:
    """The history rule of the model card: thoughts between calls are kept, thoughts of earlier turns are dropped."""
    script = [
        f"<|channel>thought\nI add.\n<channel|>{CALL}<|tool_response>",
        "The sum is known.\n<channel|>It is 3.<turn|>",
        "<|channel>thought\nDone.\n<channel|>Bye.<turn|>",
    ]
    conversation, engine, runtime = await started(script, thinking=True)
    await conversation.add_user("1 + 2?")
    events = await step(conversation)
    assert "".join(e.text for e in events if isinstance(e, ThoughtDelta)) == "I add.\n"
    await conversation.add_results([ToolResult("s0c0", "add", 3)])
    loop = text(engine, runtime)
    assert "I add." in loop and loop.endswith("<tool_response|><|channel>thought\n")
    events = await step(conversation, 1)
    assert "".join(e.text for e in events if isinstance(e, ThoughtDelta)) == "The sum is known.\n"
    await conversation.add_user("Thanks")
    assert text(engine, runtime) == (
        f"<|turn>user\n1 + 2?<turn|>\n<|turn>model\n{CALL}<|tool_response>response:add{{value:3}}<tool_response|>"
        "It is 3.<turn|>\n<|turn>user\nThanks<turn|>\n<|turn>model\n"
    )


async def test_the_empty_thought_of_large_models_is_only_a_cue() -> None:
    """With thinking off, large variants get an empty thought in the prompt and none in the history; small ones none."""
    conversation, engine, runtime = await started(["Hello.<turn|>", "Bye.<turn|>"], info=LARGE)
    await conversation.add_user("Hi")
    assert text(engine, runtime).endswith("<|turn>model\n<|channel>thought\n<channel|>")
    await step(conversation)
    await conversation.add_user("Bye")
    assert text(engine, runtime).startswith("<|turn>user\nHi<turn|>\n<|turn>model\nHello.<turn|>\n<|turn>user\n")


@pytest.mark.parametrize("broken", ["<|tool_call>call:add{a:1,b:", "<|tool_call>call:add{a:1,b:<turn|>"])
async def test_a_broken_call_is_answered_not_lost(broken: str) -> None:
    """A truncated call is a call: the model gets an error for it, and the transcript goes on well formed."""
    conversation, engine, runtime = await started([broken, "Sorry.<turn|>"])
    await conversation.add_user("Go")
    (malformed,) = [e for e in await step(conversation) if isinstance(e, CallMalformed)]
    assert malformed.error.kind == "malformed_call" and "add(" in malformed.error.message
    await conversation.add_results([ToolResult(malformed.call.id, malformed.call.name, error=malformed.error)])
    assert "<|tool_response>response:add{error:" in text(engine, runtime)
    await step(conversation, 1)


async def test_an_answer_that_is_cut_off_is_closed() -> None:
    """At the token cap the turn is closed by force, an open thought as well, so that a next turn can follow."""
    conversation, engine, runtime = await started(["<|channel>thought\n" + "long " * 200], thinking=True)
    await conversation.add_user("Go")
    events = [e async for e in conversation.generate(0, replace(LIMITS, max_tokens=30))]
    assert isinstance(events[-1], GenerationFinished) and events[-1].reason == "max_tokens"
    assert text(engine, runtime).endswith("<channel|><turn|>")


async def test_rewind_takes_back_an_unfinished_generation() -> None:
    """A run stopped in the middle of a call leaves nothing of it, and the step can be generated again."""
    conversation, engine, _ = await started([CALL + "<|tool_response>", "Again.<turn|>"])
    await conversation.add_user("Go")
    before = list(engine.tokens)
    events = conversation.generate(0, LIMITS)
    async for _ in events:
        break
    await events.aclose()
    assert len(engine.tokens) > len(before)
    await conversation.rewind()
    assert list(engine.tokens) == before
    assert any(isinstance(e, TextDelta) for e in await step(conversation))


async def test_deltas_replay_to_the_transcript_and_restore_takes_it_up() -> None:
    """What the store keeps, step by step, must be the ids of the engine, also across dropped thoughts."""
    script = [
        f"<|channel>thought\nI add.\n<channel|>{CALL}<|tool_response>",
        "Known.\n<channel|>3.<turn|>",
        "<|channel>thought\nHm.\n<channel|>Bye.<turn|>",
    ]
    conversation, engine, runtime = await started(script, thinking=True)
    stored: list[int] = []

    def commit() -> None:
        delta = conversation.take_delta()
        stored[delta.start :] = delta.tokens
        assert stored == list(engine.tokens)

    await conversation.add_user("1 + 2?")
    commit()
    await step(conversation)
    await conversation.add_results([ToolResult("s0c0", "add", 3)])
    commit()
    other = NativeConversation(SCRIPTED, runtime.tokenizer, await runtime.open_engine())
    await other.restore(ConversationSetup("Be brief.", (add,), True), stored)
    assert "".join(e.text for e in await step(other, 1) if isinstance(e, TextDelta)) == "3."
    assert other.take_delta().start == len(stored)
    await other.add_user("Thanks")
    assert "I add." not in runtime.tokenizer.decode(stored[: other.take_delta().start])


async def test_a_stopped_turn_can_be_followed_by_a_new_one() -> None:
    """After a budget ended the loop between steps, a user may go on with something else."""
    conversation, engine, runtime = await started([CALL + "<|tool_response>"])
    await conversation.add_user("Go")
    await step(conversation)
    await conversation.add_results([ToolResult("s0c0", "add", error=ToolError("cancelled", "stopped"))])
    await conversation.add_user("Forget it")
    assert text(engine, runtime, "<tool_response|>").startswith("<tool_response|><turn|>\n<|turn>user\nForget it")


async def test_what_does_not_fit_is_refused_whole() -> None:
    """A too long user turn appends nothing; a too long result is replaced by an error, so that the loop stays whole."""
    small = replace(SCRIPTED, context_length=1200)
    conversation, engine, runtime = await started([CALL + "<|tool_response>"], info=small)
    before = list(engine.tokens)
    with pytest.raises(ContextOverflowError):
        await conversation.add_user("x" * 2000)
    assert list(engine.tokens) == before
    await conversation.add_user("Go")
    await step(conversation)
    await conversation.add_results([ToolResult("s0c0", "add", "y" * 2000)])
    assert "too long" in text(engine, runtime)


async def test_the_order_of_a_conversation_is_enforced() -> None:
    """Out of order calls would write a prompt that no model was trained on."""
    conversation, _, _ = await started([CALL + "<|tool_response>"])
    with pytest.raises(ConversationError):
        await step(conversation)
    await conversation.add_user("Go")
    with pytest.raises(ConversationError):
        await conversation.add_results([])
    await step(conversation)
    with pytest.raises(ConversationError):
        await conversation.add_results([ToolResult("other", "add", 3)])


HOSTILE = st.lists(
    st.one_of(st.sampled_from([*CONTROL_TOKENS.values(), "<|tool_", "call>", "thought\n"]), st.text(max_size=8)),
    max_size=6,
).map("".join)


@settings(max_examples=60)
@given(user=HOSTILE, system=HOSTILE, result=HOSTILE, name=HOSTILE)
async def test_untrusted_text_never_speaks_control(user: str, system: str, result: str, name: str) -> None:
    """Whatever users, system text or tools say, the ids hold the control tokens of a harmless run and no others."""

    async def controls(user: str, system: str, result: str, name: str) -> list[int]:
        conversation, engine, _ = await started([CALL + "<|tool_response>"], system=system)
        await conversation.add_user(user)
        await step(conversation)
        await conversation.add_results([ToolResult("s0c0", name, {"text": result})])
        return [t for t in engine.tokens if t in CONTROL_TOKENS]

    assert await controls(user, system, result, name) == await controls("hi", "hi", "hi", "hi")


def test_without_thoughts_keeps_a_call_that_was_made_inside_a_thought() -> None:
    """A model may forget to close its thought before a call: dropping the call would tear the history apart."""
    runtime = ScriptedRuntime([])
    turn = runtime.ids(f"<|channel>thought\nHm {CALL}<|tool_response>response:add{{value:3}}<tool_response|>3<turn|>")
    kept = runtime.ids(f"{CALL}<|tool_response>response:add{{value:3}}<tool_response|>3<turn|>")
    assert without_thoughts(turn) == kept


@pytest.mark.parametrize("calls", [1, 4, 12])
@pytest.mark.parametrize("thinking", [False, True])
async def test_every_call_can_be_answered_and_the_turn_closed_at_any_window(calls: int, thinking: bool) -> None:
    """However tight the window, the calls that were let through get a result each, and the turn can end after them."""
    for context in range(900, 4200, 97):
        info = replace(SCRIPTED, context_length=context)
        conversation, engine, _ = await started([CALL * calls + "<|tool_response>"], info=info, thinking=thinking)
        await conversation.add_user("Go")
        ready = [e.call for e in await step(conversation) if isinstance(e, CallReady | CallMalformed)]
        assert ready or context < 1200
        if ready:
            seen = await conversation.add_results([ToolResult(c.id, c.name, "y" * (context // 2)) for c in ready])
            assert [r.call_id for r in seen] == [c.id for c in ready]
        await conversation.rewind()
        assert len(engine.tokens) <= context


async def test_a_result_that_fits_to_the_last_token_leaves_room_to_close() -> None:
    """A result may fill the window, but not the end of the turn."""
    for length in range(560, 620):
        conversation, engine, runtime = await started([CALL], info=replace(SCRIPTED, context_length=1200))
        await conversation.add_user("Go")
        await step(conversation)
        await conversation.add_results([ToolResult("s0c0", "add", "y" * length)])
        conversation.take_delta()
        runtime.script = [*runtime.script, "Done.<turn|>"]
        events = await step(conversation, 1)
        assert isinstance(events[-1], GenerationFinished) and engine.tokens[-1] == TURN_CLOSE


async def test_a_finished_generation_is_taken_back_until_it_is_committed() -> None:
    """A run that is left at the very last event of a step must not keep an answer that no store knows."""
    conversation, engine, _ = await started(["Hello.<turn|>", "Hello again.<turn|>"])
    await conversation.add_user("Hi")
    before = list(engine.tokens)
    await step(conversation)
    await conversation.rewind()
    assert list(engine.tokens) == before
    await step(conversation)
    conversation.take_delta()
    await conversation.rewind()
    assert len(engine.tokens) > len(before)


async def test_usage_never_shrinks() -> None:
    """Dropping thoughts must not give tokens back to a budget."""
    script = ["<|channel>thought\n" + "long " * 60 + "<channel|>Hi.<turn|>", "<|channel>thought\n<channel|>Bye.<turn|>"]
    conversation, _, _ = await started(script, thinking=True)
    await conversation.add_user("Hi")
    await step(conversation)
    before = conversation.usage
    await conversation.add_user("Bye")
    assert (conversation.usage - before).prompt_tokens > 0
