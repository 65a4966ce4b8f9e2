"""Reads what came back from a box: every byte of it may have been made up by code in the box."""

from __future__ import annotations

import base64
import json
import signal
from typing import cast

from g4agent.errors import ImageError
from g4agent.image import Image
from g4agent.messages import JsonValue, ToolError, ToolErrorKind
from g4agent.ports.sandbox import ExecResult, Limits, MiB, PythonOutcome
from g4agent_box.channel import Reply


def tool_outcome(result: ExecResult, answer: bytes, limits: Limits) -> PythonOutcome:
    """What a Python tool's call came to, from the fate of its process and the bytes of its result pipe."""
    error: ToolError | None = None
    if result.timed_out:
        error = ToolError("timeout", f"no result after {result.wall_seconds:.3g} s")
    elif result.idle:
        error = ToolError("timeout", f"ended after {limits.idle_seconds:g} s without output")
    elif result.out_of_memory:
        error = ToolError("out_of_memory", f"the memory limit of {limits.memory_bytes // MiB} MiB was reached")
    elif answer:
        return _decode_answer(answer, result)
    elif result.omitted_stdout + result.omitted_stderr and result.signal == signal.SIGKILL:
        error = ToolError("exception", "the tool printed far more than the output limit and was stopped")
    elif result.signal is not None:
        known = {each.value: each.name for each in signal.Signals}
        name = known.get(result.signal, f"signal {result.signal}")
        error = ToolError("exception", f"the tool's process was killed by {name}")
    else:
        error = ToolError("exception", f"the tool ended its process with exit code {result.exit_code}")
    return PythonOutcome(None, error, result)


def _decode_answer(answer: bytes, result: ExecResult) -> PythonOutcome:
    """`{"value": …, "images": […]}` or `{"error": …}`, written by a process that ran the tool's code: it may be
    anything."""
    try:
        document = json.loads(answer, parse_constant=_refuse_constant)
        if "error" not in document:
            images = tuple(
                Image(
                    base64.b64decode(each["data"], validate=True), name=str(each["name"])[:200], tokens=each["tokens"]
                )
                for each in document.get("images", ())
            )
            return PythonOutcome(cast(JsonValue, document["value"]), None, result, images)
        error = document["error"]
        kind: ToolErrorKind = "invalid_arguments" if error["kind"] == "invalid_arguments" else "exception"
        return PythonOutcome(None, ToolError(kind, str(error["message"]), str(error.get("detail", ""))), result)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ImageError):
        return PythonOutcome(None, ToolError("exception", "the tool garbled its own result"), result)


def _refuse_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def parse_reply(reply: Reply) -> tuple[ExecResult, bytes] | None:
    """The fate of a process and the bytes of its result pipe; None where code in the box forged the answer."""
    try:
        return _read(reply)
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _read(reply: Reply) -> tuple[ExecResult, bytes]:
    head = reply.head
    out, err, _ = head["lengths"]
    totals = head["totals"]
    result = ExecResult(
        exit_code=head["exit_code"],
        signal=head.get("signal"),
        stdout=reply.body[:out],
        stderr=reply.body[out : out + err],
        omitted_stdout=totals[0] - out,
        omitted_stderr=totals[1] - err,
        timed_out=head.get("timed_out", False),
        idle=head.get("idle", False),
        wall_seconds=head.get("wall_seconds", 0.0),
        cpu_seconds=head.get("cpu_seconds", 0.0),
        peak_memory_bytes=head.get("peak_memory_bytes"),
    )
    return result, reply.body[out + err :]
