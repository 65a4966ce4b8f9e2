"""The rungs of the ladder on a conversation: what each would leave of its transcript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from g4agent.context import rungs
from g4agent.context.ladder import ContextLadder, Rung
from g4agent.gemma4.aside import ask_aside, fits
from g4agent.gemma4.conversation import CLOSE, ERROR, NativeConversation
from g4agent.gemma4.sections import Section, read_sections
from g4agent.messages import ToolResult
from g4agent.ports.runtime import ConversationSetup, Sampling

QUESTION = (
    "Sum up this conversation for yourself in at most {words} words: what was asked for; what was done and found out, "
    "with the names, numbers, ids and paths that are still needed; what is left to do. Older turns are about to be "
    "taken out, and only the summary stays. Write nothing but the summary, and call no tool."
)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A transcript that a rung has made shorter."""

    tokens: list[int]
    trimmed: tuple[str, ...] = ()
    """Ids of the calls whose results were trimmed."""
    summary: str = ""

    @property
    def text(self) -> str:
        """What the store keeps of it beside the tokens."""
        return self.summary or " ".join(self.trimmed)


class Reducer:
    """Climbs the ladder for one conversation.

    Args:
        conversation: Between two generations, wherever a method is called.
        ladder: The rules.
        setup: Of the conversation.
    """

    def __init__(self, conversation: NativeConversation, ladder: ContextLadder, setup: ConversationSetup) -> None:
        self.conversation = conversation
        self.ladder = ladder
        self._shelf = setup.shelf
        self._has_system = setup.has_system_turn
        self.usable = max(1, conversation.info.context_length - CLOSE - ERROR)
        """Tokens of the window that are not kept free for the end of a turn."""
        self.summary_tokens = max(1, min(ladder.summary_tokens, self.usable // 8))

    async def rewritten(
        self, rung: Rung, recent: int, sampling: Sampling, stopping: Callable[[], bool] = lambda: False
    ) -> Rewritten | None:
        """What a rung leaves where the last `recent` steps stay as they are; None where it would gain nothing."""
        if rung == "summarise":
            new = await self._summarised(recent, sampling, stopping)
        elif rung == "trim_results":
            new = None if self._shelf is None else self.trimmed(recent, await self._shelf.source())
        else:
            new = self.without_thoughts(recent)
        return new if new is not None and len(new.tokens) < self.conversation.length else None

    def trimmed(self, recent: int, results: Sequence[ToolResult]) -> Rewritten:
        """With a head, a tail and a handle in the place of older results that are long."""
        tokens, sections, end = self._read(recent)
        if self._shelf is None:
            return Rewritten(tokens)
        limit = max(1, min(self.ladder.result_tokens, self.usable // 8))
        new, calls = rungs.trim_results(tokens, sections, end, results, limit, self.conversation.tokenizer)
        return Rewritten(self.conversation.with_tool(new, self._shelf.tool) if calls else new, tuple(calls))

    def without_thoughts(self, recent: int) -> Rewritten:
        """Without older thoughts."""
        return Rewritten(rungs.drop_thoughts(*self._read(recent)))

    def summed_up(self, recent: int, text: str) -> Rewritten | None:
        """With a summary in the place of older turns; None where there are none."""
        tokens, sections, end = self._read(recent)
        if (cut := rungs.summary_cut(sections, end)) is None:
            return None
        return Rewritten(rungs.with_summary(tokens, sections, cut, text, self.conversation.tokenizer), summary=text)

    async def ask(
        self, recent: int, max_tokens: int, sampling: Sampling, stopping: Callable[[], bool] = lambda: False
    ) -> str | None:
        """The model's summary: of all, or of what is taken out where there is no room to ask behind all."""
        tokens, sections, end = self._read(recent)
        question = QUESTION.format(words=max(1, max_tokens * 3 // 5))
        for base in (len(tokens), rungs.summary_cut(sections, end) or 0):
            if base and fits(self.conversation, base, question, max_tokens):
                return await ask_aside(self.conversation, base, question, max_tokens, sampling, stopping)
        return None

    async def _summarised(self, recent: int, sampling: Sampling, stopping: Callable[[], bool]) -> Rewritten | None:
        tokens, sections, end = self._read(recent)
        if (cut := rungs.summary_cut(sections, end)) is None:
            return None
        out = rungs.taken_out(sections, cut)
        if sum(s.length for s in out if s.kind != "summary") < self.summary_tokens + self.usable // 16:
            return None
        text = await self.ask(recent, self.summary_tokens, sampling, stopping)
        if text is None:
            return None
        return self.summed_up(recent, text or self._outline(tokens, out))

    def _outline(self, tokens: Sequence[int], out: Sequence[Section]) -> str:
        """For a model that wrote no summary: the calls that are taken out."""
        decode = self.conversation.tokenizer.decode
        calls = [decode(tokens[s.start + 1 : s.end - 1]).removeprefix("call:") for s in out if s.kind == "calls"]
        names = dict.fromkeys(call.partition("{")[0][:80] for call in calls)
        return f"These tools were called: {', '.join(names)}." if names else "Nothing is left of it."

    def _read(self, recent: int) -> tuple[list[int], list[Section], int]:
        """The transcript, its sections, and where what stays as it is begins."""
        tokens = list(self.conversation.engine.tokens)
        sections = read_sections(tokens, self._has_system)
        return tokens, sections, rungs.old_end(tokens, sections, recent)
