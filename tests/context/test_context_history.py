"""Every rung is a step: it can be forked away, replayed and resumed, and a kill at any moment loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from long_talk import SUMMARY, Talker, TalkerEngine, agent, decoded, fetching, talker

from g4agent import Budget, Sampling
from g4agent.context.ladder import RUNGS, ContextLadder
from g4agent.errors import ContextOverflowError
from g4agent.events import StepFinished
from g4agent.gemma4.sections import read_sections
from g4agent.store import Store
from g4agent.verdict import Outcome

pytestmark = pytest.mark.anyio

BUDGET = Budget(repeats=None)
LADDER = ContextLadder(result_tokens=200)


def script() -> list[str]:
    """Long results, long thoughts, and more of both than two rungs can make good."""
    pages = [fetching(page, 30 if page % 3 else 5, "hm " * 60) for page in range(20)]
    return [*pages, "<channel|>It is 42.<turn|>"]


async def run(store: Store, runtime: Talker) -> str:
    result = await agent(store, runtime, budget=BUDGET, thinking=True, context=LADDER).run("Fetch all pages")
    assert result.verdict.outcome is Outcome.DONE
    return result.session_id


async def test_all_rungs_are_steps_that_can_be_forked_away_and_replayed(tmp_path: Path) -> None:
    """A fork at the step before a rung has the transcript of before, with nothing taken out of it."""
    with Store.open(tmp_path / "store.db") as store:
        runtime = talker(script())
        id = await run(store, runtime)
        steps = store.steps(id)
        taken = [step for step in steps if step.kind in RUNGS]
        assert {step.kind for step in taken} == set(RUNGS)
        for step in taken:
            before = store.session(store.fork(id, step.index - 1)).tokens
            assert before > store.session(store.fork(id, step.index)).tokens
        first = taken[0].index
        whole = store.transcript(store.fork(id, first - 1))
        assert decoded(runtime, whole).count("page 1, line 15") == 1
        assert decoded(runtime, store.transcript(id)).count("page 1, line 15") == 0

        made = agent(store, talker(script()), budget=BUDGET, thinking=True, context=LADDER)
        replay = await made.replay(id)
        assert replay.divergence is None and replay.steps == len(steps)

        other = talker(script(), summary="Something else.")
        found = (await agent(store, other, budget=BUDGET, thinking=True, context=LADDER).replay(id)).divergence
        at = next(step.index for step in steps if step.kind == "summarise")
        assert found is not None and (found.step, found.part) == (at, "generation")


async def test_a_replay_with_another_ladder_tells_where_it_differs(tmp_path: Path) -> None:
    """Rungs are part of what is verified."""
    with Store.open(tmp_path / "store.db") as store:
        id = await run(store, talker(script()))
        for ladder in (ContextLadder(result_tokens=100), None):
            found = (await agent(store, talker(script()), thinking=True, context=ladder).replay(id)).divergence
            assert found is not None and found.part in ("context", "results")


async def test_a_fork_before_a_rung_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """From the transcript of before, the ladder comes to the same rung again."""
    with Store.open(tmp_path / "store.db") as store:
        id = await run(store, talker(script()))
        first = next(step.index for step in store.steps(id) if step.kind in RUNGS)
        fork = store.fork(id, first - 1)
        asked = sum(step.kind == "summarise" for step in store.steps(id)[:first])
        made = sum(step.kind == "model" for step in store.steps(id)[:first])
        runtime = talker(script()[made:])
        result = await agent(store, runtime, budget=BUDGET, thinking=True, context=LADDER).resume(fork)
        assert result.verdict.outcome is Outcome.DONE and asked == 0
        assert store.transcript(fork) == store.transcript(id)
        assert [s.kind for s in store.steps(fork)] == [s.kind for s in store.steps(id)]


KILLED = """
import os, signal, sys
import anyio
sys.path.insert(0, os.environ["HERE"])
from test_context_history import BUDGET, LADDER, script
from long_talk import agent, talker
from g4agent.store import Store
from g4agent.store.database import Database

left = int(sys.argv[2])
writing = Database.writing
def ticking(self, *args):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return writing(self, *args)

async def main():
    with Store.open(sys.argv[1]) as store:
        sessions = store.list_sessions()
        Database.writing = ticking
        done = store.steps(sessions[0].id) if sessions else []
        made = sum(step.kind == "model" for step in done)
        a = agent(store, talker(script()[made:]), budget=BUDGET, thinking=True, context=LADDER)
        if not done:
            await a.run("Fetch all pages")
        elif store.session(sessions[0].id).interrupted:
            await a.resume(sessions[0].id)

anyio.run(main)
"""


def test_a_kill_at_any_commit_resumes_to_the_same_end(tmp_path: Path) -> None:
    """Killed again and again, two commits further each time, rungs among them: the end is that of the calm run."""
    with Store.open(tmp_path / "calm.db") as store:
        id = anyio.run(run, store, talker(script()))
        expected = store.transcript(id), [(s.kind, s.text) for s in store.steps(id)]
    path = tmp_path / "killed.db"
    environment = {**os.environ, "HERE": str(Path(__file__).parent)}
    kills, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        command = [sys.executable, "-c", KILLED, str(path), str(5 + kills % 3)]
        code = subprocess.run(command, env=environment, timeout=60, check=False).returncode
        kills += 1
        assert kills < 40
    assert code == 0 and kills > 4
    with Store.open(path) as store:
        session = next(s for s in store.list_sessions() if store.session(s.id).steps)
        assert store.transcript(session.id) == expected[0]
        assert [(s.kind, s.text) for s in store.steps(session.id)] == expected[1]


PIECES = st.one_of(
    st.builds(fetching, st.integers(0, 9), st.integers(0, 200), st.sampled_from(["", "hm " * 40])),
    st.builds(
        lambda page, lines: "".join(fetching(page, lines).removesuffix("<|tool_response>") for _ in range(3)),
        st.integers(0, 9),
        st.integers(0, 60),
    ),
    st.builds(lambda words: "word " * words + "<turn|>", st.integers(0, 120)),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.lists(PIECES, min_size=5, max_size=30),
    window=st.integers(1500, 6000),
    prompts=st.lists(st.integers(1, 900), min_size=31, max_size=31),
    thinking=st.booleans(),
    ladder=st.builds(ContextLadder, recent=st.integers(1, 4), result_tokens=st.integers(60, 500)),
    summary=st.sampled_from(["", SUMMARY, "s" * 3000, "<|tool_call>call:fetch{page:1}<tool_call|>"]),
)
async def test_pairs_stay_whole_and_the_window_is_never_exceeded(
    pieces: list[str], window: int, prompts: list[int], thinking: bool, ladder: ContextLadder, summary: str
) -> None:
    """Whatever the model does: no token beyond the window, each call with its result, first prompt and tools in place,
    a ledger that adds up, and a store that has the engine's transcript."""
    TalkerEngine.longest = 0
    runtime = talker(pieces, window, summary=summary)
    with Store.open("sqlite://") as store:
        made = agent(store, runtime, budget=BUDGET, thinking=thinking, context=ladder, sampling=Sampling())
        async with made.session() as session:
            for prompt in prompts:
                if runtime.position >= len(runtime.script):
                    break
                try:
                    async for event in session.stream(
                        f"First {'p' * prompt}" if not session.next_step else "p" * prompt
                    ):
                        if isinstance(event, StepFinished):
                            assert event.context is not None and event.context.total == session.conversation.length
                except ContextOverflowError:
                    break
                except Exception as error:
                    assert "the script is over" in str(error)
                    break
                tokens = store.transcript(session.id)
                assert len(tokens) <= window
                sections = read_sections(tokens, True)
                kinds = [s.kind for s in sections if s.kind in ("calls", "results")]
                assert kinds.count("calls") == kinds.count("results")
                run_of = "".join(kind[0] for kind in kinds)
                while (shorter := run_of.replace("cr", "").replace("ccrr", "").replace("cccrrr", "")) != run_of:
                    run_of = shorter
                assert run_of == ""
                assert "First p" in decoded(runtime, tokens[: next(s.end for s in sections if s.kind == "user")])
        assert TalkerEngine.longest <= window
