"""`g4agent models`: what can be run, what it needs, and what this machine has."""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import entry_points
from typing import Protocol

CONTEXT_TOKENS = 32_768
"""Length of the session whose cache is counted in the table."""


class KnownModel(Protocol):
    """One entry of a runtime's catalog: `MODELS` in the module `catalog` beside its entry point."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def note(self) -> str: ...

    def weight_bytes(self, bits: int) -> int: ...

    def kv_bytes(self, tokens: int) -> int: ...


def models() -> None:
    """List the known models, the memory that each needs, and the memory of this machine.

    Any other checkpoint of the Gemma 4 architecture runs as well: `--model FOLDER`.
    """
    from rich.text import Text

    from g4agent.cli.console import stdout, table
    from g4agent.cli.machine import gib, gpus, memory

    accelerators, ram = gpus(), memory()
    places = [(gpu.name, gpu.total, gpu.available) for gpu in accelerators] + [("memory", ram.total, ram.available)]
    room = max(available for _, _, available in places)
    rows = []
    for runtime, model in known_models():
        weights, cache = model.weight_bytes(16), model.kv_bytes(CONTEXT_TOKENS)
        fits = "yes" if weights + cache <= room else "no"
        size, window = f"{model.parameters / 1e9:.3g} B", f"{model.context_length // 1024}k"
        rows.append((model.name, runtime, size, window, gib(weights), gib(cache), fits, model.note))
    columns = ("model", "runtime", "parameters", "context", "weights", f"cache at {CONTEXT_TOKENS // 1024}k", "fits")
    console = stdout()
    console.print(table(*columns, "", rows=rows, right=frozenset(columns[2:6])))
    console.print(Text("\nSizes are for bfloat16. This machine: "), end="")
    console.print(Text("; ".join(f"{name} {gib(free)} free of {gib(total)}" for name, total, free in places)))


def known_models() -> list[tuple[str, KnownModel]]:
    """Every installed runtime's models, with the runtime's name."""
    found: list[tuple[str, KnownModel]] = []
    for entry in sorted(entry_points(group="g4agent.runtimes"), key=lambda e: e.name):
        catalog = f"{entry.module}.catalog"
        if importlib.util.find_spec(entry.module) and importlib.util.find_spec(catalog):
            found += [(entry.name, model) for model in importlib.import_module(catalog).MODELS]
    return found
