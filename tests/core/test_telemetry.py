"""Spans and figures of runs, as OpenTelemetry's SDK gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from g4agent import Agent, Budget, Policy, Rule, Sampling, Telemetry, tool
from g4agent.errors import G4AgentError
from g4agent.events import StepStarted
from g4agent.registry import load_agent
from g4agent.store import Store
from g4agent.testing import Script, ScriptedModel, call, calls, say

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECRET_WORDS = ("Add one", "and two", "It is", "hmm", "subtract", '"x"', "no luck", "Be kind")
"""What the prompt, the model and the tools say in these runs."""


@tool(effect="pure", where="host")
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: One.
        b: The other.
    """
    if a == 13:
        raise ValueError("no luck with 13")
    return a + b


@tool(effect="pure", where="host")
async def nap(seconds: float) -> None:
    """Waits."""
    await anyio.sleep(seconds)


@dataclass
class Told:
    """What was told."""

    telemetry: Telemetry
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def points(self, name: str) -> list[HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
        return [p for m in metrics for p in m.data.data_points if isinstance(p, HistogramDataPoint)]


@pytest.fixture
def told() -> Callable[[bool], Told]:
    def make(content: bool = False) -> Told:
        exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(exporter))
        return Told(Telemetry(content, tracers, MeterProvider([reader])), exporter, reader)

    return make


def agent(script: Script, telemetry: Telemetry, **settings: Any) -> Agent:
    return Agent(
        model=ScriptedModel(script), tools=[add, nap], system="Be kind.", store=False, telemetry=telemetry, **settings
    )


SCRIPT = [
    call("add", a=1, b=2),
    calls(call("add", a=13, b=0), call("add", a=1, b="x"), call("subtract", a=1)),
    say("It is 3.", thought="hmm"),
]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_run_is_a_tree_of_agent_steps_and_calls(told: Callable[..., Told]) -> None:
    """Names, parents and attributes are what trace viewers group by; a call in another place tells a wrong story."""
    seen = told()
    result = await agent(SCRIPT, seen.telemetry, name="/home/me/adder").run("Add one and two")
    run, *parts = seen.spans
    assert [span.name for span in (run, *parts)] == [
        "invoke_agent adder",
        "chat scripted",
        "execute_tool add",
        "chat scripted",
        "execute_tool add",
        "execute_tool add",
        "execute_tool unknown",
        "chat scripted",
    ]
    assert run.parent is None
    assert {span.parent and span.parent.span_id for span in parts} == {run.context.span_id}
    assert all(attributes(span)["gen_ai.conversation.id"] == result.session_id for span in seen.spans)
    assert attributes(run) == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "g4agent",
        "gen_ai.request.model": "scripted",
        "gen_ai.agent.name": "adder",
        "gen_ai.conversation.id": result.session_id,
        "g4agent.outcome": "done",
    }
    first, refused = attributes(parts[1]), attributes(parts[5])
    assert (first["gen_ai.tool.name"], first["gen_ai.tool.call.id"]) == ("add", "s1c0")
    assert first["g4agent.tool.where"] == "host" and "g4agent.tool.where" not in refused
    reasons = [attributes(s)["gen_ai.response.finish_reasons"] for s in parts if s.name.startswith("chat")]
    assert reasons == [("tool_call",), ("tool_call",), ("stop",)]


async def test_errors_are_told_by_their_kind(told: Callable[..., Told]) -> None:
    """An alert counts spans with an error status; a call that failed and was recovered from fails no run."""
    seen = told()
    await agent(SCRIPT, seen.telemetry).run("Add one and two")
    errors = [attributes(s).get("error.type") for s in seen.spans if s.name.startswith("execute_tool")]
    assert errors == [None, "exception", "invalid_arguments", "unknown_tool"]
    failed = [s.status.status_code is StatusCode.ERROR for s in seen.spans]
    assert failed == [False, False, False, False, True, True, True, False]
    counted = [(p.attributes or {}).get("error.type") for p in seen.points("gen_ai.client.operation.duration")]
    assert sorted(filter(None, map(str, counted))) == ["None", "None", "None", *sorted(filter(None, errors))]


async def test_content_is_told_only_where_it_is_asked_for(told: Callable[..., Told]) -> None:
    """Prompts and results are people's data: with the default settings none of it may leave the process."""
    quiet, loud = told(), told(True)
    await agent(SCRIPT, quiet.telemetry).run("Add one and two")
    everything = "".join(span.to_json() for span in quiet.spans) + str(quiet.reader.get_metrics_data())
    assert not [words for words in SECRET_WORDS if words in everything]
    await agent(SCRIPT, loud.telemetry).run("Add one and two")
    run, first, tool_span, second, *_, last = (attributes(span) for span in loud.spans)
    assert json.loads(run["gen_ai.system_instructions"]) == [{"type": "text", "content": "Be kind."}]
    assert json.loads(first["gen_ai.input.messages"])[0]["parts"][0]["content"] == "Add one and two"
    assert json.loads(tool_span["gen_ai.tool.call.arguments"]) == {"a": 1, "b": 2}
    assert json.loads(tool_span["gen_ai.tool.call.result"]) == {"value": 3}
    assert json.loads(second["gen_ai.input.messages"])[0]["parts"][0]["response"] == {"value": 3}
    assert json.loads(last["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "reasoning", "content": "hmm"}, {"type": "text", "content": "It is 3."}],
            "finish_reason": "stop",
        }
    ]
    assert loud.spans[4].status.description == "ValueError: no luck with 13"


async def test_a_run_that_ends_in_the_middle_closes_its_spans(told: Callable[..., Told]) -> None:
    """A span that is never ended is never exported: the runs that one wants to look at would be the missing ones."""
    stopped, broken, left = told(), told(), told()
    with anyio.move_on_after(0.2):
        await agent([call("nap", seconds=60)], stopped.telemetry).run("Sleep")
    assert [(s.name, attributes(s).get("error.type")) for s in stopped.spans] == [
        ("invoke_agent agent", "interrupted"),
        ("chat scripted", None),
        ("execute_tool nap", "interrupted"),
    ]
    with pytest.raises(G4AgentError):
        await agent([], broken.telemetry).run("Anything")
    assert [attributes(s)["error.type"] for s in broken.spans] == ["ConversationError", "ConversationError"]
    events = agent(SCRIPT, left.telemetry).stream("Add one and two")
    async for event in events:
        if isinstance(event, StepStarted) and event.step == 2:
            break
    await events.aclose()
    assert [attributes(s).get("error.type") for s in left.spans] == ["interrupted", None, None, "interrupted"]


async def test_a_run_that_waits_for_a_person_is_no_error(told: Callable[..., Told], tmp_path: Path) -> None:
    """Nobody wants to be woken by it; the call that waits has not run and has no span."""
    seen = told()
    with Store.open(tmp_path / "store.db") as store:
        asking = agent(SCRIPT, seen.telemetry, policy=Policy((Rule("ask", "add"),)), approve="later").replace(
            store=store
        )
        await asking.run("Add one and two")
    run, chat = seen.spans
    assert attributes(run)["g4agent.outcome"] == "awaiting_approval" and run.status.status_code is StatusCode.UNSET
    assert chat.name == "chat scripted"


async def test_a_run_stands_in_its_callers_trace(told: Callable[..., Told]) -> None:
    """A web request that runs an agent is one trace, not two."""
    seen = told()
    assert seen.telemetry.tracer_provider is not None
    with seen.telemetry.tracer_provider.get_tracer("app").start_as_current_span("request") as request:
        await agent([say("Hi.")], seen.telemetry).run("Hello")
    by_name = {span.name: span for span in seen.spans}
    parent = by_name["invoke_agent agent"].parent
    assert parent is not None and parent.span_id == request.get_span_context().span_id


async def test_a_host_tools_own_spans_stand_below_its_call(told: Callable[..., Told]) -> None:
    """An instrumented HTTP client in a tool is part of the call; two calls at once keep theirs apart."""
    seen = told()
    assert seen.telemetry.tracer_provider is not None
    tracer = seen.telemetry.tracer_provider.get_tracer("app")

    @tool(effect="pure", where="host")
    async def fetch(place: str) -> str:
        """Fetches."""
        with tracer.start_as_current_span(f"GET {place}"):
            await anyio.sleep(0.01)
        return place

    script = [calls(call("fetch", place="a"), call("fetch", place="b")), say("Done.")]
    await agent(script, seen.telemetry).replace(tools=[fetch]).run("Fetch")
    tools = {
        span.context.span_id: attributes(span)["gen_ai.tool.call.id"]
        for span in seen.spans
        if "gen_ai.tool.name" in attributes(span)
    }
    parents = {
        span.name: tools[span.parent.span_id] for span in seen.spans if span.name.startswith("GET") and span.parent
    }
    assert parents == {"GET a": "s1c0", "GET b": "s1c1"}


async def test_nano_counts_tokens_as_the_store_does(told: Callable[..., Told], tmp_path: Path) -> None:
    """With a true model, tokens written are the run's usage, and tokens read are the transcript before each step."""
    seen = told()
    shop = load_agent(str(EXAMPLES / "retail_checkout"))
    with Store.open(tmp_path / "store.db") as store:
        model = shop.replace(model="nano", sampling=Sampling(temperature=0), store=store, telemetry=seen.telemetry)
        async with model.replace(budget=Budget(steps=3, step_tokens=100)) as nano, nano.session() as session:
            result = await session.run("I am mia.smith@example.com. What is the status of order W12345?")
            length = session.conversation.length
        kept = store.calls(result.session_id)
    run, *parts = map(attributes, seen.spans)
    chats = [span for span in parts if span["gen_ai.operation.name"] == "chat"]
    tools = [span for span in parts if span["gen_ai.operation.name"] == "execute_tool"]
    assert len(chats) == result.steps and run["gen_ai.provider.name"] == "g4agent_torch"
    assert run["gen_ai.request.model"] == chats[0]["gen_ai.request.model"] == "nano"
    assert run["gen_ai.usage.output_tokens"] == result.usage.generated_tokens
    read = [span["gen_ai.usage.input_tokens"] for span in chats]
    assert read == sorted(read) and read[0] > 0 and read[-1] < length
    assert run["gen_ai.usage.input_tokens"] == sum(read)
    assert "gen_ai.usage.cache_read.input_tokens" not in chats[0]
    for before, after in pairwise(chats):
        cached = after["gen_ai.usage.cache_read.input_tokens"]
        written = before["gen_ai.usage.input_tokens"] + before["gen_ai.usage.output_tokens"]
        assert abs(cached - written) <= 1 and cached < after["gen_ai.usage.input_tokens"]
    assert [span["gen_ai.tool.call.id"] for span in tools] == [c.call_id for c in kept] and tools
    assert {span.get("g4agent.tool.where") for span in tools} <= {"sandbox", None}
    points = {dict(p.attributes or {})["gen_ai.token.type"]: p for p in seen.points("gen_ai.client.token.usage")}
    assert (points["input"].sum, points["output"].sum) == (sum(read), result.usage.generated_tokens)
    assert points["output"].count == result.steps and list(points["output"].explicit_bounds)[:3] == [1, 4, 16]
    seconds = {
        dict(p.attributes or {})["gen_ai.operation.name"]: p.sum
        for p in seen.points("gen_ai.client.operation.duration")
    }
    assert 0 < seconds["chat"] < seconds["invoke_agent"]


@pytest.mark.parametrize(
    ("environment", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
    ],
)
def test_the_environment_turns_it_on(environment: dict[str, str], on: bool) -> None:
    """Telemetry nobody has asked for would send people's data about; one that was asked for must not stay silent."""
    code = "from g4agent.telemetry import open_telemetry as o; print(o(None) is not None, o(False))"
    others = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], env=others | environment, capture_output=True, text=True)
    assert done.stdout.split() == [str(on), "None"], done.stderr
    assert ("cannot be sent by grpc" in done.stderr) == ("OTEL_EXPORTER_OTLP_PROTOCOL" in environment)


def test_without_the_extra_only_who_asks_for_it_is_told() -> None:
    """An environment made for other programs stops none; an agent that wants telemetry must not go without."""
    code = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
from g4agent import Agent
from g4agent.testing import ScriptedModel, say
for wanted in (None, True):
    print(Agent(model=ScriptedModel([say("Hi.")]), store=False, telemetry=wanted).run_sync("Hello").answer)
"""
    environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "Hi.\n" and "ConfigError: OpenTelemetry is not installed" in done.stderr
    assert "pip install 'g4agent[otel]'" in done.stderr
