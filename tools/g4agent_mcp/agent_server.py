"""A server that offers an agent's tools, and one tool that runs the agent.

A run has a prompt and a session of its own, or goes on with an earlier one; what happens in it comes as progress, and
cancelling the call stops the run at a well-formed place.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Container
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import Server, ServerRequestContext
from mcp.types import CallToolRequestParams, CallToolResult, InputRequiredResult, ListToolsResult, TextContent, Tool

from g4agent import __version__
from g4agent.errors import G4AgentError
from g4agent.events import Event, RunFinished
from g4agent.verdict import Outcome
from g4agent_mcp.asking import KEY, Person
from g4agent_mcp.direct import DirectTools
from g4agent_mcp.offered import answered, declared, failed
from g4agent_mcp.progress import Progress

if TYPE_CHECKING:
    from g4agent.agent import Agent

SCHEMA = {
    "type": "object",
    "properties": {
        "prompt": {"type": "string", "description": "What the agent shall do."},
        "session": {"type": "string", "description": "Go on with the session of an earlier answer."},
    },
    "required": ["prompt"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "outcome": {"type": "string", "description": "done, or why not."},
        "reason": {"type": "string"},
        "session": {"type": "string"},
        "steps": {"type": "integer"},
    },
    "required": ["answer", "outcome", "reason", "session", "steps"],
}


def agent_server(agent: Agent) -> Server[DirectTools]:
    """A server with the agent's tools, and one that runs the agent. Runs wait for each other: they share the model.
    So do calls of the other tools: they share a session."""
    own = {tool.name: tool for tool in agent.tools}
    name = tool_name(agent.name, own)
    one_at_a_time = anyio.Lock()

    @asynccontextmanager
    async def lifespan(server: Server[DirectTools]) -> AsyncIterator[DirectTools]:
        async with DirectTools.open(agent) as direct:
            yield direct
            async with one_at_a_time:  # a run that was cancelled is still being stored
                pass

    async def list_tools(context: ServerRequestContext[DirectTools], parameters: object) -> ListToolsResult:
        can = ", ".join(own)
        description = f"Runs an agent with the tools {can}." if can else "Asks a language model."
        runs = Tool(name=name, description=description, input_schema=SCHEMA, output_schema=ANSWER)
        return ListToolsResult(tools=[runs, *map(declared, own.values())])

    async def call_tool(
        context: ServerRequestContext[DirectTools], parameters: CallToolRequestParams
    ) -> CallToolResult | InputRequiredResult:
        arguments = parameters.arguments or {}
        if parameters.name in own:
            person = Person(context, parameters.input_responses)
            try:
                result, images = await context.lifespan_context.call(parameters.name, arguments, context, person)
            except G4AgentError as error:
                return failed(str(error))
            if person.question is not None:
                return InputRequiredResult(input_requests={KEY: person.question})
            return answered(result, images, person)
        prompt, session_id = arguments.get("prompt"), arguments.get("session")
        if parameters.name != name or not isinstance(prompt, str) or not isinstance(session_id, str | None):
            return failed(f"call {name} with a prompt, or one of: {', '.join(own) or 'nothing else'}")
        try:
            async with one_at_a_time, agent.session(session_id) as session, aclosing(session.stream(prompt)) as events:
                answer = await _follow(events, Progress(context))
        except G4AgentError as error:
            return failed(str(error))
        text = answer["answer"] or f"{answer['outcome']}: {answer['reason']}"
        return CallToolResult(
            content=[TextContent(text=text)],
            structured_content=answer,
            is_error=answer["outcome"] != Outcome.DONE,
        )

    return Server("g4agent", version=__version__, lifespan=lifespan, on_list_tools=list_tools, on_call_tool=call_tool)


def tool_name(agent: str, taken: Container[str] = ()) -> str:
    """The last part of an agent's name, which may be a path or `module:attribute`; none of the names that are taken."""
    last = re.split(r"[/:]", agent.rstrip("/"))[-1].removesuffix(".py")
    name = re.sub(r"[^A-Za-z0-9_]", "_", last) or "agent"
    while name in taken:
        name += "_agent"
    return name


async def _follow(events: AsyncGenerator[Event, None], progress: Progress) -> dict[str, Any]:
    """Reports what happens as progress; gives what came of the run."""
    async for event in events:
        await progress.tell(event)
        if isinstance(event, RunFinished):
            ended = {"outcome": event.verdict.outcome.value, "reason": event.verdict.reason}
            return {"answer": event.answer, **ended, "session": event.session_id, "steps": event.steps}
    raise AssertionError("a run that is not cancelled ends with RunFinished")
