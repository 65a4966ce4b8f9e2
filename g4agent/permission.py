"""Whether a session's calls may run: the policy's rules, and a person's word where they ask for one.

A person answers at once (a callback), or later: then the question is stored, the run stops, its process may end, and
whoever takes the session up again finds the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import anyio.to_thread

from g4agent.cost import cost_of
from g4agent.events import CallSignals
from g4agent.messages import ToolCall, call_identity
from g4agent.policy import Approve, CallContext, Policy, Ruling
from g4agent.store.records import CallRecord, Question, still_open
from g4agent.tools import Tool
from g4agent.toolset import ToolSet

if TYPE_CHECKING:
    from g4agent.store.people import Questions

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may run; `question` is the stored one that was answered so."""

    question: str | None = None
    earlier: CallRecord | None = None
    """An attempt at the very call whose outcome is unknown, to be found out first."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The call may not run."""

    reason: str
    question: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """The call waits for the answer to a stored question."""

    question: str
    reason: str


Permission: TypeAlias = Granted | Denied | Waiting


class Permissions:
    """Decides about the calls of one session.

    Args:
        session_id: The session.
        tools: Its tools.
        policy: The rules.
        approve: Who is asked: a callback; `later`, whoever reads the store; or nobody, which means no.
        questions: The store's questions; None where nothing is kept.
    """

    def __init__(
        self,
        session_id: str,
        tools: ToolSet,
        policy: Policy,
        approve: Approve | Literal["later"] | None,
        questions: Questions | None,
    ) -> None:
        self._session_id = session_id
        self._tools = tools
        self._policy = policy
        self._approve = approve
        self._questions = questions
        self._ran = Counter[str]()
        self._spent = 0.0
        self._untrusted: dict[str, None] = {}
        self.unresolved: Sequence[CallRecord] = ()
        """Calls of an earlier process with unknown outcome. A `once` call among them runs again only if approved."""

    def note(self, calls: Sequence[CallRecord]) -> None:
        """Takes note of calls that have come to a result."""
        for call in calls:
            if call.started is None or call.result is None:
                continue
            self._ran[call.name] += 1
            tool = self._tools.get(call.name)
            if tool is None:
                continue
            self._spent += cost_of(tool, call.arguments)
            if tool.untrusted:
                self._untrusted[call.name] = None
        self.unresolved = still_open(self.unresolved, calls)

    async def decide(
        self,
        call: ToolCall,
        tool: Tool,
        signals: CallSignals | None,
        taken: Collection[str],
        admitted: Sequence[tuple[ToolCall, Tool]],
    ) -> Permission:
        """What becomes of a valid call.

        Args:
            call: The call.
            tool: Its tool.
            signals: How sure the model was of it.
            taken: Stored questions that belong to other calls of the same step.
            admitted: Calls of the same step that are going to run.
        """
        earlier = self._interrupted(call)
        ruling = self._rule(self._context(call, tool, signals, admitted), earlier)
        earlier = earlier if tool.reconcile is not None else None
        if ruling.decision == "allow":
            return Granted(earlier=earlier)
        if ruling.decision == "deny":
            return Denied(f"{tool.name} is not allowed: {ruling.reason}")
        asked = await self._stored(call, taken)
        if asked is not None and asked.approved is not None:
            if asked.approved:
                return Granted(asked.id, earlier)
            comment = f" ({asked.comment})" if asked.comment else ""
            return Denied(f"{tool.name} was not approved{comment}", asked.id)
        if callable(self._approve):
            approved = await self._approve(call, tool, ruling.reason)
            return Granted(None, earlier) if approved else Denied(f"{tool.name} was not approved: {ruling.reason}")
        if self._approve == "later":
            return Waiting(asked.id if asked else await self._ask(call, ruling.reason), ruling.reason)
        return Denied(f"{tool.name} was not approved, nobody could be asked: {ruling.reason}")

    async def settle(self, questions: Sequence[str]) -> None:
        """Uses up the answers that a step's calls are about to be given: each stands for one call only."""
        if self._questions is not None:
            for id in questions:
                await _in_thread(partial(self._questions.mark_used, id))

    async def withdraw(self) -> None:
        """Takes back what nobody has answered: its turn is over."""
        if self._questions is not None:
            await _in_thread(partial(self._questions.withdraw, self._session_id))

    def _interrupted(self, call: ToolCall) -> CallRecord | None:
        """An earlier attempt at this very `once` call with unknown outcome."""
        again = call_identity(call.name, call.arguments)
        return next((c for c in self.unresolved if c.effect == "once" and c.identity == again), None)

    def _context(
        self, call: ToolCall, tool: Tool, signals: CallSignals | None, admitted: Sequence[tuple[ToolCall, Tool]]
    ) -> CallContext:
        return CallContext(
            call,
            tool,
            signals,
            untrusted=tuple(self._untrusted),
            earlier=self._ran[tool.name] + sum(other.name == tool.name for other, _ in admitted),
            cost=cost_of(tool, call.arguments),
            spent=self._spent + sum(cost_of(its, other.arguments) for other, its in admitted),
        )

    def _rule(self, context: CallContext, earlier: CallRecord | None) -> Ruling:
        ruling = self._policy.decide(context)
        if ruling.decision != "deny" and earlier is not None and context.tool.reconcile is None:
            return Ruling("ask", "an earlier attempt at this very call was interrupted, its outcome is unknown")
        return ruling

    async def _stored(self, call: ToolCall, taken: Collection[str]) -> Question | None:
        """The first question about this very call that is not used up, nor about another call of the step."""
        if self._questions is None:
            return None
        identity = call_identity(call.name, call.arguments)
        stored = await _in_thread(partial(self._questions.of, self._session_id))
        return next((q for q in stored if q.identity == identity and not q.used and q.id not in taken), None)

    async def _ask(self, call: ToolCall, reason: str) -> str:
        assert self._questions is not None, "an agent that asks later keeps its sessions"
        ask = partial(self._questions.ask, self._session_id, call.id, call.name, call.arguments, reason)
        return await _in_thread(ask)


async def _in_thread(function: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(function)
