"""Everything that happens in a run, as one typed stream: `stream()`, `run()`, the CLI and the tests all read it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from g4agent.context.ladder import Rung
from g4agent.context.ledger import Ledger
from g4agent.messages import ToolCall, ToolError, ToolResult
from g4agent.verdict import Verdict

EVENT_SCHEMA_VERSION = 1
"""Of docs/events.schema.json. It changes when a field or an event is renamed, removed or given another meaning; what is
added changes nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used, in tokens and seconds. Sums over a step, or over a run."""

    prompt_tokens: int = 0
    """Tokens appended by force: system turn, user turns, tool responses."""
    generated_tokens: int = 0
    """Tokens sampled by the model, thoughts included."""
    thought_tokens: int = 0
    seconds: float = 0.0

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens - other.prompt_tokens,
            self.generated_tokens - other.generated_tokens,
            self.thought_tokens - other.thought_tokens,
            self.seconds - other.seconds,
        )

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.generated_tokens + other.generated_tokens,
            self.thought_tokens + other.thought_tokens,
            self.seconds + other.seconds,
        )


# What a conversation yields while the model generates -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """Text inside a thought channel."""

    type: ClassVar[str] = "thought_delta"
    text: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that is meant for the user."""

    type: ClassVar[str] = "text_delta"
    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """Raw text of a call that is being written; `index` counts the calls of the step."""

    type: ClassVar[str] = "call_delta"
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallSignals:
    """How sure the model was of a call, from 0 to 1. What the mask left no choice in counts as certain."""

    tool: float
    """Probability of the tool's name, among those that the mask allowed."""
    arguments: float
    """Probability of all arguments, given the tool."""
    mask_pressure: float
    """Probability that the model, left alone, would have broken the grammar somewhere in this call."""


@dataclass(frozen=True, slots=True)
class CallReady:
    """A call is complete and parsed. `repairs` names what had to be mended; empty where the call was strictly valid."""

    type: ClassVar[str] = "call_ready"
    call: ToolCall
    repairs: tuple[str, ...] = ()
    signals: CallSignals | None = None


@dataclass(frozen=True, slots=True)
class CallMalformed:
    """A call that could not be parsed, nor repaired without guessing. It gets an error as its result."""

    type: ClassVar[str] = "call_malformed"
    call: ToolCall
    raw: str
    error: ToolError


@dataclass(frozen=True, slots=True)
class GenerationFinished:
    """The model step is over."""

    type: ClassVar[str] = "generation_finished"
    reason: Literal["turn_end", "calls", "max_tokens", "context_full"]
    usage: Usage
    thought_closed: bool = False
    """True where the thought budget ran out and the channel was closed by force."""


ModelEvent: TypeAlias = ThoughtDelta | TextDelta | CallDelta | CallReady | CallMalformed | GenerationFinished

# What the planner adds ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A user turn begins, or an interrupted one goes on: then there is no prompt."""

    type: ClassVar[str] = "run_started"
    session_id: str
    model: str
    prompt: str
    thinking: bool
    seed: int
    schema: int = EVENT_SCHEMA_VERSION
    """Version of the schema of this and the following events."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The model begins to write."""

    type: ClassVar[str] = "step_started"
    step: int


@dataclass(frozen=True, slots=True)
class RunPaused:
    """Somebody told the run to wait. Waiting does not count against the time budget."""

    type: ClassVar[str] = "run_paused"


@dataclass(frozen=True, slots=True)
class RunContinued:
    """Somebody told the run to go on."""

    type: ClassVar[str] = "run_continued"


@dataclass(frozen=True, slots=True)
class UserSpoke:
    """Somebody said something to the model while it was at work; it begins a new user turn of the same run."""

    type: ClassVar[str] = "user_spoke"
    text: str


@dataclass(frozen=True, slots=True)
class ApprovalAsked:
    """A call waits for a person. The run ends here, to go on when the question is answered and the session resumed."""

    type: ClassVar[str] = "approval_asked"
    question: str
    """Its id in the store."""
    call: ToolCall
    reason: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A validated and allowed call starts. `where` says whether it runs in the sandbox, in a closed box of its own
    or, by name, on the host."""

    type: ClassVar[str] = "tool_started"
    call: ToolCall
    where: Literal["sandbox", "host", "box"]


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """Every call of a finished step gets exactly one of these, whether it ran or not."""

    type: ClassVar[str] = "tool_finished"
    result: ToolResult
    seconds: float
    output: str = ""
    """What the tool printed, head and tail. For people: the model only sees the result."""
    degraded: tuple[str, ...] = ()
    """Limits that the sandbox did not enforce, each allowed by name."""


@dataclass(frozen=True, slots=True)
class NetworkAttempt:
    """Something in the box asked for a connection to the network. Comes before the results of its step's calls."""

    type: ClassVar[str] = "network_attempt"
    host: str
    port: int
    """0 where the request named none."""
    allowed: bool
    reason: str = ""
    """Why it was denied."""
    count: int = 1
    """How often the very same was tried in a row of calls."""


@dataclass(frozen=True, slots=True)
class PagesLost:
    """Saved keys and values could not be read or kept. Their tokens are computed again; nothing else is lost."""

    type: ClassVar[str] = "pages_lost"
    problem: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The step is committed: transcript, calls, results, budget and workspace."""

    type: ClassVar[str] = "step_finished"
    step: int
    usage: Usage
    context: Ledger | None = None
    """What the context window is filled with; None for a model that gives no tokens."""


@dataclass(frozen=True, slots=True)
class ContextReduced:
    """Room was made in the context window, by one rung of the ladder. Committed as a step of its own: a fork at the
    step before has the transcript of before. The store keeps all results and generations, whatever is taken out."""

    type: ClassVar[str] = "context_reduced"
    step: int
    rung: Rung
    before: int
    """Length of the transcript in tokens."""
    after: int
    usage: Usage
    """What it took: tokens that have to be computed again, and the generation of a summary."""
    trimmed: tuple[str, ...] = ()
    """Ids of the calls whose results the transcript now shows in part only."""
    summary: str = ""
    """What now stands in the place of older turns."""


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The last event of a run that came to a verdict. A run that is cancelled, or fails by an exception, has none."""

    type: ClassVar[str] = "run_finished"
    session_id: str
    verdict: Verdict
    answer: str
    usage: Usage
    steps: int


@dataclass(frozen=True, slots=True)
class WorkspaceChanged:
    """Runs on a copy of a folder only: what is different in the copy at the end."""

    type: ClassVar[str] = "workspace_changed"
    files: tuple[str, ...]
    diff: str
    """As `git apply` takes it; empty where nothing changed."""
    left_out: tuple[str, ...] = ()
    """Changes that may not be taken over, each with the reason."""


@dataclass(frozen=True, slots=True)
class ChangesSettled:
    """What became of the changes."""

    type: ClassVar[str] = "changes_settled"
    action: Literal["apply", "patch", "branch", "discard"]
    where: str
    """The folder, the patch's file, or the branch with its commit."""


@dataclass(frozen=True, slots=True)
class CheckFinished:
    """Headless runs only: what an expectation came to."""

    type: ClassVar[str] = "check_finished"
    name: str
    passed: bool
    ran: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RunJudged:
    """Headless runs only, and their last event: the verdict that counts, checks included."""

    type: ClassVar[str] = "run_judged"
    verdict: Verdict
    exit_code: int


Event: TypeAlias = (
    ModelEvent
    | RunStarted
    | RunPaused
    | RunContinued
    | UserSpoke
    | StepStarted
    | ApprovalAsked
    | ToolStarted
    | NetworkAttempt
    | ToolFinished
    | PagesLost
    | StepFinished
    | ContextReduced
    | RunFinished
    | WorkspaceChanged
    | ChangesSettled
    | CheckFinished
    | RunJudged
)


def to_json(event: Event) -> dict[str, Any]:
    """One JSON object for the event, as `g4agent run --json` prints it: its `type`, then its fields."""
    return {"type": event.type, **dataclasses.asdict(event)}
