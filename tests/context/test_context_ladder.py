"""Room is made before the window is full: each rung, what it leaves, and what happens where nothing can be left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from long_talk import SUMMARY, WINDOW, Talker, agent, decoded, fetch, fetching, talker

from g4agent import Agent, Budget, tool
from g4agent.context.ladder import ContextLadder
from g4agent.errors import ConfigError, ContextOverflowError
from g4agent.events import ContextReduced, Event, RunFinished, StepFinished, ToolFinished
from g4agent.gemma4.sections import read_sections
from g4agent.store import Store
from g4agent.store.records import Order
from g4agent.testing import ScriptedModel, call, say
from g4agent.verdict import Outcome

pytestmark = pytest.mark.anyio

BUDGET = Budget(repeats=None)
PROMPT = "Fetch all pages, then give the sum."


async def told(store: Store | bool, runtime: Talker, prompt: str = PROMPT, **settings: Any) -> list[Event]:
    return [event async for event in agent(store, runtime, **{"budget": BUDGET, **settings}).stream(prompt)]


def reductions(events: list[Event]) -> list[ContextReduced]:
    return [event for event in events if isinstance(event, ContextReduced)]


def outcome(events: list[Event]) -> Outcome:
    assert isinstance(events[-1], RunFinished)
    return events[-1].verdict.outcome


def pages(count: int, lines: int = 30) -> list[str]:
    return [fetching(page, lines) for page in range(count)]


async def test_a_task_that_would_overflow_ends_and_without_the_ladder_does_not(tmp_path: Path) -> None:
    """The requirement itself: 25 pages of 500 tokens through a window of 6,000."""
    script = [*pages(25), "It is 42.<turn|>"]
    with Store.open(tmp_path / "store.db") as store:
        events = await told(store, talker(script))
        assert outcome(events) is Outcome.DONE and len(reductions(events)) >= 3
        lengths = [event.context.total for event in events if isinstance(event, StepFinished) and event.context]
        assert len(lengths) == 26 and max(lengths) <= WINDOW
        control = await told(store, talker(script), context=None)
        assert outcome(control) is Outcome.CONTEXT_FULL
        assert isinstance(control[-1], RunFinished) and "larger context_length" in control[-1].verdict.reason


async def test_older_results_keep_head_tail_and_a_handle_that_reads_them_back(tmp_path: Path) -> None:
    """The first rung loses nothing: the store has the whole result, and the model gets any line of it."""
    back = '<|tool_call>call:read_stored_result{call:<|"|>s1c0<|"|>,count:2,start:27}<tool_call|><|tool_response>'
    runtime = talker([*pages(8), back, "Line 28.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        events = await told(store, runtime, context=ContextLadder(rungs=("trim_results",), result_tokens=160))
        (reduced,) = reductions(events)
        assert reduced.trimmed == ("s1c0", "s2c0", "s3c0", "s4c0", "s5c0") and reduced.after < reduced.before
        id = events[-1].session_id if isinstance(events[-1], RunFinished) else ""
        transcript = decoded(runtime, store.transcript(id))
        assert "page 0, line 1\n" in transcript and "page 0, line 30<|" in transcript
        assert 'lines left out; all 30 lines: read_stored_result(call="s1c0")]' in transcript
        assert "page 0, line 15" not in transcript and "page 7, line 15" in transcript
        assert transcript.index("<|tool>declaration:read_stored_result{") < transcript.index("<|turn>user")
        results = [event.result for event in events if isinstance(event, ToolFinished)]
        assert results[-1].value == {
            "text": "page 0, line 27\npage 0, line 28",
            "lines": "27-28 of 30",
            "note": "read on with start=29",
        }
        assert next(c.result.value for c in store.calls(id) if c.result) == fetch(0, 30)
        assert outcome(events) is Outcome.DONE


async def test_older_thoughts_are_dropped(tmp_path: Path) -> None:
    """The second rung; those of the last steps stay, as the model still goes on from them."""
    script = [fetching(page, 1, "hm " * 200) for page in range(9)]
    runtime = talker([*script, "<channel|>Done.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        events = await told(store, runtime, thinking=True, context=ContextLadder(rungs=("drop_thoughts",)))
        reduced = reductions(events)[0]
        id = events[-1].session_id if isinstance(events[-1], RunFinished) else ""
        after = [e.context for e in events if isinstance(e, StepFinished) and e.step > reduced.step]
        kinds = [s.kind for s in read_sections(transcript_at(store, id, reduced.step), True)]
        assert kinds.count("calls") == kinds.count("results") == 6 and kinds.count("thoughts") == 3 + 1
        assert after and outcome(events) is Outcome.DONE
        assert [s.thoughts for s in store.steps(id)][1].strip() == ("hm " * 200).strip(), "the store keeps them"


async def test_old_turns_are_summed_up_by_the_model_and_the_pairs_stay_whole(tmp_path: Path) -> None:
    """The third rung: the first prompt, the system turn and the last steps stay to the token."""
    runtime = talker([*pages(9), "It is 42.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        events = await told(store, runtime, context=ContextLadder(rungs=("summarise",)))
        reduced = reductions(events)[0]
        assert reduced.summary == SUMMARY and runtime.asked == len(reductions(events)) == 1
        id = events[-1].session_id if isinstance(events[-1], RunFinished) else ""
        before, after = (transcript_at(store, id, step) for step in (reduced.step - 1, reduced.step))
        old, new = (read_sections(tokens, True) for tokens in (before, after))
        kinds = [section.kind for section in new]
        assert kinds == ["system", "system", "tools", "system", "user", "summary", "answers"] + ["calls", "results"] * 3
        assert after[: new[4].end] == before[: old[4].end] and after[new[7].start :] == before[old[-6].start :]
        assert PROMPT in decoded(runtime, after) and SUMMARY in decoded(runtime, after)
        assert store.steps(id)[reduced.step].text == SUMMARY
        generation = store.generation(id, reduced.step)
        assert generation is not None and runtime.tokenizer.decode([t.id for t in generation.tokens]).startswith(
            "Lines"
        )
        assert outcome(events) is Outcome.DONE


def transcript_at(store: Store, id: str, step: int) -> list[int]:
    return store.transcript(store.fork(id, step))


async def test_a_model_that_writes_no_summary_leaves_the_names_of_its_calls(tmp_path: Path) -> None:
    """A small model may answer with nothing: then what was called stands in for it, and the run goes on."""
    runtime = talker([*pages(9), "It is 42.<turn|>"], summary="")
    events = await told(False, runtime, context=ContextLadder(rungs=("summarise",)))
    assert reductions(events)[0].summary == "These tools were called: fetch." and outcome(events) is Outcome.DONE


async def test_in_a_long_conversation_the_first_and_the_present_prompt_stay(tmp_path: Path) -> None:
    """Many short turns fill a window as well; the turn between two user turns is where it is cut."""
    script = [f"Answer {n}. {'word ' * 60}<turn|>" for n in range(30)]
    runtime = talker(script)
    with Store.open(tmp_path / "store.db") as store:
        async with agent(store, runtime, budget=BUDGET).session() as session:
            for n in range(30):
                result = await session.run(f"Question {n}?")
                assert result.verdict.outcome is Outcome.DONE and result.answer.startswith(f"Answer {n}.")
                tokens = store.transcript(session.id)
                assert len(tokens) == session.conversation.length <= WINDOW
                shown = decoded(runtime, tokens)
                assert "Question 0?" in shown and f"Question {n}?" in shown and f"Answer {n}." in shown
            assert 0 < runtime.asked < 8 and "Question 5?" not in shown
            kinds = [s.kind for s in store.steps(session.id)]
            assert "summarise" in kinds and not store.session(session.id).interrupted


async def test_a_result_that_alone_fills_the_window_is_shortened_as_it_comes(tmp_path: Path) -> None:
    """Nothing is lost: the run's user and the store have all of it, the model a handle."""
    lines = 2000
    back = f'<|tool_call>call:read_stored_result{{call:<|"|>s1c0<|"|>,start:{lines}}}<tool_call|><|tool_response>'
    runtime = talker([fetching(7, lines), back, "Read.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        made = agent(store, runtime, budget=BUDGET)
        result = await made.run("Fetch it")
        assert result.results[0].value == fetch(7, lines)
        assert result.results[1].value == {"text": f"page 7, line {lines}", "lines": f"{lines}-{lines} of {lines}"}
        assert result.verdict.outcome is Outcome.DONE
        tokens = store.transcript(result.session_id)
        assert len(tokens) < WINDOW // 2 and 'read_stored_result(call="s1c0")' in decoded(runtime, tokens)
        replayed = await agent(store, talker([fetching(7, lines), back, "Read.<turn|>"])).replay(result.session_id)
        assert replayed.divergence is None


async def test_without_the_ladder_such_a_result_is_refused_as_before() -> None:
    """The typed error stays for those who switch it off."""
    runtime = talker([fetching(7, 2000), "Too long.<turn|>"])
    result = await agent(False, runtime, context=None).run("Fetch it")
    assert result.results[0].error is not None and "too long" in result.results[0].error.message


async def test_a_prompt_that_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    """It says what to do, changes nothing, and the session goes on."""
    runtime = talker(["Hi.<turn|>", "Bye.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        async with agent(store, runtime).session() as session:
            await session.run("Hello")
            before = store.transcript(session.id)
            with pytest.raises(ContextOverflowError, match="into a file that a tool reads in parts"):
                await session.run("x" * 2 * WINDOW)
            assert store.transcript(session.id) == before and runtime.asked == 0
            assert (await session.run("Bye")).verdict.outcome is Outcome.DONE


async def test_what_is_said_to_a_running_session_and_does_not_fit_ends_it_with_a_verdict(tmp_path: Path) -> None:
    """An order from another process must not crash the run that it reaches."""
    runtime = talker(pages(2))
    with Store.open(tmp_path / "store.db") as store:
        async with agent(store, runtime).session() as session:
            events = session.stream("Go")
            async for event in events:
                if isinstance(event, StepFinished) and event.step == 1:
                    session.inbox.put([Order("say", "x" * 2 * WINDOW)])
            assert isinstance(event, RunFinished) and event.verdict.outcome is Outcome.CONTEXT_FULL
            assert "does not fit" in event.verdict.reason


async def test_a_prompt_that_needs_room_gets_it(tmp_path: Path) -> None:
    """Room is made for what is about to be said, too."""
    runtime = talker([*pages(7), "Done.<turn|>", "Read.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        async with agent(store, runtime, budget=BUDGET).session() as session:
            await session.run("Go")
            assert runtime.asked == 0 and session.conversation.length > WINDOW // 2
            events = [event async for event in session.stream("y" * (WINDOW // 2))]
        assert [type(event).__name__ for event in events[:2]] == ["RunStarted", "ContextReduced"]
        assert outcome(events) is Outcome.DONE


async def test_the_ledger_is_exact_and_knows_its_bytes(tmp_path: Path) -> None:
    """Its sum is the engine's length after every step; the API, the events and `sessions show` say the same."""
    runtime = talker([*[fetching(p, 20, "hm") for p in range(12)], "Done.<turn|>"])
    with Store.open(tmp_path / "store.db") as store:
        async with agent(store, runtime, budget=BUDGET, thinking=True).session() as session:
            async for event in session.stream(PROMPT):
                if isinstance(event, StepFinished):
                    assert event.context is not None and event.context == session.window.ledger
                    assert event.context.total == len(store.transcript(session.id)) == session.conversation.length
            ledger = session.window.ledger
        assert ledger is not None and ledger.window == WINDOW and ledger.bytes is None
        assert min(ledger.parts.values()) > 0 and sum(ledger.parts.values()) == ledger.total


async def test_chat_only_models_have_no_ledger_and_no_ladder() -> None:
    """They keep their own context."""
    model = ScriptedModel([call("fetch", page=1), say("Done.")])
    made = Agent(model=model, tools=[fetch], store=False)
    events = [event async for event in made.stream("Go")]
    assert [event.context for event in events if isinstance(event, StepFinished)] == [None, None]


@tool(where="host", effect="pure", name="read_stored_result")
def taken(call: str) -> str:
    """Takes the name.

    Args:
        call: Any.
    """
    return call


async def test_settings_that_cannot_work_are_refused() -> None:
    """Before anything runs, and with a way out."""
    for settings in ({"start": 1.0}, {"goal": 0.9}, {"recent": 0}, {"largest_results": 0.0}, {"rungs": ("jump",)}):
        with pytest.raises(ConfigError):
            ContextLadder(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ladder's own tool"):
        await Agent(model=talker(["Hi.<turn|>"]), tools=[taken], store=False).run("Hi")
    made = Agent(model=talker(["Hi.<turn|>"]), tools=[taken], store=False, context=None)
    assert (await made.run("Hi")).verdict.outcome is Outcome.DONE
