"""A process may die at any moment: what it was told is committed stays, and the rest leaves no trace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_samples import integrity

from g4agent.store import Store

WRITER = """
import os, sys
from store_samples import SESSION, call, intent, model_step
from g4agent.store import Store
store = Store.open(sys.argv[1])
session_id, start = store.create_session(SESSION), 0
print(session_id, flush=True)
for index in range(int(sys.argv[2])):
    store.record_intents(session_id, index, [intent(index, 0), intent(index, 1)])
    calls = (call(index, 0, value="x" * 3000), call(index, 1))
    store.commit_step(session_id, model_step(index, start, index % 300, calls=calls, workspace=os.urandom(20_000)))
    start += index % 300
    print(index, flush=True)
"""
"""Commits steps and says so after each. Step i has i % 300 tokens, two journaled calls and a new workspace."""


def start_writer(path: Path, steps: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", WRITER, str(path), str(steps)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", range(6))
def test_kill_loses_nothing_that_was_committed(path: Path, seed: int) -> None:
    """SIGKILL at a random moment of a loop of commits: each one that returned is whole, and no half one is there."""
    chance = random.Random(seed)
    writer = start_writer(path, 1_000_000)
    assert writer.stdout is not None
    session_id = writer.stdout.readline().strip()
    for _ in range(chance.randrange(1, 150)):
        writer.stdout.readline()
    time.sleep(chance.random() * 0.003)
    writer.send_signal(signal.SIGKILL)
    told = [line for line in writer.stdout.read().splitlines() if line]
    writer.wait()
    writer.stdout.close()

    with Store.open(path) as store:
        session = store.session(session_id)
        assert not told or session.steps in (int(told[-1]) + 1, int(told[-1]) + 2)
        assert [step.index for step in store.steps(session_id)] == list(range(session.steps))
        assert store.transcript(session_id) == [i for i in range(session.steps) for _ in range(i % 300)]
        calls = store.calls(session_id)
        done = [(c.step, c.index) for c in calls if c.result is not None]
        assert done == [(step, index) for step in range(session.steps) for index in (0, 1)]
        assert [(c.step, c.index) for c in store.open_calls(session_id)] in (
            [],
            [(session.steps, 0), (session.steps, 1)],
        )
        workspace = store.workspace(session_id)
        assert workspace is not None and len(workspace) == 20_000
    assert integrity(path) == "ok"


def test_processes_share_a_new_store(path: Path) -> None:
    """Three processes create the same file at once and write sessions of their own: all commit, none mixes."""
    writers = [start_writer(path, 60) for _ in range(3)]
    outputs = [writer.communicate(timeout=60)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    with Store.open(path) as store:
        assert len(store.list_sessions()) == 3
        for session_id, *_ in outputs:
            assert store.transcript(session_id) == [i for i in range(60) for _ in range(i % 300)]
            assert len(store.calls(session_id)) == 120 and store.open_calls(session_id) == []
    assert integrity(path) == "ok"


def test_default_place_follows_the_environment(tmp_path: Path) -> None:
    """Containers and CI move the store with G4AGENT_HOME; everyone else expects the XDG data folder."""
    code = "from g4agent.store import Store\nwith Store.open() as s: print(s.location)"
    places = {
        "G4AGENT_HOME": tmp_path / "home" / "g4agent.db",
        "XDG_DATA_HOME": tmp_path / "data" / "g4agent" / "g4agent.db",
        "HOME": tmp_path / "user" / ".local" / "share" / "g4agent" / "g4agent.db",
    }
    values = {"G4AGENT_HOME": tmp_path / "home", "XDG_DATA_HOME": tmp_path / "data", "HOME": tmp_path / "user"}
    base = {k: v for k, v in os.environ.items() if k not in places} | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for name, expected in places.items():
        environment = base | {name: str(values[name])}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert Path(done.stdout.strip()) == expected and expected.is_file()
        assert expected.parent.stat().st_mode & 0o077 == 0


def test_disk_limit_stops_and_later_goes_on(path: Path) -> None:
    """A file that may not grow (quota, full disk): an error, all that was committed, and work goes on with space."""
    code = """
import json, resource, sys
from store_samples import SESSION, grown, model_step
from g4agent.errors import StoreError
from g4agent.store import Store
store = Store.open(sys.argv[1])
session_id, index = store.create_session(SESSION), 0
resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
try:
    while index < 10_000:
        store.commit_step(session_id, model_step(index, index * 500, 500))
        index += 1
except StoreError as error:
    message = str(error)
reached = store.session(session_id).steps
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for more in range(3):
    store.commit_step(session_id, model_step(index + more, (index + more) * 500, 500))
print(json.dumps([message, index, reached, len(store.transcript(session_id))]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    message, index, reached, tokens = json.loads(done.stdout)
    assert "free space" in message and 3 < index == reached
    assert tokens == (index + 3) * 500
    assert integrity(path) == "ok"
