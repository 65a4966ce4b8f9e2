"""The transcript is the list that its changes amount to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import SESSION

from g4agent.ports.runtime import TranscriptDelta
from g4agent.store import StepRecord, Store

TOKEN = st.integers(min_value=0, max_value=2**31 - 1)


@settings(max_examples=60)
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.lists(TOKEN, max_size=30)), max_size=25), data=st.data())
def test_changes_behave_as_on_a_list(changes: list[tuple[float, list[int]]], data: st.DataObject) -> None:
    """Appending, cutting back (a rewound generation) and replacing must agree with a plain list at every step."""
    model: list[int] = []
    with Store.open("sqlite://") as store:
        session_id, other = store.create_session(SESSION), store.create_session(SESSION)
        for index, (share, tokens) in enumerate(changes):
            start = len(model) if share > 0.5 else round(share * 2 * len(model))
            model[start:] = tokens
            store.commit_step(session_id, StepRecord(index, "model", TranscriptDelta(start, tuple(tokens))))
            if data.draw(st.booleans()):
                assert store.transcript(session_id) == model
        assert store.transcript(session_id) == model
        assert store.session(session_id).tokens == len(model)
        assert store.transcript(other) == []
