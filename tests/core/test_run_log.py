"""The log of runs: a JSON line per event, with what was done and without what was said."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from g4agent import Agent, Budget, tool
from g4agent.errors import ConfigError
from g4agent.run_log import LOGGER, JsonFormatter, log_to_file
from g4agent.testing import ScriptedModel, call, say

pytestmark = pytest.mark.anyio

SAID = ("SECRET_PROMPT", "SECRET_ARGUMENT", "SECRET_RESULT", "SECRET_ERROR", "SECRET_ANSWER", "SECRET_NAME")


@tool(where="host", effect="pure")
def look(path: str) -> str:
    """Looks."""
    if path == "broken":
        raise ValueError("SECRET_ERROR")
    return "SECRET_RESULT"


async def run(caplog: pytest.LogCaptureFixture, **settings: object) -> list[logging.LogRecord]:
    script = [
        call("look", path="SECRET_ARGUMENT"),
        call("look", path="broken"),
        call("SECRET_NAME"),
        say("SECRET_ANSWER"),
    ]
    agent = Agent(model=ScriptedModel(script), tools=[look], store=False, **settings)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, LOGGER.name):
        await agent.run("SECRET_PROMPT")
    return [record for record in caplog.records if record.name == LOGGER.name]


async def test_what_was_done_is_logged_and_what_was_said_is_not(caplog: pytest.LogCaptureFixture) -> None:
    """Logs are shipped to places that may not see what users write."""
    records = await run(caplog)
    lines = [json.loads(JsonFormatter().format(record)) for record in records]
    assert [line["event"] for line in lines][:3] == ["run_started", "tool_started", "tool_finished"]
    assert {line["session"] for line in lines} == {lines[0]["session"]}
    failed = [line for line in lines if "error" in line]
    assert [(line["level"], line["error"]) for line in failed] == [
        ("warning", "exception"),
        ("warning", "unknown_tool"),
    ]
    assert lines[-1]["event"] == "run_finished" and (lines[-1]["outcome"], lines[-1]["steps"]) == ("done", 4)
    for text in [*map(json.dumps, lines), *(record.getMessage() for record in records)]:
        assert not any(word in text for word in SAID), text


async def test_a_run_that_ends_badly_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Alarms are raised by level."""
    records = await run(caplog, budget=Budget(steps=1))
    assert records[-1].levelno == logging.WARNING and "outcome=budget" in records[-1].getMessage()


def test_a_program_without_logging_prints_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library must not write on somebody else's stderr."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    LOGGER.warning("nobody asked")
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    """Before the run, not by a traceback in the middle of it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        log_to_file(tmp_path / "file" / "run.jsonl")
