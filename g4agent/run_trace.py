"""The spans and figures of a session's runs, made by watching their events.

    invoke_agent NAME            a run
      chat MODEL                 a model step
      execute_tool TOOL          a call, run or refused

Attributes follow OpenTelemetry's conventions for generative AI; g4agent's own begin with `g4agent.`.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from g4agent.events import (
    CallMalformed,
    CallReady,
    Event,
    GenerationFinished,
    RunFinished,
    RunStarted,
    StepStarted,
    TextDelta,
    ThoughtDelta,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)
from g4agent.messages import ToolCall
from g4agent.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from g4agent.session import Session
    from g4agent.telemetry import Instruments

NO_ERROR = frozenset({Outcome.DONE, Outcome.AWAITING_APPROVAL})
FINISH_REASONS = {"turn_end": "stop", "calls": "tool_call", "max_tokens": "length", "context_full": "length"}
UNKNOWN = "unknown"
"""In the place of a tool's name that the model has made up: it is content."""


class SessionTrace:
    """Watches the runs of one session, one after the other.

    Args:
        instruments: Where spans and figures go.
        session: Whose runs.
        agent: The agent's name.
        provider: Who runs the model: the runtime's package.
        system: The system turn.
    """

    def __init__(self, instruments: Instruments, session: Session, *, agent: str, provider: str, system: str) -> None:
        self.instruments = instruments
        self.session = session
        self.agent = PurePath(agent).name
        self.model = {"gen_ai.provider.name": provider, "gen_ai.request.model": session.model.name}
        self.system = system
        self.content = instruments.content
        self.read: int | None = None
        """Tokens that the conversation had appended when the last generation ended; None before the first."""
        self._run: _RunTrace | None = None

    async def watch(self, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Passes on the events of one run; all of its spans end with it."""
        self._run = run = _RunTrace(self)
        try:
            async with aclosing(events):
                async for event in events:
                    run.see(event)
                    yield event
        except Exception as problem:
            run.fail(problem)
            raise
        finally:
            run.end()

    @contextmanager
    def running(self, call: ToolCall) -> Iterator[None]:
        """Spans that a tool on the host makes stand below its call's."""
        assert self._run is not None
        token = attach(self._run.context_of(call))
        try:
            yield
        finally:
            detach(token)


class _RunTrace:
    def __init__(self, trace: SessionTrace) -> None:
        self._trace = trace
        self._verdict: Verdict | None = None
        self._error, self._reason = Outcome.INTERRUPTED.value, ""
        self._input_tokens = self._output_tokens = 0
        self._run = _Operation(
            trace, None, "invoke_agent", trace.agent, {"gen_ai.agent.name": trace.agent}, trace.model
        )
        self._context = set_span_in_context(self._run.span)
        self._chat: _Operation | None = None
        self._calls: dict[str, ToolCall] = {}
        self._tools: dict[str, _Operation] = {}
        self._input: list[Any] = []
        """Messages that the next model step is the first to read."""
        self._output: list[Any] = []
        """Parts of the message that the model is writing."""

    def see(self, event: Event) -> None:
        match event:
            case RunStarted(prompt=text) | UserSpoke(text):
                if text:
                    self._input.append({"role": "user", "parts": [{"type": "text", "content": text}]})
            case StepStarted():
                self._begin_chat()
            case ThoughtDelta(text):
                self._write("reasoning", text)
            case TextDelta(text):
                self._write("text", text)
            case CallReady(call) | CallMalformed(call):
                self._calls[call.id] = call
                self._output.append(
                    {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
                )
            case GenerationFinished():
                self._end_chat(event)
            case ToolStarted(call, where):
                self._tools[call.id] = self._begin_tool(call, where)
            case ToolFinished():
                self._end_tool(event)
            case RunFinished(verdict=verdict):
                self._verdict, self._error, self._reason = verdict, verdict.outcome.value, verdict.reason

    def fail(self, problem: Exception) -> None:
        self._error, self._reason = type(problem).__qualname__, str(problem)

    def end(self) -> None:
        """Ends what is still open, with what ended the run."""
        for operation in (self._chat, *self._tools.values()):
            if operation is not None:
                operation.end(error=self._error, reason=self._reason)
        if self._verdict is not None:
            self._run.span.set_attribute("g4agent.outcome", self._verdict.outcome.value)
        self._run.set_usage(self._input_tokens, self._output_tokens)
        if self._trace.system:
            self._run.tell("gen_ai.system_instructions", [{"type": "text", "content": self._trace.system}])
        fine = self._verdict is not None and self._verdict.outcome in NO_ERROR
        self._run.end(error=None if fine else self._error, reason=self._reason)

    # Model steps ------------------------------------------------------------------------------------------------------

    def _begin_chat(self) -> None:
        trace, sampling = self._trace, self._trace.session.sampling
        attributes: dict[str, str | int | float] = {
            "gen_ai.agent.name": trace.agent,
            "gen_ai.request.temperature": float(sampling.temperature),
            "gen_ai.request.top_p": float(sampling.top_p),
            "gen_ai.request.top_k": sampling.top_k,
            "gen_ai.request.seed": sampling.seed,
        }
        model = trace.session.model.name
        self._chat = _Operation(trace, self._context, "chat", model, attributes, trace.model)
        self._context_tokens = trace.session.conversation.length
        appended = trace.session.conversation.usage.prompt_tokens
        known = 0 if trace.read is None else self._context_tokens - (appended - trace.read)
        if known > 0:
            self._chat.span.set_attribute("gen_ai.usage.cache_read.input_tokens", known)
        self._chat.tell("gen_ai.input.messages", self._input)
        self._input, self._output = [], []

    def _end_chat(self, event: GenerationFinished) -> None:
        assert self._chat is not None
        trace, chat, reason = self._trace, self._chat, FINISH_REASONS[event.reason]
        trace.read = trace.session.conversation.usage.prompt_tokens
        read, written = self._context_tokens or event.usage.prompt_tokens, event.usage.generated_tokens
        self._input_tokens += read
        self._output_tokens += written
        chat.set_usage(read, written)
        chat.count_tokens(read, written)
        chat.span.set_attribute("gen_ai.response.finish_reasons", [reason])
        chat.tell("gen_ai.output.messages", [{"role": "assistant", "parts": self._output, "finish_reason": reason}])
        chat.end()
        self._chat = None

    def _write(self, kind: str, text: str) -> None:
        if not self._trace.content:
            return
        if not self._output or self._output[-1]["type"] != kind:
            self._output.append({"type": kind, "content": ""})
        self._output[-1]["content"] += text

    # Calls ------------------------------------------------------------------------------------------------------------

    def _begin_tool(self, call: ToolCall, where: str | None = None) -> _Operation:
        tool = self._trace.session.tools.get(call.name)
        name = call.name if tool is not None or self._trace.content else UNKNOWN
        attributes = {"gen_ai.tool.call.id": call.id, "gen_ai.tool.type": "function"}
        if tool is not None:
            attributes["gen_ai.tool.description"] = tool.description
        if where is not None:
            attributes["g4agent.tool.where"] = where
        operation = _Operation(self._trace, self._context, "execute_tool", name, attributes, {"gen_ai.tool.name": name})
        operation.tell("gen_ai.tool.call.arguments", call.arguments)
        return operation

    def context_of(self, call: ToolCall) -> Context:
        return set_span_in_context(self._tools[call.id].span)

    def _end_tool(self, event: ToolFinished) -> None:
        result = event.result
        call = self._calls.pop(result.call_id)
        operation = self._tools.pop(call.id, None) or self._begin_tool(call)
        response = result.response()
        operation.tell("gen_ai.tool.call.result", response)
        part = {"type": "tool_call_response", "id": result.call_id, "response": response}
        self._input.append({"role": "tool", "parts": [part]})
        error, reason = (None, "") if result.error is None else (result.error.kind, result.error.message)
        operation.end(error=error, reason=reason, seconds=event.seconds)


class _Operation:
    """A span, and its figures.

    Args:
        trace: Of the session.
        parent: None: what the program that called has under way.
        name: The kind of operation.
        subject: What the span's name says beside it.
        attributes: Of the span.
        labels: Of the span and of the figures.
    """

    def __init__(
        self,
        trace: SessionTrace,
        parent: Context | None,
        name: str,
        subject: str,
        attributes: Mapping[str, str | int | float],
        labels: Mapping[str, str],
    ) -> None:
        self._trace = trace
        self._labels = {"gen_ai.operation.name": name, **labels}
        self._began = time.time_ns()
        all_attributes = {**self._labels, **attributes, "gen_ai.conversation.id": trace.session.id}
        self.span = trace.instruments.tracer.start_span(
            f"{name} {subject}", parent, SpanKind.INTERNAL, all_attributes, start_time=self._began
        )

    def tell(self, name: str, content: Any) -> None:
        """An attribute that holds content, where that is wanted."""
        if self._trace.content:
            self.span.set_attribute(name, json.dumps(content, ensure_ascii=False))

    def set_usage(self, read: int, written: int) -> None:
        """Tokens; none where the model does not count them."""
        if read or written:
            self.span.set_attributes({"gen_ai.usage.input_tokens": read, "gen_ai.usage.output_tokens": written})

    def count_tokens(self, read: int, written: int) -> None:
        for kind, count in (("input", read), ("output", written)):
            if count:
                self._trace.instruments.tokens.record(count, {**self._labels, "gen_ai.token.type": kind})

    def end(self, *, error: str | None = None, reason: str = "", seconds: float | None = None) -> None:
        """Ends the span now, or `seconds` after its start. The reason of an error may quote content."""
        ended = time.time_ns() if seconds is None else self._began + int(seconds * 1e9)
        failed = {} if error is None else {"error.type": error}
        if error is not None:
            self.span.set_attributes(failed)
            self.span.set_status(StatusCode.ERROR, reason if self._trace.content else None)
        self._trace.instruments.seconds.record(max(0, ended - self._began) / 1e9, {**self._labels, **failed})
        self.span.end(ended)
