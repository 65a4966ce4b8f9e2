"""Records to rows and back."""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from g4agent.events import Usage
from g4agent.image import Image
from g4agent.messages import ToolError, ToolResult
from g4agent.ports.runtime import MemoryUse, SampledToken, Sampling, TranscriptDelta
from g4agent.store.records import (
    CallRecord,
    Generation,
    NewSession,
    SessionSummary,
    StepImage,
    StepRecord,
    StoredCall,
    StoredSession,
    StoredStep,
)
from g4agent.verdict import Outcome, Verdict

TITLE_LENGTH = 200


def session(id: str, now: datetime, record: NewSession) -> dict[str, Any]:
    """A row of `sessions`."""
    values = asdict(record)
    del values["model_options"]
    return {"id": id, "created": now, **values}


def options(session_id: str, record: NewSession) -> dict[str, Any]:
    """A row of `options`."""
    return {"session_id": session_id, "model_options": dict(record.model_options)}


def first_progress(session_id: str, now: datetime) -> dict[str, Any]:
    """The row of totals of a session that has no steps."""
    return {
        "session_id": session_id,
        "updated": now,
        "title": "",
        "steps": 0,
        "tokens": 0,
        **asdict(Usage()),
        "outcome": None,
        "reason": "",
        "workspace": None,
    }


def advance(session_id: str, step: StepRecord, now: datetime, workspace: str | None, owner: str) -> dict[str, Any]:
    """Parameters of `statements.ADVANCE`."""
    usage, delta = step.usage, step.delta
    return {
        "p_session": session_id,
        "p_owner": owner,
        "p_step": step.index,
        "p_start": delta.start,
        "p_end": delta.start + len(delta.tokens),
        "p_now": now,
        "p_title": title(step.text) if step.kind == "user" else "",
        "p_prompt": usage.prompt_tokens,
        "p_generated": usage.generated_tokens,
        "p_thought": usage.thought_tokens,
        "p_seconds": usage.seconds,
        "p_workspace": workspace,
        **{f"p_{name}": value for name, value in verdict(step.verdict).items()},
    }


def memory(session_id: str, use: MemoryUse) -> dict[str, Any]:
    """A row of `memory`."""
    return {"session_id": session_id, **asdict(use)}


def title(prompt: str) -> str:
    """The first line of a prompt that says something."""
    return next((line.strip() for line in prompt.splitlines() if line.strip()), "")[:TITLE_LENGTH]


def verdict(value: Verdict | None) -> dict[str, Any]:
    """The two columns of a verdict."""
    return {"outcome": None, "reason": ""} if value is None else {"outcome": value.outcome, "reason": value.reason}


def step(session_id: str, record: StepRecord, now: datetime) -> dict[str, Any]:
    """A row of `steps`."""
    return {
        "session_id": session_id,
        "step": record.index,
        "created": now,
        "kind": record.kind,
        "text": record.text,
        "thoughts": record.thoughts,
        **asdict(record.usage),
        **verdict(record.verdict),
    }


def call(session_id: str, step: int, record: CallRecord) -> dict[str, Any]:
    """A row of `calls`."""
    result = record.result
    return {
        "session_id": session_id,
        "step": step,
        "position": record.index,
        "call_id": record.call_id,
        "name": record.name,
        "arguments": dict(record.arguments),
        "effect": record.effect,
        "ran_in": record.where,
        "state": "intended" if result is None else "done",
        "result": None if result is None else result.value,
        "error": None if result is None or result.error is None else asdict(result.error),
        "output": record.output,
        "repairs": list(record.repairs) or None,
        "started": record.started,
        "seconds": record.seconds,
    }


def identity(call_id: str, name: str, arguments: Mapping[str, Any]) -> str:
    """Equal for two tries of the very same call, and for these only."""
    return json.dumps([call_id, name, arguments], sort_keys=True)


def transcript(session_id: str, step: int, delta: TranscriptDelta) -> dict[str, Any]:
    """A row of `transcript`."""
    packed = struct.pack(f"<{len(delta.tokens)}i", *delta.tokens)
    return {"session_id": session_id, "step": step, "start": delta.start, "ids": packed}


def generation(session_id: str, step: int, record: Generation) -> dict[str, Any]:
    """A row of `generations`."""
    ids = [-1 - token.id if token.forced else token.id for token in record.tokens]
    logprobs = [math.nan if token.logprob is None else token.logprob for token in record.tokens]
    return {
        "session_id": session_id,
        "step": step,
        "max_tokens": record.max_tokens,
        "thought_limit": record.thought_limit,
        "ids": struct.pack(f"<{len(ids)}i", *ids),
        "logprobs": struct.pack(f"<{len(ids)}f", *logprobs),
    }


def image(session_id: str, step: int, record: StepImage) -> dict[str, Any]:
    """A row of `images`."""
    picture = record.image
    shown = {"name": picture.name, "tokens": picture.tokens, "sha256": picture.sha256}
    return {"session_id": session_id, "step": step, "call_id": record.call_id, "place": record.place, **shown}


def blob(data: bytes) -> dict[str, Any]:
    """A row of `blobs`."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "data": zlib.compress(data, level=1)}


def stored_image(row: RowMapping) -> StepImage:
    """From a row of `images` joined with `blobs`."""
    picture = Image(zlib.decompress(row["data"]), name=row["name"], tokens=row["tokens"])
    return StepImage(picture, row["call_id"], row["place"])


def stored_generation(row: RowMapping) -> Generation:
    """From a row of `generations`."""
    count = len(row["ids"]) // 4
    ids, logprobs = struct.unpack(f"<{count}i", row["ids"]), struct.unpack(f"<{count}f", row["logprobs"])
    tokens = tuple(
        SampledToken(-1 - id if id < 0 else id, id < 0, None if math.isnan(logprob) else logprob)
        for id, logprob in zip(ids, logprobs, strict=True)
    )
    return Generation(row["max_tokens"], row["thought_limit"], tokens)


def joined_transcript(deltas: Iterable[tuple[int, bytes]]) -> list[int]:
    """The ids that a sequence of transcript rows (start, packed ids) amounts to."""
    ids: list[int] = []
    for start, packed in deltas:
        assert start <= len(ids), "the transcript has a gap"
        ids[start:] = unpacked(packed)
    return ids


def unpacked(ids: bytes) -> tuple[int, ...]:
    """Packed token ids."""
    return struct.unpack(f"<{len(ids) // 4}i", ids)


def stored_verdict(row: RowMapping) -> Verdict | None:
    """From the two columns of a verdict."""
    return None if row["outcome"] is None else Verdict(Outcome(row["outcome"]), row["reason"])


def stored_usage(row: RowMapping) -> Usage:
    """From the four columns of a usage."""
    return Usage(row["prompt_tokens"], row["generated_tokens"], row["thought_tokens"], row["seconds"])


def stored_session(row: RowMapping) -> StoredSession:
    """From a row of `sessions` joined with `progress` and, where there are such rows, `options` and `memory`."""
    return StoredSession(
        id=row["id"],
        created=row["created"],
        updated=row["updated"],
        agent=row["agent"],
        model=row["model"],
        fingerprint=row["fingerprint"],
        variant=row["variant"],
        system=row["system"],
        thinking=row["thinking"],
        sampling=Sampling(**row["sampling"]),
        tools_hash=row["tools_hash"],
        model_options=row["model_options"] or {},
        title=row["title"],
        steps=row["steps"],
        tokens=row["tokens"],
        usage=stored_usage(row),
        verdict=stored_verdict(row),
        memory=stored_memory(row),
    )


def stored_memory(row: RowMapping) -> MemoryUse | None:
    """From the columns of `memory`, all of them NULL where there is no such row."""
    return None if row["held"] is None else MemoryUse(row["held"], row["bytes"], row["plain_bytes"])


def summary(row: RowMapping) -> SessionSummary:
    """From the columns of a summary."""
    return SessionSummary(
        id=row["id"],
        created=row["created"],
        updated=row["updated"],
        title=row["title"],
        agent=row["agent"],
        model=row["model"],
        steps=row["steps"],
        tokens=row["tokens"],
        verdict=stored_verdict(row),
        memory=stored_memory(row),
    )


def stored_step(row: RowMapping) -> StoredStep:
    """From a row of `steps`."""
    return StoredStep(
        index=row["step"],
        kind=row["kind"],
        text=row["text"],
        thoughts=row["thoughts"],
        usage=stored_usage(row),
        verdict=stored_verdict(row),
        created=row["created"],
    )


def stored_call(row: RowMapping) -> StoredCall:
    """From a row of `calls`."""
    result = None
    if row["state"] == "done":
        error = None if row["error"] is None else ToolError(**row["error"])
        result = ToolResult(row["call_id"], row["name"], row["result"], error)
    return StoredCall(
        step=row["step"],
        index=row["position"],
        call_id=row["call_id"],
        name=row["name"],
        arguments=row["arguments"],
        effect=row["effect"],
        where=row["ran_in"],
        result=result,
        output=row["output"],
        started=row["started"],
        seconds=row["seconds"],
        repairs=tuple(row["repairs"] or ()),
        made_in=row["made_in"],
    )
