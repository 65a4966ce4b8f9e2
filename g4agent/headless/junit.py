"""Runs as JUnit XML, in the dialect that Jenkins, GitLab, GitHub's report actions and Azure read (the xUnit plugin's
`junit-10.xsd`)."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree

from g4agent.headless.report import RunReport
from g4agent.verdict import Outcome

_BROKEN = (Outcome.INFRASTRUCTURE, Outcome.MODEL_ERROR, Outcome.INTERRUPTED)
"""Outcomes that say nothing about the task: JUnit calls them errors, not failures."""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(reports: Sequence[RunReport], name: str = "g4agent") -> str:
    """One suite with a case for each run and, in it, one for each check."""
    suites = ElementTree.Element("testsuites", name=name)
    for report in reports:
        suites.append(_suite(report))
    ElementTree.indent(suites)
    text = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(report: RunReport) -> ElementTree.Element:
    cases = [_run_case(report), *(_check_case(report, index) for index in range(len(report.checks)))]
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        name=_text(report.id),
        tests=str(len(cases)),
        failures=str(counts["failure"]),
        errors=str(counts["error"]),
        skipped=str(counts["skipped"]),
        time=f"{report.seconds:.3f}",
        timestamp=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}",
        hostname=socket.gethostname(),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in (
        ("session", report.session_id),
        ("model", report.model),
        ("steps", report.steps),
        ("prompt_tokens", report.usage.prompt_tokens),
        ("generated_tokens", report.usage.generated_tokens),
    ):
        ElementTree.SubElement(properties, "property", name=key, value=_text(str(value)))
    suite.extend(cases)
    return suite


def _run_case(report: RunReport) -> ElementTree.Element:
    case = ElementTree.Element("testcase", name="run", classname=_text(report.id), time=f"{report.seconds:.3f}")
    verdict = report.verdict
    if not verdict.ok:
        kind = "error" if verdict.outcome in _BROKEN else "failure"
        problem = ElementTree.SubElement(case, kind, message=_text(verdict.reason), type=verdict.outcome.value)
        problem.text = _text(verdict.reason)
    ElementTree.SubElement(case, "system-out").text = _text(_story(report))
    return case


def _check_case(report: RunReport, index: int) -> ElementTree.Element:
    check = report.checks[index]
    case = ElementTree.Element("testcase", name=_text(check.name), classname=_text(report.id), time="0.000")
    if not check.ran:
        ElementTree.SubElement(case, "skipped", message=_text(check.detail))
    elif not check.passed:
        ElementTree.SubElement(case, "failure", message=_text(check.detail), type="check").text = _text(check.detail)
    return case


def _story(report: RunReport) -> str:
    lines = [f"> {report.prompt}"]
    lines += [f"{call.name}: {call.error or 'ok'} {call.message}".rstrip() for call in report.calls]
    return "\n".join([*lines, report.answer])


def _text(text: str) -> str:
    """What XML 1.0 can hold: other characters become the replacement character."""
    return _NOT_XML.sub("\ufffd", text)
