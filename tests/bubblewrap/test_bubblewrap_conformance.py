"""The conformance suite against real boxes, as this user and, where that is root, as an unprivileged user too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sandbox_suite
from bare_subprocess import BareBox
from sandbox_host import Host

from g4agent.errors import LimitNotEnforceableError
from g4agent.ports.sandbox import BoxSpec
from g4agent_bubblewrap import BubblewrapSandbox
from g4agent_bubblewrap.process import launch_command

pytestmark = pytest.mark.anyio

STARRED = [name for name, case in sandbox_suite.CASES.items() if case.starred]
NOBODY = 65534


@pytest.mark.parametrize("name", sandbox_suite.CASES)
async def test_case(name: str, sandbox: BubblewrapSandbox, host: Host) -> None:
    """The box lets through what the case's docstring says; or it opens where the host lacks the means."""
    case = sandbox_suite.CASES[name]
    enforced = sandbox.capabilities().enforced
    if case.needs is not None and case.needs not in enforced:
        with pytest.raises(LimitNotEnforceableError, match=case.needs):
            await sandbox.open(BoxSpec(limits=sandbox_suite.LIMITS))
        return
    degraded = frozenset({"memory", "processes", "cpu"}) - enforced
    box = await sandbox.open(BoxSpec(limits=sandbox_suite.LIMITS, allow_degraded=degraded))
    try:
        await case.run(box, host)
    finally:
        await box.close()


@pytest.mark.parametrize("name", STARRED)
async def test_control_fails(name: str, host: Host, tmp_path: Path) -> None:
    """A case that passes without any sandbox tests nothing."""
    with pytest.raises(AssertionError):
        await sandbox_suite.CASES[name].run(BareBox(tmp_path), host)


def test_unprivileged_user() -> None:
    """A box of an ordinary user, without control groups, is weaker than the limits it reports, or refuses nothing."""
    script = Path(__file__).with_name("unprivileged_run.py")
    shown = [str(path) for path in sys.path if Path(path).is_dir()]
    command = [sys.executable, str(script)]
    if os.geteuid() == 0:
        folders = sorted({sys.prefix, sys.base_prefix, *shown, str(script.parents[1])})
        command = [*launch_command(NOBODY, [str(Path(folder).resolve()) for folder in folders]), *command]
    environment = {"PYTHONPATH": os.pathsep.join(shown), "PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.endswith("all held\n")
