"""What goes into the store comes out again, and nothing else does."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import select
from store_samples import SESSION, call, grown, integrity, intent, model_step

from g4agent.errors import SessionNotFoundError, StoreError
from g4agent.events import Usage
from g4agent.messages import ToolError, ToolResult
from g4agent.ports.runtime import MemoryUse, TranscriptDelta
from g4agent.store import StepRecord, Store, statements
from g4agent.store.tables import OPTIONS
from g4agent.verdict import Outcome, Verdict


def rows(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    count = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return int(count)


def test_new_session_reads_back(store: Store) -> None:
    """A setting that is lost or bent would make the resumed session another one: 64-bit seeds, for instance."""
    before = datetime.now(UTC)
    stored = store.session(store.create_session(SESSION))
    assert {name: getattr(stored, name) for name in asdict(SESSION)} == {
        name: getattr(SESSION, name) for name in asdict(SESSION)
    }
    assert (stored.steps, stored.tokens, stored.usage, stored.verdict, stored.title) == (0, 0, Usage(), None, "")
    assert before <= stored.created == stored.updated <= datetime.now(UTC)
    assert not stored.interrupted


def test_the_models_options_read_back_and_go_with_the_session(place: str) -> None:
    """Without them a session is taken up at another rate of the cache; a session without any is as those of before."""
    options = {"kv_bits": "3.5,11=4", "kv_sliding_bits": "8", "context_length": 4096, "dtype": "float32"}
    with Store.open(place) as store:
        given, none = (store.create_session(replace(SESSION, model_options=kept)) for kept in (options, {}))
        assert store.session(given).model_options == options and store.session(none).model_options == {}
        assert len(store.list_sessions()) == 2
        with store._database.reading() as db:
            assert db.execute(select(OPTIONS.c.session_id)).scalars().all() == [given]
        store.delete_session(given)
        with store._database.reading() as db:
            assert db.execute(select(OPTIONS)).all() == []


def test_steps_and_calls_read_back_after_reopening(path: Path) -> None:
    """Values, errors, texts and times must survive the file as they were, JSON's null and missing value included."""
    started = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
    error = ToolError("exception", "no such item", "Traceback …")
    arguments = {"items": [1, 1.0, True, None, {"ключ": "\0 \ud800"}], "n": 2**70}
    calls = (
        call(1, 0, value={"ok": [None]}, arguments=arguments, output="printed", started=started, seconds=1.5),
        call(1, 1, result=ToolResult("s1c1", "pay", error=error), where="sandbox", effect="idempotent"),
        call(1, 2, value=None, effect=None, where=None),
        call(1, 3, value=0),
    )
    with Store.open(path) as store:
        session_id = store.create_session(SESSION)
        store.commit_step(session_id, StepRecord(0, "user", TranscriptDelta(0, (2, 105)), Usage(2), "\n Hi!\nHelp"))
        store.commit_step(session_id, model_step(1, 2, calls=calls, text="…"))
        store.commit_step(session_id, model_step(2, 6, text="Done.", verdict=Verdict(Outcome.DONE, "why")))
    with Store.open(path) as store:
        stored, steps, found = store.session(session_id), store.steps(session_id), store.calls(session_id)
        assert store.transcript(session_id) == [2, 105, 1, 1, 1, 1, 2, 2, 2, 2]
    assert [(s.index, s.kind, s.text) for s in steps] == [
        (0, "user", "\n Hi!\nHelp"),
        (1, "model", "…"),
        (2, "model", "Done."),
    ]
    assert [s.verdict for s in steps] == [None, None, Verdict(Outcome.DONE, "why")]
    assert [s.usage for s in steps] == [Usage(2), Usage(1, 2, 1, 0.5), Usage(1, 2, 1, 0.5)]
    assert (stored.title, stored.steps, stored.tokens) == ("Hi!", 3, 10)
    assert (stored.usage, stored.verdict, stored.interrupted) == (
        Usage(4, 4, 2, 1.0),
        Verdict(Outcome.DONE, "why"),
        False,
    )
    for record, again in zip(calls, found, strict=True):
        assert again.step == 1
        assert {f: getattr(again, f) for f in asdict(record)} == {f: getattr(record, f) for f in asdict(record)}
    assert repr(found[0].arguments) == repr(arguments)


def test_intent_becomes_the_result_of_its_call(store: Store) -> None:
    """A journaled call must be open until its step is committed, and be one call then, not two."""
    session_id = store.create_session(SESSION)
    store.record_intents(session_id, 0, [intent(0, 0), intent(0, 2)])
    (first, second) = store.open_calls(session_id)
    assert (first.call_id, second.call_id) == ("s0c0", "s0c2")
    assert first.started is not None and first.effect == "once" and first.arguments == {"amount": 0}
    assert store.session(session_id).steps == 0
    store.commit_step(session_id, model_step(0, 0, calls=tuple(call(0, i, value=i) for i in range(3))))
    assert store.open_calls(session_id) == []
    assert [(c.index, c.result and c.result.value) for c in store.calls(session_id)] == [(0, 0), (1, 1), (2, 2)]


def test_same_call_may_be_journaled_again_and_another_never_hides_it(store: Store) -> None:
    """After a crash the step is generated anew. A call that may have run must not vanish behind one with its id."""
    session_id = store.create_session(SESSION)
    store.record_intents(session_id, 0, [intent(0, arguments={"amount": 5, "to": "a"})])
    store.record_intents(session_id, 0, [intent(0, arguments={"to": "a", "amount": 5})])
    assert len(store.calls(session_id)) == 1
    store.record_intents(session_id, 0, [intent(0, arguments={"amount": 5.0, "to": "a"})])
    done = call(0, value="paid", arguments={"amount": 5.0, "to": "a"})
    store.commit_step(session_id, model_step(0, 0, calls=(done,)))
    (lost,) = store.open_calls(session_id)
    assert isinstance(lost.arguments["amount"], int)
    assert [c.result for c in store.calls(session_id) if c.result] == [done.result]


def test_a_step_out_of_order_is_refused_whole(store: Store) -> None:
    """Two processes on one session would interleave their transcripts; a gap would shift every later token."""
    session_id = grown(store, 2)
    before = store.session(session_id)
    for step in (
        model_step(1, 8, calls=(call(1),)),
        model_step(3, 8, calls=(call(3),)),
        model_step(2, 9, calls=(call(2),), workspace=b"never"),
    ):
        with pytest.raises(StoreError, match=r"next step is 2|is a gap"):
            store.commit_step(session_id, step)
    with pytest.raises(StoreError, match="next step is 2"):
        store.record_intents(session_id, 1, [intent(1)])
    assert store.session(session_id) == before
    assert (len(store.steps(session_id)), len(store.calls(session_id))) == (2, 2)
    assert store.workspace(session_id) is None


def test_second_process_on_a_session_is_refused(path: Path) -> None:
    """Whoever resumes a session twice must be told, before the second run's tools act on a history that is not."""
    with Store.open(path) as one, Store.open(path) as other:
        session_id = grown(one, 1)
        one.record_intents(session_id, 1, [intent(1)])
        one.commit_step(session_id, model_step(1, 4))
        with pytest.raises(StoreError, match="Another process has gone on"):
            other.record_intents(session_id, 1, [intent(1)])


def test_end_turn_and_a_new_turn(store: Store) -> None:
    """A session whose last turn was cut off can be taken up; a finished one cannot; a new turn clears the verdict."""
    session_id = grown(store, 1)
    assert store.session(session_id).interrupted
    store.end_turn(session_id, Verdict(Outcome.DONE))
    assert not store.session(session_id).interrupted
    assert store.list_sessions()[0].status == "done"
    store.commit_step(session_id, StepRecord(1, "user", TranscriptDelta(4, (7,)), text="more"))
    assert store.session(session_id).verdict is None
    assert store.list_sessions()[0].status == "unfinished"
    store.end_turn(session_id, Verdict(Outcome.INTERRUPTED, "Ctrl-C"))
    assert store.session(session_id).interrupted
    assert store.session(session_id).verdict == Verdict(Outcome.INTERRUPTED, "Ctrl-C")


def test_workspace_is_the_latest_and_each_is_kept_once(store: Store, path: Path) -> None:
    """A large snapshot per step would fill the disk; one that another session shares must stay for it."""
    large = os.urandom(statements.KEPT_BYTES + 1)
    first, second = grown(store, 1), grown(store, 1)
    assert store.workspace(first) is None
    for session_id in (first, second):
        store.commit_step(session_id, model_step(1, 4, workspace=large))
    store.commit_step(first, model_step(2, 8, workspace=large))
    store.commit_step(first, model_step(3, 12))
    assert store.workspace(first) == store.workspace(second) == large
    assert rows(path, "blobs") == 1
    store.commit_step(first, model_step(4, 16, workspace=b""))
    assert (store.workspace(first), store.workspace(second)) == (b"", large)
    store.commit_step(second, model_step(2, 8, workspace=b"other"))
    assert rows(path, "blobs") == 2, "nobody ends with the large one any more"


def test_delete_takes_all_of_one_session_only(store: Store, path: Path) -> None:
    """Whoever deletes a session expects its texts to be gone, and the others to be there."""
    kept, gone = grown(store, 3), grown(store, 3)
    store.commit_step(gone, model_step(3, 12, workspace=b"secret"))
    store.record_intents(gone, 4, [intent(4)])
    store.delete_session(gone)
    with pytest.raises(SessionNotFoundError):
        store.session(gone)
    assert [s.id for s in store.list_sessions()] == [kept]
    assert [rows(path, t) for t in ("sessions", "progress", "steps", "calls", "transcript", "blobs")] == [
        1,
        1,
        3,
        3,
        3,
        0,
    ]
    assert integrity(path) == "ok"


def test_list_has_the_last_used_first(store: Store) -> None:
    """`g4agent sessions` and `--last` go by use, not by creation."""
    old, new = grown(store, 1), grown(store, 2)
    assert [s.id for s in store.list_sessions()] == [new, old]
    store.commit_step(old, model_step(1, 4))
    assert [(s.id, s.steps, s.tokens) for s in store.list_sessions()] == [(old, 2, 8), (new, 2, 8)]
    assert [s.id for s in store.list_sessions(1)] == [old]


def test_ids_sort_by_creation_and_prefixes_find_them(store: Store) -> None:
    """Ids are typed by people: short, in any case, and any unique beginning of one."""
    ids = [store.create_session(SESSION) for _ in range(50)]
    assert ids == sorted(ids) and len(set(ids)) == 50
    assert all(len(id) == 12 for id in ids)
    for id in ids:
        assert store.session(id[:9]).id == store.session(f" {id.upper()} ").id == id


def test_unknown_and_ambiguous_ids_name_near_ones(store: Store) -> None:
    """A slip in an id should end in the right one, not in a search."""
    with pytest.raises(SessionNotFoundError, match="no sessions yet"):
        store.session("1")
    ids = [store.create_session(SESSION) for _ in range(8)]
    with pytest.raises(SessionNotFoundError, match=f"Several.*\n.*{ids[-1]}"):
        store.session(ids[0][:4])
    slip = ids[3][:-1] + ("0" if ids[3][-1] != "0" else "1")
    with pytest.raises(SessionNotFoundError, match=ids[3]):
        store.session(slip)
    for id in ("", "%", "zzzz"):
        with pytest.raises(SessionNotFoundError):
            store.session(id)
    for operation in (store.delete_session, lambda id: store.commit_step(id, model_step(0, 0))):
        with pytest.raises(SessionNotFoundError):
            operation("zzzz")
    with pytest.raises(SessionNotFoundError):
        store.end_turn(ids[0][:9], Verdict(Outcome.DONE))


def test_threads_share_a_store(store: Store) -> None:
    """The session layer calls from a pool of threads: commits of several sessions must neither mix nor get lost."""
    with ThreadPoolExecutor(6) as pool:
        ids = list(pool.map(lambda _: grown(store, 20), range(6)))
    for id in ids:
        assert store.transcript(id) == [i for i in range(20) for _ in range(4)]


def test_store_in_memory() -> None:
    """A URL chooses the database; the one in memory must have its tables on the one connection there is."""
    with Store.open("sqlite://") as store:
        assert store.session(grown(store, 2)).tokens == 8


def test_records_refuse_what_may_not_be(store: Store) -> None:
    """A committed step without a result for a call would break the transcript on resume."""
    with pytest.raises(AssertionError):
        model_step(0, 0, calls=(intent(0),))
    with pytest.raises(AssertionError):
        replace(call(0), call_id="s9c9")


def test_what_a_session_takes_is_that_of_its_last_step(store: Store) -> None:
    """Steps that do not say leave it as it was; a fork has nothing of its own yet; it goes with the session."""
    session_id = store.create_session(SESSION)
    first, last, found = MemoryUse(10, 5 << 30, 40 << 30), MemoryUse(20, 9 << 30, 80 << 30), []
    for index, memory in enumerate((None, first, None, last)):
        store.commit_step(session_id, model_step(index, 4 * index, memory=memory))
        found.append(store.list_sessions()[0].memory)
        assert store.session(session_id).memory == found[-1]
    assert found == [None, first, first, last]
    forked = store.fork(session_id)
    assert store.session(forked).memory is None
    assert {summary.id: summary.memory for summary in store.list_sessions()}[forked] is None
    store.delete_session(session_id)
    assert [summary.id for summary in store.list_sessions()] == [forked]
