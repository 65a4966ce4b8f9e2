"""What runs tell OpenTelemetry, by its conventions for generative AI; off unless it is asked for.

Needs the extra `otel`. Nothing of OpenTelemetry is imported before a session with telemetry is opened.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from g4agent import __version__
from g4agent.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider
    from opentelemetry.trace import Tracer, TracerProvider

    from g4agent.ports.runtime import ChatRuntime, TokenRuntime
    from g4agent.run_trace import SessionTrace
    from g4agent.session import Session

SCOPE = "g4agent"
TOKEN_BUCKETS = [4**power for power in range(14)]
SECOND_BUCKETS = [0.01 * 2**power for power in range(14)]
"""Bounds that the conventions ask for."""
_PLACES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
_EXPORTERS = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER")
_HTTP = "http/protobuf"
_CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What an agent's runs tell OpenTelemetry: `Agent(telemetry=Telemetry(content=True))`.

    Without providers of its own it uses those that the program has made global; where there are none, it exports by
    OTLP over HTTP, as the OTEL_* environment variables say.
    """

    content: bool = False
    """Whether prompts, thoughts, answers, arguments and results are told too. Secrets are masked as everywhere."""
    tracer_provider: TracerProvider | None = field(default=None, repr=False)
    meter_provider: MeterProvider | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Instruments:
    """Where spans and figures go."""

    tracer: Tracer
    tokens: Histogram
    seconds: Histogram
    content: bool

    def trace(self, session: Session, runtime: TokenRuntime | ChatRuntime, agent: str, system: str) -> SessionTrace:
        """What tells of a session's runs. The provider of the model is the runtime's package."""
        from g4agent.run_trace import SessionTrace

        provider = type(runtime).__module__.partition(".")[0]
        return SessionTrace(self, session, agent=agent, provider=provider, system=system)


def open_telemetry(setting: Telemetry | bool | None) -> Instruments | None:
    """What an agent's setting comes to. None of it: the environment decides.

    The environment turns telemetry on where it names an OTLP endpoint or exporter and the extra is installed.

    Raises:
        ConfigError: The agent asks for telemetry, which cannot be had.
    """
    if isinstance(setting, Telemetry) or setting is True:
        if not _installed():
            raise ConfigError("OpenTelemetry is not installed", hint="pip install 'g4agent[otel]'")
        return _instruments(setting if isinstance(setting, Telemetry) else Telemetry())
    if setting is False or not _wanted_by_environment() or not _installed():
        return None
    try:
        return _instruments(Telemetry(os.environ.get(_CONTENT, "").lower() in ("true", "span_only", "span_and_event")))
    except ConfigError as problem:  # what the environment says is meant for every program, and stops none
        logging.getLogger(__name__).warning("no telemetry: %s", problem)
        return None


def _instruments(telemetry: Telemetry) -> Instruments:
    from opentelemetry import metrics, trace

    tracers, meters = telemetry.tracer_provider, telemetry.meter_provider
    program_has_none = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    if tracers is None and meters is None and program_has_none:
        tracers, meters = _exporting()
    meter = metrics.get_meter(SCOPE, __version__, meters)
    return Instruments(
        trace.get_tracer(SCOPE, __version__, tracers),
        meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        ),
        meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=SECOND_BUCKETS,
        ),
        telemetry.content,
    )


@cache
def _exporting() -> tuple[TracerProvider, MeterProvider]:
    """This process's own providers, which the SDK flushes at exit. Endpoint, headers and so on are read by the SDK."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    if _protocol() != _HTTP:
        raise ConfigError(
            f"telemetry cannot be sent by {_protocol()}",
            hint=f"Set OTEL_EXPORTER_OTLP_PROTOCOL={_HTTP}, or give Telemetry your own providers.",
        )
    resource = Resource.create().merge(Resource({"service.name": "g4agent"})).merge(OTELResourceDetector().detect())
    traces, figures = (os.environ.get(name, "otlp") == "otlp" for name in _EXPORTERS)
    tracers = TracerProvider(resource=resource)
    if traces:
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if figures else []
    return tracers, MeterProvider(readers, resource=resource)


def _wanted_by_environment() -> bool:
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    chosen = [os.environ[name] for name in _EXPORTERS if os.environ.get(name)]
    named = any(os.environ.get(name) for name in _PLACES) and (len(chosen) < len(_EXPORTERS))
    return not off and (named or "otlp" in chosen)


def _protocol() -> str:
    return os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or _HTTP


@cache
def _installed() -> bool:
    try:
        needed = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
        return all(importlib.util.find_spec(name) is not None for name in needed)
    except ModuleNotFoundError:  # not even a parent package is there
        return False
