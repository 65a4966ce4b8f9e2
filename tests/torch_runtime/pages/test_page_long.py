"""The longest session there is: appended, saved, killed, resumed and read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import long_sessions
import pytest
from long_sessions import SAMPLED, TOKENS, peak_megabytes, sampled, session

from g4agent_torch.pages.quota import files

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.mark.parametrize("shape", ["nano", "31B pair"])
async def test_a_session_of_262144_tokens_survives_its_process(
    shape: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every later token has the same logits, nothing is computed again, and both processes' memory is bounded."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, long_sessions.__file__, shape, str(tmp_path)]
    history, following, held, plain, peak = first_life(command, environment)
    assert len(history) == TOKENS
    before = peak_megabytes()
    started = time.perf_counter()
    engine, _ = session(shape, tmp_path)
    await engine.append(history)
    assert await sampled(engine, SAMPLED) == following
    seconds = time.perf_counter() - started
    assert engine.computed_tokens == SAMPLED and engine.take_reports() == []
    disk = sum(file.size for file in files(tmp_path))
    per_token = {"nano": 2 * 32 * 2, "31B pair": 4 * 256}[shape]  # bytes of codes: 4 bits for each value
    assert TOKENS * per_token < held + 272 * per_token and held < TOKENS * per_token * 1.1 + 40e6
    assert plain > 3.5 * held
    with capsys.disabled():
        print(
            f"\n{shape}, {TOKENS} tokens: {held / 1e6:.1f} MB held, {plain / 1e6:.1f} MB without compression, "
            f"{disk / 1e6:.1f} MB on disk; peak of the first process {peak:.0f} MB, of the second {before:.0f} MB and "
            f"{peak_megabytes() - before:.0f} MB more; {SAMPLED} tokens {seconds:.1f} s after the restart"
        )


def first_life(command: list[str], environment: dict[str, str]) -> tuple[list[int], list[list[float]], int, int, float]:
    """What the process says before it is killed."""
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        history, following, held, plain, peak = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    return history, following, held, plain, peak
