"""The rungs of the ladder, as functions from one transcript to a shorter one.

All are exact about what they leave: ids that stay are never rendered or tokenised again, calls and their results stay
or go together, and what comes out is a transcript of the native format.
"""

from __future__ import annotations

from collections.abc import Sequence

from g4agent.context.shelf import shortened
from g4agent.gemma4 import render
from g4agent.gemma4.sections import Section
from g4agent.gemma4.tokens import TURN_CLOSE, encode_segments
from g4agent.messages import ToolResult
from g4agent.ports.runtime import Tokenizer

SUMMARY_HEAD = "Summary of the older part of this conversation, which was taken out to make room:"
_MODEL = ("thoughts", "calls", "results", "answers")


def old_end(tokens: Sequence[int], sections: Sequence[Section], recent: int) -> int:
    """Where the last `recent` completed model steps begin; 0 where there are no more than these."""
    starts = _completed(tokens, sections)
    return starts[-recent] if len(starts) > recent else 0


def _completed(tokens: Sequence[int], sections: Sequence[Section]) -> list[int]:
    """Where each model step that came to its end begins: one that was answered, or ended its turn."""
    starts: list[int] = []
    current: int | None = None
    for section, after in zip(sections, [*sections[1:], None], strict=True):
        if section.kind not in _MODEL:
            continue
        current = section.start if current is None else current
        turn_ends = after is None or after.turn != section.turn
        answered = section.kind == "results" and (after is None or after.kind != "results")
        if answered or (turn_ends and TURN_CLOSE in tokens[section.start : section.end]):
            starts.append(current)
            current = None
        elif turn_ends:
            current = None
    return starts


def trim_results(
    tokens: Sequence[int],
    sections: Sequence[Section],
    end: int,
    results: Sequence[ToolResult],
    limit: int,
    tokenizer: Tokenizer,
) -> tuple[list[int], list[str]]:
    """Gives results before `end` that are longer than `limit` tokens a head, a tail and a handle.

    Args:
        tokens: The transcript.
        sections: Its sections.
        end: Where what is not touched begins.
        results: Of the session, in order; the last ones are those of the transcript.
        limit: Tokens that a result may keep.
        tokenizer: Of the model.

    Returns:
        The new transcript, and the ids of the calls whose results were trimmed.
    """

    def ids(result: ToolResult) -> list[int]:
        responses = render.tool_responses([(result.name, result.response())], opener_present=False, thinking=False)
        return encode_segments(tokenizer, responses)

    blocks = [section for section in sections if section.kind == "results"]
    new, at, trimmed = list[int](), 0, list[str]()
    for block, result in zip(reversed(blocks), reversed(results), strict=False):
        if block.end > end or block.length <= limit or not _answers(tokens, block, result, tokenizer):
            continue
        shown = shortened(result, limit, lambda candidate: len(ids(candidate)))
        if shown is not None:
            trimmed.append(result.call_id)
            new = [*ids(shown), *tokens[block.end : at or len(tokens)], *new]
            at = block.start
    return [*tokens[: at or len(tokens)], *new], trimmed[::-1]


def _answers(tokens: Sequence[int], block: Section, result: ToolResult, tokenizer: Tokenizer) -> bool:
    """Whether a block is by the tool of a result: the two lists are counted from their ends, and must agree."""
    start = f"response:{result.name}{{"
    return tokenizer.decode(tokens[block.start + 1 : block.start + 1 + len(start.encode())]).startswith(start)


def drop_thoughts(tokens: Sequence[int], sections: Sequence[Section], end: int) -> list[int]:
    """Takes out the thoughts before `end`."""
    new, at = list[int](), 0
    for section in sections:
        if section.kind == "thoughts" and section.end <= end:
            new += tokens[at : section.start]
            at = section.end
    return [*new, *tokens[at:]]


def summary_cut(sections: Sequence[Section], end: int) -> int | None:
    """Where a summary's part of the transcript can end, at most at `end`; None where there is nothing to sum up.

    It ends where a user turn begins, or behind all results of a step: never between a call and its result.
    """
    spoken = [section for section in sections if section.kind == "user"]
    if not spoken:
        return None
    cuts = [section.start for section in spoken[1:]]
    for section, after in zip(sections, [*sections[1:], None], strict=True):
        if section.kind == "results" and (after is None or after.kind != "results"):
            cuts.append(section.end)
    return max((cut for cut in cuts if spoken[0].end < cut <= end), default=None)


def taken_out(sections: Sequence[Section], cut: int) -> list[Section]:
    """What a summary up to a cut stands for; an older summary is among it."""
    first, asked = _asked_first(sections), _asked_last(sections, cut)
    return [s for s in sections if first.end <= s.start and s.end <= cut and s is not asked]


def with_summary(
    tokens: Sequence[int], sections: Sequence[Section], cut: int, text: str, tokenizer: Tokenizer
) -> list[int]:
    """The transcript with a summary between its first user turn and what stands behind the cut.

    A cut within a model turn keeps the user turn that the model is at work on, and opens the turn again.
    """
    first = _asked_first(sections)
    summary = render.user_turn(f"{SUMMARY_HEAD}\n\n{text}")
    new = [*tokens[: first.end], *encode_segments(tokenizer, summary)]
    asked = _asked_last(sections, cut)
    if asked is not None:
        if asked is not first:
            new += tokens[asked.start : asked.end]
        new += encode_segments(tokenizer, render.model_turn_open(thinking=True, variant="small"))
    return [*new, *tokens[cut:]]


def _asked_first(sections: Sequence[Section]) -> Section:
    """The first user turn."""
    return next(section for section in sections if section.kind == "user")


def _asked_last(sections: Sequence[Section], cut: int) -> Section | None:
    """The user turn that a cut within a model turn belongs to; None for a cut between turns."""
    if any(section.start == cut and section.kind == "user" for section in sections):
        return None
    return [section for section in sections if section.kind == "user" and section.end <= cut][-1]
