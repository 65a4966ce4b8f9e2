"""A session is forked at any of its steps, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os

import pytest
from store_samples import SESSION, call, grown, intent, model_step

from g4agent.errors import SessionNotFoundError, StoreError
from g4agent.events import Usage
from g4agent.ports.runtime import SampledToken, TranscriptDelta
from g4agent.store import Generation, StepRecord, Store
from g4agent.store.statements import KEPT_BYTES
from g4agent.verdict import Outcome, Verdict

SAMPLED = Generation(9, None, (SampledToken(7, logprob=-1.0), SampledToken(1)))
DONE = Verdict(Outcome.DONE, "said")


def told(store: Store) -> str:
    """A session of two user turns, whose second one takes tokens of the first away; a workspace in steps 1 and 4."""
    id = store.create_session(SESSION)
    store.commit_step(id, StepRecord(0, "user", TranscriptDelta(0, (2, 105)), Usage(2), text="Two mugs"))
    store.commit_step(id, model_step(1, 2, calls=(call(1),), generation=SAMPLED, workspace=b"one"))
    store.commit_step(id, model_step(2, 6, generation=SAMPLED, text="There.", verdict=DONE))
    store.commit_step(id, StepRecord(3, "user", TranscriptDelta(4, (8, 9)), Usage(2), text="And now?"))
    store.commit_step(id, model_step(4, 6, calls=(call(4),), generation=SAMPLED, workspace=b"two"))
    return id


def test_a_fork_is_the_session_as_it_was_after_the_step(place: str) -> None:
    """Transcript, totals, verdict and workspace must be those of then: the turns that follow are built upon them."""
    with Store.open(place) as store:
        id = told(store)
        fork = store.fork(id, 2)
        forked, source = store.session(fork), store.session(id)
        assert (forked.steps, forked.tokens, forked.title, forked.verdict) == (3, 10, "Two mugs", DONE)
        assert forked.usage == Usage(4, 4, 2, 1.0) and forked.sampling == SESSION.sampling
        assert (forked.system, forked.tools_hash, forked.fingerprint) == (
            source.system,
            source.tools_hash,
            source.fingerprint,
        )
        assert forked.model_options == source.model_options == SESSION.model_options
        assert store.transcript(fork) == [2, 105, 1, 1, 1, 1, 2, 2, 2, 2]
        assert store.transcript(id) == [2, 105, 1, 1, 8, 9, 4, 4, 4, 4]
        assert [s.text for s in store.steps(fork)] == ["Two mugs", "", "There."]
        assert [c.call_id for c in store.calls(fork)] == ["s1c0"]
        assert store.generation(fork, 2) == SAMPLED and store.generation(fork, 4) is None
        assert (store.workspace(fork), store.workspace(id)) == (b"one", b"two")
        assert store.workspace(store.fork(id, 0)) is None, "there was none yet"


def test_both_go_on_by_themselves(place: str) -> None:
    """What is added to or deleted with one must not be seen in the other."""
    with Store.open(place) as store:
        id = told(store)
        fork = store.fork(id, 1)
        store.commit_step(fork, model_step(2, 6, workspace=b"other", calls=(call(2),)))
        store.commit_step(id, model_step(5, 10))
        assert store.transcript(fork) == [2, 105, 1, 1, 1, 1, 2, 2, 2, 2]
        assert (store.session(fork).steps, store.session(id).steps) == (3, 6)
        again = store.fork(fork, 1)
        store.delete_session(id)
        store.delete_session(fork)
        assert store.workspace(again) == b"one" and len(store.transcript(again)) == 6
        assert [c.made_in for c in store.calls(again)] == [id], "the call's key had the first session's id"


def test_at_the_last_step_what_is_journaled_comes_along(place: str) -> None:
    """A payment that may have been made must be known to the fork, or it would be made again unasked."""
    with Store.open(place) as store:
        id = told(store)
        store.record_intents(id, 5, [intent(5)], SAMPLED)
        last, earlier = store.fork(id), store.fork(id, 3)
        (unknown,) = store.open_calls(last)
        assert (unknown.call_id, unknown.made_in) == ("s5c0", id)
        assert store.generation(last, 5) == SAMPLED and store.workspace(last) == b"two"
        assert store.open_calls(earlier) == [] and store.generation(earlier, 4) is None
        store.commit_step(last, model_step(5, 10, calls=(call(5),)))
        assert store.open_calls(last) == [] and len(store.open_calls(id)) == 1
        assert len(store.calls(last)) == len(store.calls(id)), "the result took the intent's place"


def test_answers_stand_for_the_first_session_only(place: str) -> None:
    """A person's yes stands for one call: a fork must ask again."""
    with Store.open(place) as store:
        id = told(store)
        store.questions.answer(store.questions.ask(id, "s5c0", "pay", {"amount": 5}, "why"), True)
        assert store.questions.of(store.fork(id)) == []


def test_a_workspace_that_was_not_kept_is_said(place: str) -> None:
    """Another workspace than that of then would make the history a lie; the error must name steps that can be had."""
    with Store.open(place) as store:
        id = grown(store, 1)
        store.commit_step(id, model_step(1, 4, workspace=os.urandom(KEPT_BYTES + 1)))
        store.commit_step(id, model_step(2, 8))
        store.commit_step(id, model_step(3, 12, workspace=b"small"))
        for step in (1, 2):
            with pytest.raises(StoreError, match=r"as of step \d was not kept(.|\n)*steps 0, 3\."):
                store.fork(id, step)
        assert store.workspace(store.fork(id, 3)) == b"small"
        assert len(store.list_sessions()) == 2


def test_what_cannot_be_forked_leaves_nothing_behind(place: str) -> None:
    """A slip of the pen must not leave an empty session."""
    with Store.open(place) as store:
        id, empty = grown(store, 2), store.create_session(SESSION)
        with pytest.raises(StoreError, match=r"no step 2(.|\n)*0 to 1"):
            store.fork(id, 2)
        with pytest.raises(StoreError, match="no step -1"):
            store.fork(id, -1)
        with pytest.raises(StoreError, match="no step yet"):
            store.fork(empty)
        with pytest.raises(SessionNotFoundError):
            store.fork("zzzz")
        assert {s.id for s in store.list_sessions()} == {id, empty}
