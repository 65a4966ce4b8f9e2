"""Runs that nobody watches, from the command line: one that is checked and reported, or a batch of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g4agent.cli import options as o

if TYPE_CHECKING:
    from g4agent.agent import Agent
    from g4agent.cli.drive import Driver
    from g4agent.headless.report import RunReport
    from g4agent.image import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporting:
    """What is expected of a run, and where its reports go."""

    expect: list[str]
    junit: Path | None
    summary: Path | None


def unwatched(agent: Agent) -> Agent:
    """The agent for a run that nobody watches: what cannot be undone needs a rule, and questions wait in the store."""
    later = agent.approve is None and agent.store is not False
    return agent.replace(policy=replace(agent.policy, headless=True), approve="later" if later else agent.approve)


def run_headless(driver: Driver, id: str, prompt: Prompt, reporting: Reporting) -> int:
    """One run, its checks and its reports; returns the exit code. The reports are written however the run ends."""
    from g4agent.cli.drive import verdict_of
    from g4agent.headless.checks import parse_check, run_checks
    from g4agent.headless.report import RunReport
    from g4agent.image import shown

    checks = [parse_check(text) for text in reporting.expect]
    if not checks and driver.copied is not None and driver.copied.action != "discard":
        checks = [parse_check("changes")]  # who says where changes are to go has asked for some
    report = RunReport(id, shown(prompt), {tool.name: tool.effect for tool in driver.agent.tools})
    driver.report = report

    async def once(driver: Driver) -> int:
        async with driver.agent.session() as session:
            verdict = await driver.turn(session, prompt)
            return await driver.judge(session, report, await run_checks(checks, session, report) if verdict.ok else [])

    try:
        return driver.run(once)
    except Exception as error:
        report.verdict = verdict_of(error)
        raise
    finally:
        _write(report, reporting)


def _write(report: RunReport, reporting: Reporting) -> None:
    from g4agent.headless.junit import junit_xml
    from g4agent.headless.summary import summary_markdown

    if reporting.junit is not None:
        reporting.junit.parent.mkdir(parents=True, exist_ok=True)
        reporting.junit.write_text(junit_xml([report]), encoding="utf-8")
    if reporting.summary is not None:
        reporting.summary.parent.mkdir(parents=True, exist_ok=True)
        with reporting.summary.open("a", encoding="utf-8") as file:  # a CI server's summary gathers several steps
            file.write(summary_markdown([report]))


def batch(
    tasks: Annotated[Path, typer.Argument(help='JSON lines: {"id": "…", "prompt": "…", "expect": […], "seed": 1}.')],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Where the results go.")] = Path("batch"),
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Tasks at a time.")] = 1,
    agent: o.AgentPath = None,
    model: o.Model = None,
    policy: o.PolicyFile = None,
    think: o.Think = None,
    seed: o.Seed = None,
    temperature: o.Temperature = None,
    max_steps: o.MaxSteps = None,
    max_tokens: o.MaxTokens = None,
    max_thoughts: o.MaxThoughts = None,
    max_seconds: o.MaxSeconds = None,
    allow_degraded: o.Degraded = None,
    sandbox: o.SandboxName = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    kv_bits: o.KvBits = None,
    kv_sliding_bits: o.KvSlidingBits = None,
    head_bits: o.HeadBits = None,
    kv_memory: o.KvMemory = None,
    kv_disk: o.KvDisk = None,
    context_length: o.ContextLength = None,
    offline: o.Offline = False,
    log: o.LogFile = None,
    verbose: o.Verbose = False,
) -> None:
    """Run many tasks headless, and write results.jsonl, junit.xml and summary.md.

    Started again with the same folder, it goes on with what is left. The exit code is 0 where every task succeeded, 22
    where one did not, 130 where it was stopped.
    """
    from g4agent.cli.drive import Driver, reported_errors
    from g4agent.cli.progress import Progress
    from g4agent.headless.batch import Batch, read_tasks

    with reported_errors(verbose):
        work = Batch(read_tasks(tasks), out)
        configured = unwatched(
            o.AgentOptions(
                agent=agent,
                model=model,
                policy=policy,
                think=think,
                seed=seed,
                temperature=temperature,
                max_steps=max_steps,
                max_tokens=max_tokens,
                max_thoughts=max_thoughts,
                max_seconds=max_seconds,
                allow_degraded=allow_degraded,
                sandbox=sandbox,
                device=device,
                dtype=dtype,
                kv_bits=kv_bits,
                kv_sliding_bits=kv_sliding_bits,
                head_bits=head_bits,
                kv_memory=kv_memory,
                kv_disk=kv_disk,
                context_length=context_length,
                offline=offline,
                log=log,
            ).configure()
        )

        async def all_tasks(driver: Driver) -> int:
            with Progress(len(work.tasks), done=len(work.tasks) - len(work.left)) as progress:
                await work.run(driver.agent, jobs, lambda report: progress.step(report.id, report.verdict))
            return 0 if all(report.verdict.ok for report in work.reports.values()) else BATCH_FAILED

        try:
            code = Driver(configured, as_json=False, verbose=verbose).run(all_tasks)
        finally:
            work.write_reports()
        raise typer.Exit(code)


BATCH_FAILED = 22
"""Exit code of a batch of which some task did not succeed."""
