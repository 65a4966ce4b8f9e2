"""Asking the person at a client of MCP, where the client can ask: elicitation, in both of the protocol's forms.

Older clients are asked while the call waits. Since 2026-07-28 the call is answered with the question, and the client
makes it again with the person's answer.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mcp import types

from g4agent.messages import ToolCall

if TYPE_CHECKING:
    from mcp.server import ServerRequestContext

KEY = "allow"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {KEY: {"type": "boolean", "title": "Allow this call", "default": False}},
    "required": [KEY],
}
MAX_ARGUMENTS = 2000
"""Characters of a call's arguments in a question."""


class Person:
    """Whoever sits at the client, for one of its calls."""

    def __init__(self, context: ServerRequestContext[Any], answers: types.InputResponses | None) -> None:
        self._context = context
        self._answers = answers
        self.question: types.ElicitRequest | None = None
        """To be put to the person before the call is made again; None where there is none."""
        self.unasked = False
        """True once a question could not be put."""

    @property
    def _can_be_asked(self) -> bool:
        """Whether the client puts forms to its user."""
        capabilities = self._context.session.client_capabilities
        return capabilities is not None and capabilities.elicitation is not None

    async def approves(self, call: ToolCall, reason: str) -> bool:
        """Whether the person allows the call. False, too, where nobody can be asked, or has to be asked first."""
        if not self._can_be_asked:
            self.unasked = True
            return False
        if self._answers is not None:
            return _allows(self._answers.get(KEY))
        text = json.dumps(dict(call.arguments), ensure_ascii=False)
        text = text if len(text) <= MAX_ARGUMENTS else f"{text[:MAX_ARGUMENTS]}… [{len(text)} characters]"
        message = f"{call.name} {text}\n{reason}. Allow it?"
        session = self._context.session
        if session.can_send_request:
            return _allows(await session.elicit_form(message, SCHEMA, self._context.request_id))
        self.question = types.ElicitRequest(
            params=types.ElicitRequestFormParams(message=message, requested_schema=SCHEMA)
        )
        return False


def _allows(answer: object) -> bool:
    if not isinstance(answer, types.ElicitResult) or answer.action != "accept":
        return False
    return (answer.content or {}).get(KEY) is True
