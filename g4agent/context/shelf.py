"""Results that are too long for the transcript: what is shown of them, and the tool that reads back the rest.

The results themselves lie in the session's store, whole, whatever the transcript shows. A handle is the id of a call.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from g4agent.errors import ConfigError
from g4agent.messages import JsonValue, ToolError, ToolResult
from g4agent.shaping import Shape, shape
from g4agent.tools import Tool, tool
from g4agent.toolset import ToolSet

READER = "read_stored_result"
LINE_CHARS = 200
"""Longer lines are broken, so that every part of a result has a line number."""
MOST_LINES = 400
MOST_CHARS = 16_000
_HALVINGS = 8


class ResultShelf:
    """The results of one session.

    Args:
        share: What the results of one step may take of the context window.
        tools: The agent's tools.

    Raises:
        ConfigError: One of them has the name of the tool that reads results back.
    """

    def __init__(self, share: float, tools: ToolSet) -> None:
        if READER in tools:
            raise ConfigError(
                f"{READER} is the context ladder's own tool",
                hint="Call yours otherwise, or switch the ladder off: Agent(context=None).",
            )
        self.share = share
        self.chars = MOST_CHARS
        """Of what one reading gives."""
        self.source: Callable[[], Awaitable[Sequence[ToolResult]]] = _nothing
        """All results of the session so far, in order."""
        self.tool: Tool = tool(name=READER, where="host", effect="pure")(self.read)

    def fit(self, window: int) -> None:
        """Has a reading take no more than a step's share of a window of so many tokens, even at a token a character."""
        self.chars = max(LINE_CHARS + 1, min(MOST_CHARS, int(window * self.share * 0.75)))

    async def read(
        self,
        call: str,
        start: Annotated[int, Field(ge=1)] = 1,
        count: Annotated[int, Field(ge=1, le=MOST_LINES)] = 100,
    ) -> dict[str, JsonValue]:
        """Read lines of a result that was shortened.

        Args:
            call: Its handle, such as s3c0.
            start: First line, from 1.
            count: How many lines.
        """
        results = {result.call_id: result for result in await self.source()}
        if call not in results:
            return {"error": f"there is no result {call}"}
        lines = list(lines_of(results[call]))
        if start > len(lines):
            return {"error": f"{call} has {len(lines)} lines"}
        kept: list[str] = []
        room = self.chars
        for line in lines[start - 1 : start - 1 + count]:
            room -= len(line) + 1
            if room < 0:
                break
            kept.append(line)
        end = start + len(kept) - 1
        read: dict[str, JsonValue] = {"text": "\n".join(kept), "lines": f"{start}-{end} of {len(lines)}"}
        return read if end == len(lines) else read | {"note": f"read on with start={end + 1}"}


async def _nothing() -> Sequence[ToolResult]:
    return ()


def lines_of(result: ToolResult) -> Iterator[str]:
    """A result as lines of text, none of them long. The numbers of lines are those of the handle and of the tool."""
    for line in _text(result).split("\n"):
        yield from (line[i : i + LINE_CHARS] for i in range(0, max(1, len(line)), LINE_CHARS))


def _text(result: ToolResult) -> str:
    """Strings as they are, anything else as JSON; the fields of an object under their names."""
    if result.error is not None:
        return result.error.message
    if not isinstance(result.value, dict):
        return _plain(result.value)
    return "\n".join(_field(key, _plain(value)) for key, value in result.value.items())


def _field(key: str, text: str) -> str:
    return f"{key}:\n{text}" if "\n" in text else f"{key}: {text}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)


def shortened(result: ToolResult, limit: int, count: Callable[[ToolResult], int]) -> ToolResult | None:
    """A result with head, tail and handle in the place of its value, or of its error's message.

    Args:
        result: The whole result.
        limit: Tokens that it may take in the transcript.
        count: Says what a result takes.

    Returns:
        None where not even the handle fits.
    """
    text = "\n".join(lines_of(result))
    chars = 4 * limit
    for _ in range(_HALVINGS):
        shown = _showing(result, shape(text, Shape(MOST_LINES, MOST_LINES, chars), lambda _: handle(result)))
        if count(shown) <= limit:
            return shown
        chars = chars * 2 // 3
    bare = _showing(result, f"[too long to show here: {handle(result)}]")
    return bare if count(bare) <= limit else None


def handle(result: ToolResult) -> str:
    """How the model gets at a whole result."""
    return f'{READER}(call="{result.call_id}")'


def put_away(result: ToolResult) -> ToolResult:
    """What stands for a result of which nothing fits."""
    message = f"the result is too long for what is left of the context window: {handle(result)}"
    return replace(result, value=None, error=ToolError("exception", message))


def _showing(result: ToolResult, text: str) -> ToolResult:
    if result.error is None:
        return replace(result, value=text)
    return replace(result, error=ToolError(result.error.kind, text, result.error.detail))
