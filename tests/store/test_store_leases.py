"""One process at a time drives a session; a dead one loses it at once, a frozen one in time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sqlalchemy import update
from store_samples import SESSION, grown, intent, model_step

from g4agent.errors import SessionBusyError, StoreError
from g4agent.store import Store
from g4agent.store.tables import LEASES


def test_a_second_driver_is_refused_until_the_first_lets_go(path: Path) -> None:
    """Two processes that drive one session would run its calls twice."""
    with Store.open(path) as one, Store.open(path) as other:
        session_id = one.create_session(SESSION, lease=True)
        with pytest.raises(SessionBusyError, match=rf"process {os.getpid()} on (.|\n)*ctl {session_id} stop"):
            other.leases.acquire(session_id)
        with pytest.raises(SessionBusyError):
            one.leases.acquire(session_id)
        one.leases.release(session_id)
        other.leases.acquire(session_id)
        holder = one.leases.holder(session_id)
        assert holder is not None and holder.owner == other.owner


def test_a_frozen_owner_loses_its_lease_and_can_commit_nothing_more(path: Path) -> None:
    """A process that wakes up after its lease ran out must not start tools on a history that has moved on."""
    with Store.open(path) as frozen, Store.open(path) as other:
        session_id = grown(frozen, 1)
        frozen.leases.acquire(session_id)
        with frozen._database.writing() as db:
            db.execute(update(LEASES).values(expires=1.0, host="elsewhere"))
        other.leases.acquire(session_id)
        assert not frozen.leases.renew(session_id)
        with pytest.raises(SessionBusyError, match="taken over"):
            frozen.record_intents(session_id, 1, [intent(1)])
        with pytest.raises(SessionBusyError, match="taken over"):
            frozen.commit_step(session_id, model_step(1, 4))
        frozen.leases.release(session_id)
        assert other.leases.renew(session_id)
        other.commit_step(session_id, model_step(1, 4))


def test_an_answer_stands_and_orders_are_obeyed_once(path: Path) -> None:
    """A person's word must not be turned round later, and a `stop` must not stop the next run as well."""
    with Store.open(path) as store, Store.open(path) as other:
        session_id = grown(store, 1)
        asked = store.questions.ask(session_id, "s1c0", "pay", {"amount": 1}, "the policy asks about this tool")
        (question,) = other.questions.open()
        assert (question.id, question.identity, question.approved) == (asked, ("pay", '{"amount": 1}'), None)
        assert other.questions.answer(asked, True, "fine").approved
        with pytest.raises(StoreError, match="answered before: yes"):
            store.questions.answer(asked, False)
        with pytest.raises(StoreError, match="no question"):
            store.questions.answer("nothing-1", True)
        store.questions.mark_used(asked)
        assert [q.used for q in store.questions.of(session_id)] == [True] and store.questions.open() == []
        other.orders.give(session_id, "pause")
        other.orders.give(session_id, "say", "Faster")
        assert [(o.kind, o.text) for o in store.orders.take(session_id)] == [("pause", ""), ("say", "Faster")]
        assert store.orders.take(session_id) == []
