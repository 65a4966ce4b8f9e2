"""What goes into the store and comes out of it: plain frozen values, free of database code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from g4agent.context.ladder import Rung
from g4agent.events import Usage
from g4agent.image import Image, Prompt, parts_of
from g4agent.messages import JsonValue, ToolResult, call_identity
from g4agent.ports.runtime import MemoryUse, SampledToken, Sampling, TranscriptDelta
from g4agent.verdict import Verdict

if TYPE_CHECKING:
    from g4agent.tools import Effect

ENDED_FROM_OUTSIDE = frozenset({"cancelled", "timeout", "out_of_memory", "sandbox"})
"""Kinds of errors after which nobody knows what the tool had done."""

UNFINISHED = "unfinished"
"""Status of a session whose last run has no verdict: it goes on in some process, or died without a word."""


SESSION_OPTIONS = ("dtype", "context_length", "kv_bits", "kv_sliding_bits", "head_bits")
"""Of a model's options, those that decide what is computed and kept. They belong to a session; the others, such as the
device and the room for keys and values, to the machine."""


def session_options(given: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Of the options that a model was loaded with, those in `SESSION_OPTIONS` that were given."""
    values = {name: given.get(name) for name in SESSION_OPTIONS}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """What a session is begun with. Never changed afterwards."""

    agent: str
    """How to find the agent again: `module:attribute`, or the path of a file."""
    model: str
    fingerprint: str
    """Weights and tokenizer, as in `ModelInfo.fingerprint`: a transcript is only valid for the same one."""
    variant: Literal["small", "large"]
    system: str
    thinking: bool
    sampling: Sampling
    """With the seed."""
    tools_hash: str
    """Hash of the tool declarations that stand in the system turn."""
    model_options: Mapping[str, JsonValue] = field(default_factory=dict)
    """Of the model's options, those that decide what is computed and kept: see `SESSION_OPTIONS`. What is not in it was
    not given, or is not known: in sessions older than this field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession(NewSession):
    """A session as it was last committed."""

    id: str
    created: datetime
    updated: datetime
    title: str
    """First line of the first prompt."""
    steps: int
    """Steps committed; also the index of the next one."""
    tokens: int
    """Length of the transcript."""
    usage: Usage
    verdict: Verdict | None
    """How the last run ended; None while it has not."""
    memory: MemoryUse | None = None
    """None where it is not known."""

    @property
    def interrupted(self) -> bool:
        """True where a user turn has begun and not come to its end, so that it can be taken up again."""
        return self.steps > 0 and (self.verdict is None or self.verdict.resumable)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSummary:
    """One line of a list of sessions. Times are UTC."""

    id: str
    created: datetime
    updated: datetime
    title: str
    agent: str
    model: str
    steps: int
    tokens: int
    verdict: Verdict | None
    memory: MemoryUse | None = None
    """None where it is not known."""

    @property
    def status(self) -> str:
        """The outcome of the last run, or `unfinished`."""
        return UNFINISHED if self.verdict is None else self.verdict.outcome.value


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord:
    """One tool call: an intent while `result` is None, done afterwards."""

    index: int
    """Place among the calls of its step."""
    call_id: str
    name: str
    arguments: Mapping[str, JsonValue]
    effect: Effect | None = None
    """None where the tool is not known."""
    where: Literal["sandbox", "host", "box"] | None = None
    """None where the tool is not known."""
    result: ToolResult | None = None
    output: str = ""
    """What the tool printed; the model has not seen it."""
    started: datetime | None = None
    """When it began to run, or was journaled; None where it never ran."""
    seconds: float = 0.0
    """Time that the call took."""
    repairs: tuple[str, ...] = ()
    """What had to be mended in the call's syntax."""
    made_in: str | None = None
    """The session that made the call and whose id is in its idempotency key; None: the one that it stands in."""

    def __post_init__(self) -> None:
        assert self.result is None or (self.result.call_id, self.result.name) == (self.call_id, self.name)

    @property
    def identity(self) -> tuple[str, str]:
        """See `call_identity`."""
        return call_identity(self.name, self.arguments)

    @property
    def outcome_unknown(self) -> bool:
        """True where the call began and may or may not have done its work: no result, or one that says it was ended."""
        if self.result is None:
            return True
        error = self.result.error
        return self.started is not None and error is not None and error.kind in ENDED_FROM_OUTSIDE


def still_open(before: Iterable[CallRecord], step: Sequence[CallRecord]) -> list[CallRecord]:
    """Calls whose outcome is unknown after a step.

    Args:
        before: Those that were open before it. One is settled by the very same call coming to an end in this step.
        step: All calls of the step.
    """
    settled = {call.identity for call in step if call.started is not None and not call.outcome_unknown}
    return [*(c for c in before if c.identity not in settled), *(c for c in step if c.outcome_unknown)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall(CallRecord):
    """A call as it stands in the store."""

    step: int


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model sampled in one step and under which limits: enough to make the step again without the model."""

    max_tokens: int
    thought_limit: int | None
    tokens: tuple[SampledToken, ...]
    """Everything that was sampled or forced by the engine, stop token included; not what the conversation appended."""


StepKind: TypeAlias = Literal["user", "model"] | Rung
"""A user turn, a model step, or a rung of the context ladder, which only changes the transcript."""


@dataclass(frozen=True, slots=True)
class StepImage:
    """An image that the model was given in a step."""

    image: Image
    call_id: str | None = None
    """The call whose result it was in; None: a person's."""
    place: int = 0
    """Of a person's: how many characters of the step's text stand before it."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Everything that one step changes. It is committed as a whole or not at all."""

    index: int
    """Steps are counted from 0 within the session, user turns and model steps alike."""
    kind: StepKind
    delta: TranscriptDelta
    usage: Usage = field(default_factory=Usage)
    text: str = ""
    """The prompt of a user turn; the visible text of a model step; the summary, or the trimmed results' call ids, of a
    rung."""
    thoughts: str = ""
    generation: Generation | None = None
    """Of a model step, or of a summary; None for a model that gives no tokens, and where it was journaled already."""
    calls: tuple[CallRecord, ...] = ()
    """All calls of the step, each with its result."""
    workspace: bytes | None = None
    """Snapshot of the workspace after the step; None: as before."""
    verdict: Verdict | None = None
    """Set where the step ended the run."""
    memory: MemoryUse | None = None
    """What the session's keys and values take after the step; None: as before, or not known."""
    images: tuple[StepImage, ...] = ()
    """In the order of the prompt or of the calls."""

    def __post_init__(self) -> None:
        assert self.index >= 0 and self.delta.start >= 0
        assert all(call.result is not None for call in self.calls), "every call gets a result"


def placed(prompt: Prompt) -> tuple[StepImage, ...]:
    """A prompt's images, each with its place in the prompt's text."""
    images, length = list[StepImage](), 0
    for part in () if isinstance(prompt, str) else parts_of(prompt):
        if isinstance(part, Image):
            images.append(StepImage(part, place=length))
        else:
            length += len(part)
    return tuple(images)


def put_together(text: str, images: Iterable[StepImage]) -> Prompt:
    """The prompt that has become a user step of this text and these images."""
    parts, at = list[str | Image](), 0
    for each in images:
        parts += [text[at : each.place], each.image]
        at = each.place
    return [*parts, text[at:]] if parts else text


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """A committed step. Its calls are read with `Store.calls`, its tokens with `Store.transcript`."""

    index: int
    kind: StepKind
    text: str
    thoughts: str
    usage: Usage
    verdict: Verdict | None
    created: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A call that a person was asked about, and their answer."""

    id: str
    session_id: str
    created: datetime
    call_id: str
    name: str
    arguments: Mapping[str, JsonValue]
    reason: str
    approved: bool | None = None
    """None while nobody has answered."""
    answered: datetime | None = None
    comment: str = ""
    used: bool = False
    """True once the call that was asked about has run, or was refused: it then stands for no other."""

    @property
    def identity(self) -> tuple[str, str]:
        """See `call_identity`."""
        return call_identity(self.name, self.arguments)


OrderKind = Literal["stop", "pause", "resume", "say"]


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody tells a running session to do; `text` is what to say."""

    kind: OrderKind
    text: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who drives a session, and until when unless it is renewed."""

    owner: str
    host: str
    pid: int
    process_start: str
    expires: float
    """Unix time by the database's clock."""
