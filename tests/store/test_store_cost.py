"""A step costs the same whether it is the first or the thousandth: in bytes written, and in work."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from statistics import median

from store_samples import SESSION, call, intent, model_step

from g4agent.store import Store

STEPS = 1000
TOKENS = 200


def test_steps_stay_as_cheap_as_the_first(path: Path) -> None:
    """A commit that reads or rewrites history turns long sessions quadratic. CPU time, as the disk's own varies."""
    seconds: list[float] = []
    log: list[int] = []
    with Store.open(path) as store:
        session_id = store.create_session(SESSION)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM steps").fetchone()  # a reader keeps the log from being begun anew
        for index in range(STEPS):
            store.record_intents(session_id, index, [intent(index)])
            step = model_step(index, index * TOKENS, TOKENS, calls=(call(index, value="v" * 500),))
            begun = time.thread_time()
            store.commit_step(session_id, step)
            seconds.append(time.thread_time() - begun)
            log.append(Path(f"{path}-wal").stat().st_size)
        reader.close()
    assert median(seconds[-100:]) < 2 * median(seconds[100:200])
    early, late = log[300] - log[100], log[-1] - log[-201]
    assert late < 1.25 * early, f"bytes of log per step: {early / 200:.0f}, then {late / 200:.0f}"
