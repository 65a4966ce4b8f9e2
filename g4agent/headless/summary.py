"""Runs as Markdown, for a CI server's summary page."""

from __future__ import annotations

from collections.abc import Sequence

from g4agent.headless.report import RunReport

_LONGEST = 4000
"""Characters of an answer that are shown."""


def summary_markdown(reports: Sequence[RunReport]) -> str:
    """A line per run, then each run's checks, calls and answer.

    What a model or a tool said stands in code blocks or is escaped: it cannot make links, images or headings.
    """
    good = sum(report.verdict.ok for report in reports)
    lines = [f"## {good} of {len(reports)} runs succeeded", ""]
    lines += ["| run | outcome | steps | tokens | seconds |", "|---|---|--:|--:|--:|"]
    for report in reports:
        mark, tokens = "✅" if report.verdict.ok else "❌", report.usage.prompt_tokens + report.usage.generated_tokens
        outcome = f"{mark} {report.verdict.outcome.value}"
        lines.append(f"| {_cell(report.id)} | {outcome} | {report.steps} | {tokens:,} | {report.seconds:.1f} |")
    for report in reports:
        lines += ["", *_details(report)]
    return "\n".join(lines) + "\n"


def _details(report: RunReport) -> list[str]:
    verdict = report.verdict
    lines = [f"### {_cell(report.id)}", ""]
    if verdict.reason:
        lines += [_block(verdict.reason), ""]
    for check in report.checks:
        mark = "✅" if check.passed else "❌" if check.ran else "⚠️ not run:"
        lines.append(f"- {mark} {_code(check.name)}")
    for call in report.calls:
        lines.append(f"- {_code(call.name)} {'ok' if call.error is None else call.error}, {call.seconds:.2f} s")
    if report.answer:
        lines += ["", _block(report.answer[:_LONGEST])]
    if report.session_id:
        lines += ["", f"Session {_code(report.session_id)}: `g4agent sessions show {report.session_id}`"]
    return lines


def _block(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def _code(text: str) -> str:
    line = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{line}`"


def _cell(text: str) -> str:
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-!|~" else c for c in line)
