"""What every database must do for a store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psycopg
import pytest
from store_samples import SESSION, call, grown, intent, model_step

from g4agent.errors import SessionBusyError, SessionNotFoundError, StoreError
from g4agent.messages import ToolResult
from g4agent.ports.runtime import SampledToken, TranscriptDelta
from g4agent.store import Generation, StepRecord, Store
from g4agent.store.leases import process_start
from g4agent.verdict import Outcome, Verdict

HOLDER = """
import sys, time
from g4agent.store import Store
store = Store.open(sys.argv[1])
store.leases.acquire(sys.argv[2])
print("held", flush=True)
time.sleep(60)
"""

RUN = """
import sys
from g4agent import Agent, tool
from g4agent.store import Store
from g4agent.testing import ScriptedRuntime

@tool(effect="once", where="host")
def pay(amount: int) -> int:
    "Pays."
    return amount

calls = ["<|tool_call>call:pay{amount:%d}<tool_call|><|tool_response>" % i for i in range(10)]
with Store.open(sys.argv[1]) as store:
    agent = Agent(model=ScriptedRuntime([*calls, "Done.<turn|>"]), tools=[pay], store=store)
    print(agent.run_sync("Pay").session_id)
"""


def test_everything_reads_back_after_reopening(place: str) -> None:
    """Values, texts with NUL, sampled tokens and their probabilities must come back as they were."""
    generation = Generation(
        64, 8, (SampledToken(48, logprob=-0.5), SampledToken(101, forced=True), SampledToken(50, logprob=-0.25))
    )
    done = call(1, value={"ключ": [None, 2**70, "\0"]}, output="\0 ␀ ␀0", repairs=("quote",))
    with Store.open(place) as store:
        session_id = store.create_session(SESSION)
        store.commit_step(session_id, StepRecord(0, "user", TranscriptDelta(0, (2, 105)), text="\0Hi\\0!\nHelp"))
        step = model_step(1, 2, calls=(done,), thoughts="Hm␀", generation=generation, workspace=b"tar")
        store.commit_step(session_id, step)
        store.end_turn(session_id, Verdict(Outcome.DONE, "why\0"))
    with Store.open(place) as store:
        assert store.session(session_id[:-1]).sampling == SESSION.sampling
        user, model = store.steps(session_id)
        assert (user.text, model.thoughts) == ("\0Hi\\0!\nHelp", "Hm␀")
        (again,) = store.calls(session_id)
        assert (again.result, again.output, again.repairs) == (done.result, done.output, done.repairs)
        assert store.generation(session_id, 1) == generation and store.generation(session_id, 0) is None
        assert (store.transcript(session_id), store.workspace(session_id)) == ([2, 105, 1, 1, 1, 1], b"tar")
        assert store.session(session_id).verdict == Verdict(Outcome.DONE, "why\0")


def test_the_journal_of_a_step(place: str) -> None:
    """An intent is open until its step is committed; a step out of order leaves nothing behind."""
    with Store.open(place) as store:
        session_id = grown(store, 1)
        store.record_intents(session_id, 1, [intent(1)], Generation(9, None, (SampledToken(7, logprob=-1.0),)))
        assert [c.call_id for c in store.open_calls(session_id)] == ["s1c0"]
        with pytest.raises(StoreError, match="next step is 1"):
            store.commit_step(session_id, model_step(2, 4, calls=(call(2),), workspace=b"never"))
        store.commit_step(session_id, model_step(1, 4, calls=(call(1, result=ToolResult("s1c0", "pay", "paid")),)))
        assert store.open_calls(session_id) == [] and store.workspace(session_id) is None
        assert len(store.calls(session_id)) == 2


def test_a_new_prompt_drops_the_journaled_generation(place: str) -> None:
    """It must not be played into another turn; its call stays, as it may have run."""
    with Store.open(place) as store:
        session_id = grown(store, 1)
        store.record_intents(session_id, 1, [intent(1)], Generation(9, None, (SampledToken(7),)))
        store.commit_step(session_id, StepRecord(1, "user", TranscriptDelta(4, (7,)), text="Else"))
        assert store.generation(session_id, 1) is None
        assert [c.call_id for c in store.open_calls(session_id)] == ["s1c0"]


def test_workspaces_are_shared_and_deleted_with_their_last_session(place: str) -> None:
    """What one session drops may be another's."""
    with Store.open(place) as store, Store.open(place) as other:
        first, second = grown(store, 1), grown(other, 1)
        store.commit_step(first, model_step(1, 4, workspace=b"same"))
        other.commit_step(second, model_step(1, 4, workspace=b"same"))
        store.delete_session(first)
        assert other.workspace(second) == b"same"
        with pytest.raises(SessionNotFoundError):
            store.session(first)


def test_one_driver_at_a_time(place: str) -> None:
    """The lease holds between connections, whatever the database."""
    with Store.open(place) as one, Store.open(place) as other:
        session_id = one.create_session(SESSION, lease=True)
        with pytest.raises(SessionBusyError):
            other.leases.acquire(session_id)
        with pytest.raises(SessionBusyError):
            other.commit_step(session_id, model_step(0, 0))
        assert one.leases.renew(session_id)
        one.leases.release(session_id)
        other.leases.acquire(session_id)


def test_the_lease_of_a_killed_process_is_taken_over_at_once(place: str) -> None:
    """Nobody wants to wait half a minute after a crash."""
    with Store.open(place) as store:
        session_id = store.create_session(SESSION)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-c", HOLDER, place, session_id]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(SessionBusyError):
                store.leases.acquire(session_id)
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        store.leases.acquire(session_id)
    assert process_start(holder.pid) is None


def test_eight_runs_at_once(place: str) -> None:
    """Eight processes create the store together and run agents in it: every run is whole."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", RUN, place]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    ids = [run.communicate(timeout=120)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 8 and len(set(ids)) == 8
    with Store.open(place) as store:
        for id in ids:
            assert [c.result and c.result.value for c in store.calls(id)] == list(range(10))
            session = store.session(id)
            assert session.verdict is not None and session.verdict.ok and session.steps == 12
            assert len(store.transcript(id)) == session.tokens


def test_postgresql_that_is_gone_is_said_in_words_and_comes_back(postgres: str) -> None:
    """A server that was restarted must cost one error, not the store object."""
    with pytest.raises(StoreError, match=r"cannot be reached(.|\n)*server runs"):
        Store.open("postgresql://postgres@/x?host=/nowhere")
    with pytest.raises(StoreError, match=r"does not exist|cannot be reached"):
        Store.open(postgres % "missing")
    name = "restarted"
    with psycopg.connect(postgres % "postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}".encode())
        with Store.open(postgres % name) as store:
            session_id = grown(store, 1)
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'g4agent'")
            with pytest.raises(StoreError, match="cannot be reached"):
                store.commit_step(session_id, model_step(1, 4))
            store.commit_step(session_id, model_step(1, 4))
            assert store.session(session_id).steps == 2
