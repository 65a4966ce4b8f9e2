"""Runs one admitted call, in the sandbox or from this process, and turns whatever happens into one result."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import anyio

from g4agent.call_keys import VARIABLE, keyed
from g4agent.errors import BoxClosedError
from g4agent.image import Image
from g4agent.messages import JsonValue, ToolCall, ToolError, ToolResult
from g4agent.ports.sandbox import Box, ExecResult, PythonCall
from g4agent.secrets import Secrets
from g4agent.store.records import CallRecord
from g4agent.tools import CommandTarget, PythonTarget, Tool

IDLE = ToolError("timeout", "ended because it printed nothing for too long")
OUTPUT_CHARS = 20_000
"""Of a command's output, what the model is shown: head and tail."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A call's result and what people may want to know about how it came about."""

    result: ToolResult
    started: datetime | None
    """None where the call never ran."""
    seconds: float = 0.0
    output: str = ""
    """What a Python tool printed. The model does not see it."""
    degraded: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    """Those in the result, which itself only describes them."""


def refused(call: ToolCall, error: ToolError) -> Execution:
    """The execution of a call that never ran."""
    return Execution(ToolResult(call.id, call.name, error=error), None)


async def execute(call: ToolCall, tool: Tool, box: Box | None, timeout: float, secrets: Secrets, key: str) -> Execution:
    """Runs an admitted call for at most `timeout` seconds. `box` is needed where the tool runs in the sandbox.

    `key` is the call's idempotency key.

    The call is given those of the secrets that its tool names; whatever comes back has all of them masked.

    Raises nothing but cancellation: exceptions, timeouts and a broken box become the call's error.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    env = {**secrets.values(tool.secrets), VARIABLE: key}
    try:
        if tool.where != "sandbox":
            with secrets.granted(tool.secrets), keyed(key):
                outcome = await _on_host(call, tool, timeout)
        elif isinstance(tool.target, CommandTarget):
            assert box is not None
            argv = tool.target.expand(tool.bind(call.arguments))
            done = await box.exec(argv, timeout=timeout, env=env)
            outcome = _command_outcome(done, timeout, secrets)
        else:
            assert box is not None
            outcome = await _python_in_box(call, tool.target, box, timeout, env)
    except BoxClosedError as problem:
        outcome = _Outcome(error=ToolError("sandbox", f"the sandbox failed: {problem.message}"))
    error = outcome.error
    if error is not None:
        error = replace(error, message=secrets.mask(error.message), detail=secrets.mask(error.detail or "") or None)
    return Execution(
        ToolResult(call.id, call.name, secrets.mask_json(outcome.value), error),
        started,
        time.monotonic() - clock,
        secrets.mask(outcome.output),
        outcome.degraded,
        outcome.images,
    )


async def reconcile(
    call: ToolCall, tool: Tool, box: Box | None, timeout: float, secrets: Secrets, key: str
) -> Execution:
    """Finds out whether an interrupted attempt at a call did its work; runs the call only where it did not."""
    assert tool.reconcile is not None
    question = ToolCall(call.id, tool.reconcile.name, {"key": key})
    found = await execute(question, tool.reconcile, box, timeout, secrets, key)
    if found.result.error is None and found.result.value is None:
        return await execute(call, tool, box, timeout, secrets, key)
    error = found.result.error
    if error is not None:
        message = f"whether an earlier attempt has done it cannot be found out: {error.message}"
        error = ToolError(error.kind, message, error.detail)
    return replace(found, result=ToolResult(call.id, call.name, found.result.value, error))


@dataclass(frozen=True, slots=True)
class _Outcome:
    value: JsonValue = None
    error: ToolError | None = None
    output: str = ""
    degraded: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()


async def _on_host(call: ToolCall, tool: Tool, timeout: float) -> _Outcome:
    with anyio.move_on_after(timeout) as scope:
        try:
            images: list[Image] = []
            value = await tool.invoke(call.arguments, images)
            return _Outcome(value, images=tuple(images))
        except Exception as problem:
            detail = "".join(traceback.format_exception(problem, limit=-8))
            return _Outcome(error=ToolError("exception", f"{type(problem).__name__}: {problem}", detail))
    assert scope.cancelled_caught
    return _Outcome(error=_timeout_error(timeout))


async def _python_in_box(
    call: ToolCall, target: PythonTarget, box: Box, timeout: float, env: Mapping[str, str]
) -> _Outcome:
    request = PythonCall(target.module, target.attribute, call.arguments, target.file, env)
    outcome = await box.call(request, timeout=timeout)
    printed = _decode(outcome.process.stdout, outcome.process.omitted_stdout)
    printed += _decode(outcome.process.stderr, outcome.process.omitted_stderr)
    return _Outcome(outcome.value, outcome.error, printed, outcome.process.degraded, outcome.images)


def _command_outcome(done: ExecResult, timeout: float, secrets: Secrets) -> _Outcome:
    """A command's exit status and output are its value; a timeout or a memory kill is its error, output included."""
    value: dict[str, JsonValue] = {"exit_code": done.exit_code if done.exit_code is not None else -(done.signal or 0)}
    for name, data, omitted in (
        ("stdout", done.stdout, done.omitted_stdout),
        ("stderr", done.stderr, done.omitted_stderr),
    ):
        if data:
            value[name] = _shorten(secrets.mask(_decode(data, omitted)))  # first masked: no value is cut in two
    error = None
    if done.timed_out or done.idle or done.out_of_memory:
        what = ToolError("out_of_memory", "memory limit reached")
        if done.timed_out or done.idle:
            what = _timeout_error(timeout) if done.timed_out else IDLE
        tail = str(value.get("stdout", "")) + str(value.get("stderr", ""))
        error = ToolError(what.kind, what.message + (f"; output so far: {tail}" if tail else ""))
    return _Outcome(None if error else value, error, degraded=done.degraded)


def _timeout_error(seconds: float) -> ToolError:
    return ToolError("timeout", f"no result after {seconds:g} s")


def _decode(data: bytes, omitted: int) -> str:
    text = data.decode("utf-8", errors="replace")
    return f"{text}\n[{omitted} bytes left out]" if omitted else text


def _shorten(text: str) -> str:
    if len(text) <= OUTPUT_CHARS:
        return text
    head, tail = OUTPUT_CHARS * 2 // 5, OUTPUT_CHARS * 3 // 5
    return f"{text[:head]}\n[{len(text) - head - tail} characters left out]\n{text[-tail:]}"


def call_record(
    index: int, call: ToolCall, tool: Tool | None, execution: Execution | None = None, repairs: tuple[str, ...] = ()
) -> CallRecord:
    """A call as the store keeps it: an intent, or with its execution a call that is done."""
    return CallRecord(
        index=index,
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        effect=tool.effect if tool else None,
        where=tool.where if tool else None,
        result=execution.result if execution else None,
        output=execution.output if execution else "",
        started=execution.started if execution else None,
        seconds=execution.seconds if execution else 0.0,
        repairs=repairs,
    )
