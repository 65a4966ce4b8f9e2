"""The tool: the names of the calls before, then the code, then its plots, then the names for the next call."""

from __future__ import annotations

import fcntl
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import answers_refusals, private_folder
from g4agent_python.code import run_code
from g4agent_python.plots import save_plots, use_files

CODE_SECONDS = 60.0
SAVING_SECONDS = 40.0
"""For what comes before and after the code: a call is killed when it takes longer than both together."""
NOT_INSTALLED = "no names are kept: that needs the library cloudpickle (pip install 'g4agent[python]')"


@tool(effect="once", timeout=CODE_SECONDS + SAVING_SECONDS)
@answers_refusals
def run_python(code: str) -> dict[str, Any]:
    """Run Python code. Names stay for the next call; the value of a last expression is the result.

    Args:
        code: Statements.
    """
    main = ModuleType("__main__")  # classes and functions of the code belong to it, and pickle by value
    sys.modules["__main__"] = main
    sys.path.insert(0, str(Path.cwd()))
    folder = private_folder("python")
    use_files()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the calls of a step run in parallel, these one after the other
        try:
            from g4agent_python.memory import Memory
        except ModuleNotFoundError:
            return _run(code, main, 1, [NOT_INSTALLED])
        memory = Memory(folder / "names", vars(main))
        notes = memory.load()
        answer = _run(code, main, memory.begin(code), notes)
        notes = memory.save()
        return _noted(answer, notes)


def _run(code: str, main: ModuleType, number: int, notes: list[str]) -> dict[str, Any]:
    """Runs the code as the session's call of that number; what it came to, without what there is nothing of."""
    workspace = Path.cwd()
    ran = run_code(code, vars(main), number, CODE_SECONDS)
    plots, problems = save_plots(workspace, number)
    answer = {"result": ran.result, "output": ran.output, "error": ran.error, "plots": plots}
    return _noted({name: value for name, value in answer.items() if value} or {"output": ""}, [*notes, *problems])


def _noted(answer: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    before = [answer["note"]] if "note" in answer else []
    return answer | {"note": "; ".join([*before, *notes])} if notes else answer
