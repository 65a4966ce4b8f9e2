"""Sessions and steps for the store's tests."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from g4agent.events import Usage
from g4agent.messages import JsonValue, ToolResult
from g4agent.ports.runtime import Sampling, TranscriptDelta
from g4agent.store import CallRecord, NewSession, StepRecord, Store

SESSION = NewSession(
    agent="shop.agent:agent",
    model="nano",
    fingerprint="f00d",
    variant="small",
    system="You help in a shop.",
    thinking=True,
    sampling=Sampling(temperature=0.7, top_p=0.9, top_k=40, seed=2**63 + 1),
    tools_hash="beef",
    model_options={"kv_bits": "3.5,11=4", "context_length": 4096},
)


def call(step: int, index: int = 0, *, value: JsonValue = None, **fields: object) -> CallRecord:
    """A done call of a `once` tool, unless `fields` say otherwise."""
    call_id = f"s{step}c{index}"
    record = {
        "index": index,
        "call_id": call_id,
        "name": "pay",
        "arguments": {"amount": step},
        "effect": "once",
        "where": "host",
        "result": ToolResult(call_id, "pay", value),
        **fields,
    }
    return CallRecord(**record)  # type: ignore[arg-type]


def intent(step: int, index: int = 0, **fields: object) -> CallRecord:
    """The same call before it has run."""
    return call(step, index, result=None, **fields)


def model_step(index: int, start: int, length: int = 4, **fields: object) -> StepRecord:
    """A model step whose every token is its own index."""
    delta = TranscriptDelta(start, (index,) * length)
    return StepRecord(index, "model", delta, Usage(1, 2, 1, 0.5), **fields)  # type: ignore[arg-type]


def grown(store: Store, steps: int, length: int = 4) -> str:
    """A session of that many steps, each with one call."""
    session_id = store.create_session(SESSION)
    for index in range(steps):
        store.commit_step(session_id, model_step(index, index * length, length, calls=(call(index),)))
    return session_id


def integrity(path: Path) -> str:
    """What SQLite itself says about a database file: `ok`, or what is wrong."""
    with sqlite3.connect(path) as connection:
        answer = connection.execute("PRAGMA integrity_check").fetchone()[0]
        orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
    connection.close()
    return str(answer) if not orphans else f"orphans: {orphans}"
