"""What happens in a run, for Python's `logging`: a record per event on the logger `g4agent.run`.

Records say what was done, how long it took and how it ended; never what was said: no prompts, thoughts, answers,
arguments, results, nor the texts of tools' errors. So they may go where the store may not.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from g4agent.errors import ConfigError
from g4agent.events import (
    ApprovalAsked,
    CallMalformed,
    Event,
    NetworkAttempt,
    PagesLost,
    RunContinued,
    RunFinished,
    RunPaused,
    RunStarted,
    StepFinished,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)
from g4agent.messages import JsonValue

LOGGER = logging.getLogger("g4agent.run")
LOGGER.addHandler(logging.NullHandler())  # else Python prints the warnings of a program that configures no logging

_PLAIN = re.compile(r"[\w.:/+-]+")


async def logged(events: AsyncGenerator[Event, None], session_id: str) -> AsyncGenerator[Event, None]:
    """The same events, each that tells of something done or begun also written to the log."""
    async with aclosing(events):
        async for event in events:
            noted = _noted(event)
            if noted is not None and LOGGER.isEnabledFor(noted[0]):
                level, fields = noted
                fields = {"event": event.type, "session": session_id, **fields}
                LOGGER.log(level, " ".join(_pair(*item) for item in fields.items()), extra={"g4agent": fields})
            yield event


def _noted(event: Event) -> tuple[int, dict[str, JsonValue]] | None:
    """Level and fields of the record; None for an event that is content, or part of another one."""
    match event:
        case RunStarted(model=model, thinking=thinking, seed=seed):
            return logging.INFO, {"model": model, "thinking": thinking, "seed": seed}
        case StepFinished(step, usage):
            return logging.INFO, {"step": step, **asdict(usage)}
        case ToolStarted(call, where):
            return logging.INFO, {"call": call.id, "tool": call.name, "where": where}
        case ToolFinished(result, seconds, degraded=degraded):
            if result.error is None:
                fields: dict[str, JsonValue] = {"call": result.call_id, "tool": result.name, "seconds": seconds}
                return logging.INFO, fields | ({"degraded": list(degraded)} if degraded else {})
            known = {} if result.error.kind == "unknown_tool" else {"tool": result.name}
            error = result.error.kind
            return logging.WARNING, {"call": result.call_id, **known, "seconds": seconds, "error": error}
        case CallMalformed(call, error=problem):
            return logging.WARNING, {"call": call.id, "error": problem.kind}
        case ApprovalAsked(question, call):
            return logging.INFO, {"question": question, "call": call.id, "tool": call.name}
        case NetworkAttempt(host, port, allowed, reason, count):
            level = logging.INFO if allowed else logging.WARNING
            return level, {"host": host, "port": port, "allowed": allowed, "reason": reason, "count": count}
        case PagesLost(problem):
            return logging.WARNING, {"problem": problem}
        case RunFinished(verdict=verdict, usage=usage, steps=steps):
            level = logging.INFO if verdict.ok else logging.WARNING
            return level, {"outcome": verdict.outcome.value, "reason": verdict.reason, "steps": steps, **asdict(usage)}
        case RunPaused() | RunContinued() | UserSpoke():
            return logging.INFO, {}
        case _:
            return None


def _pair(name: str, value: JsonValue) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={text if _PLAIN.fullmatch(text) else json.dumps(text)}"


class JsonFormatter(logging.Formatter):
    """A JSON object per record: `time` (UTC), `level`, `logger`, then the fields; of other loggers the `message`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "g4agent", None)
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(fields if isinstance(fields, Mapping) else {"message": record.getMessage()}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_file(path: Path) -> None:
    """Appends everything that g4agent logs to a file, as JSON lines. Raises ConfigError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the log {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("g4agent")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
