"""Processor time of importing a framework, in fresh interpreters, less that of an interpreter that imports nothing.

What is imported is what a program with one agent and one tool needs to define them. Least of several runs: noise only
ever adds.

    python benchmarks/import_time.py [--rounds 5] [--json] [--check]
"""

from __future__ import annotations

import subprocess
import sys

from _report import Report, Target, arguments, publish

STATEMENTS = {
    "g4agent": "import g4agent",
    "g4agent, Agent and tool": "from g4agent import Agent, tool",
    "pydantic-ai": "from pydantic_ai import Agent, Tool",
    "smolagents": "from smolagents import ToolCallingAgent, tool",
}
LIMIT_MS = 200.0
_MEASURE = "import time; {}; print(time.process_time())"


def cpu_ms(statement: str, rounds: int) -> float:
    """Least processor time in ms of an interpreter that runs the statement."""
    command = [sys.executable, "-c", _MEASURE.format(statement)]
    times = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(rounds))
    return 1000 * min(map(float, times))


def measure(rounds: int) -> Report:
    """All statements; the first run of each fills the cache of compiled modules and does not count."""
    for statement in STATEMENTS.values():
        cpu_ms(statement, 1)
    start = cpu_ms("pass", rounds)
    rows = {name: {"CPU ms": cpu_ms(statement, rounds) - start} for name, statement in STATEMENTS.items()}
    targets = tuple(
        Target(f"import of {name} in ms", rows[name]["CPU ms"], LIMIT_MS)
        for name in STATEMENTS
        if name.startswith("g4agent")
    )
    return Report("Import", "ms", rows, targets, ("g4agent", "pydantic-ai-slim", "smolagents"))


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interpreters per figure (default: 5)")
    options = parser.parse_args()
    return publish(measure(options.rounds), options)


if __name__ == "__main__":
    sys.exit(main())
