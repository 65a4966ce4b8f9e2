"""Telemetry as a collector gets it: OTLP over HTTP from the real command, decoded with the protocol's own messages."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from command_line import COMMAND
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


class Collector(ThreadingHTTPServer):
    """Keeps the requests that it gets, by path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.requests: list[tuple[str, str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, path: str) -> list[bytes]:
        assert {kind for _, kind, _ in self.requests} <= {"application/x-protobuf"}
        return [body for place, _, body in self.requests if place == path]

    @property
    def spans(self) -> list[Span]:
        sent = [ExportTraceServiceRequest.FromString(body) for body in self.bodies("/v1/traces")]
        resources = [r for request in sent for r in request.resource_spans]
        assert {named(r.resource.attributes)["service.name"] for r in resources} <= {"g4agent"}
        spans = [span for r in resources for scope in r.scope_spans for span in scope.spans]
        return sorted(spans, key=lambda span: span.start_time_unix_nano)

    @property
    def metrics(self) -> set[str]:
        sent = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies("/v1/metrics")]
        return {m.name for q in sent for r in q.resource_metrics for s in r.scope_metrics for m in s.metrics}


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, self.headers["content-type"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(environment: dict[str, str], *args: str, **otel: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in environment.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [*COMMAND, "run", *args], env=clean | otel, capture_output=True, encoding="utf-8", timeout=120
    )


def named(attributes: Iterable[KeyValue]) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in attributes}


def test_a_collector_gets_spans_and_metrics(environment: dict[str, str], collector: Collector) -> None:
    """Two environment variables and the extra are all that an operator has to know."""
    done = run(environment, "A prompt", "--agent", "scripted_agents:adder", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert done.returncode == 0 and done.stderr == ""
    spans = collector.spans
    root = spans[0]
    assert [span.name for span in spans] == [
        "invoke_agent scripted_agents:adder",
        "chat scripted",
        "execute_tool add",
        "chat scripted",
        "execute_tool add",
        "execute_tool unknown",
        "chat scripted",
    ]
    assert {span.parent_span_id for span in spans[1:]} == {root.span_id} and not root.parent_span_id
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert named(root.attributes)["gen_ai.operation.name"] == "invoke_agent"
    assert [span.status.code for span in spans[4:6]] == [Status.STATUS_CODE_ERROR] * 2
    assert collector.metrics == {"gen_ai.client.operation.duration"}
    assert all(b"A prompt" not in body and b"It is 3." not in body for _, _, body in collector.requests)


def test_content_is_sent_where_the_environment_says_so(environment: dict[str, str], collector: Collector) -> None:
    """The conventions' own switch, for those who run the command and do not write Python."""
    run(
        environment,
        "A prompt",
        "--agent",
        "scripted_agents:adder",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="true",
        OTEL_METRICS_EXPORTER="none",
    )
    assert "A prompt" in named(collector.spans[1].attributes)["gen_ai.input.messages"]
    assert collector.metrics == set()


def test_nano_tells_its_tokens(environment: dict[str, str], collector: Collector) -> None:
    """A true model, through the real command, its own seconds and tokens."""
    done = run(
        environment, "Hello", "--model", "nano", "--max-tokens", "200", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url
    )
    assert done.returncode in (0, 10, 12, 15), done.stderr
    chat = collector.spans[1]
    counts = {pair.key: pair.value.int_value for pair in chat.attributes}
    assert counts["gen_ai.usage.input_tokens"] > 0 and counts["gen_ai.usage.output_tokens"] > 0
    assert collector.metrics == {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"}


@pytest.mark.parametrize("listening", [False, True])
def test_a_collector_that_is_not_there_stops_no_run(environment: dict[str, str], listening: bool) -> None:
    """Neither one that is down nor one that never answers may change the run, its output or its exit code."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        if listening:
            place.listen()
        url = f"http://127.0.0.1:{place.getsockname()[1]}"
        began = time.monotonic()
        done = run(
            environment,
            "x",
            "--agent",
            "scripted_agents:adder",
            OTEL_EXPORTER_OTLP_ENDPOINT=url,
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        )
        assert time.monotonic() - began < 20
    plain = run(environment, "x", "--agent", "scripted_agents:adder")
    assert done.returncode == plain.returncode == 0
    assert done.stdout.splitlines()[:-1] == plain.stdout.splitlines()[:-1]  # the last line has times and an id
