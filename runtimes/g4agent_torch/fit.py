"""`g4agent fit`: whether a model and its context fit on this machine. Loads no torch."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from g4agent.errors import ConfigError, G4AgentError, ModelLoadError
from g4agent_torch.memory import HEAD_BITS, OFFICIAL, RATES, SLIDING_BITS, Shape, shape_of

LENGTHS = (8_192, 32_768, 131_072, 262_144)
WEIGHT_BITS = (16, 4)
CPU_CHUNK, GPU_CHUNK = 256, 2048
"""Tokens per forward pass of a prompt, as `load` takes them."""

MAIN_MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Place:
    """Memory that a model can be in, in bytes."""

    name: str
    total: int
    available: int
    chunk: int


@dataclass(frozen=True, slots=True)
class Row:
    """What one context length needs at one rate of the KV cache, in bytes."""

    context: int
    kv_bits: str
    kv_bytes: int
    """In main memory; on an accelerator, longer passes need longer windows."""
    fits: dict[str, dict[str, bool]]
    """By bits of the weights, then by place."""


def fit(
    model: Annotated[str, typer.Argument(help="nano, an official hub id, or a checkpoint folder.")],
    kv_sliding_bits: Annotated[
        str, typer.Option("--kv-sliding-bits", help="16 or 8: bits per number of sliding windows.")
    ] = "16",
    head_bits: Annotated[
        str,
        typer.Option("--head-bits", help="16, or 4 with AVX-512: bits per weight that find the likely tokens."),
    ] = "16",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which context lengths of a model fit on this machine, at each rate of the compressed KV cache.

    Weights and cache are counted from the model's configuration, to the byte; activations, the programs themselves and
    4-bit scales come on top: leave some percent free.
    """
    try:
        name, shape = find(model)
        if kv_sliding_bits not in SLIDING_BITS:
            raise ConfigError(f"Windows have no {kv_sliding_bits!r} bits.", hint=f"Use {' or '.join(SLIDING_BITS)}.")
        if head_bits not in HEAD_BITS:
            raise ConfigError(f"Output heads have no {head_bits!r} bits.", hint=f"Use {' or '.join(HEAD_BITS)}.")
    except G4AgentError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    where = places()
    rows = table(shape, where, kv_sliding_bits, head_bits)
    if as_json:
        typer.echo(json.dumps(_as_json(name, shape, where, rows, head_bits), indent=2))
    else:
        _print(name, shape, where, rows, head_bits)


def find(model: str) -> tuple[str, Shape]:
    """A model's name and shape. Raises ModelLoadError for one that is neither official nor in a folder."""
    if model == "nano":
        text = importlib.resources.files("g4agent_torch").joinpath("nano", "config.json").read_text(encoding="utf-8")
        return model, shape_of(json.loads(text))
    short = {name.removeprefix("google/gemma-4-").removesuffix("-it").lower(): name for name in OFFICIAL}
    known = model if model in OFFICIAL else short.get(model.lower())
    if known is not None:
        return known, OFFICIAL[known]
    try:
        file = Path(model).expanduser() / "config.json"
        return str(file.parent), shape_of(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the ~ of nobody
        raise ModelLoadError(
            f"{model} is neither an official model nor a folder with a config.json.",
            hint=f"Known are nano, {', '.join(OFFICIAL)}; short: {', '.join(short)}.",
        ) from error


def places() -> list[Place]:
    """This machine's main memory, and each of its accelerators."""
    from g4agent.cli.machine import gpus, memory

    ram = memory()
    cards = [Place(f"{gpu.name} ({index})", gpu.total, gpu.available, GPU_CHUNK) for index, gpu in enumerate(gpus())]
    return [Place(MAIN_MEMORY, ram.total, ram.available, CPU_CHUNK), *cards]


def table(shape: Shape, where: Sequence[Place], sliding_bits: str = "16", head_bits: str = "16") -> list[Row]:
    """Every context length that the model is built for, at every rate that its heads allow. A coded output head is in
    main memory only."""
    lengths = [length for length in LENGTHS if length <= shape.context_length] or [shape.context_length]
    rows = []
    for length in lengths:
        for rate in RATES:
            cache = shape.kv_bytes(length, rate, CPU_CHUNK, sliding_bits)
            if cache is None:
                continue
            fits = {
                str(bits): {
                    place.name: shape.weight_bytes(bits)
                    + (shape.kv_bytes(length, rate, place.chunk, sliding_bits) or 0)
                    + (shape.head_bytes(head_bits) if place.name == MAIN_MEMORY else 0)
                    <= place.available
                    for place in where
                }
                for bits in WEIGHT_BITS
            }
            rows.append(Row(length, rate, cache, fits))
    return rows


def _as_json(name: str, shape: Shape, where: Sequence[Place], rows: Sequence[Row], head_bits: str) -> dict[str, Any]:
    return {
        "model": name,
        "parameters": shape.parameters,
        "per_layer_embedding_parameters": shape.embedding_parameters,
        "weight_bytes": {str(bits): shape.weight_bytes(bits) for bits in WEIGHT_BITS},
        "head_bytes": shape.head_bytes(head_bits),
        "token_bytes": {rate: shape.token_bytes(rate) for rate in RATES},
        "places": [asdict(place) for place in where],
        "rows": [asdict(row) for row in rows],
    }


def _print(name: str, shape: Shape, where: Sequence[Place], rows: Sequence[Row], head_bits: str) -> None:
    from g4agent.cli import console
    from g4agent.cli.machine import gib

    out = console.stdout()
    embeddings = shape.embedding_parameters
    apart = f", {embeddings / 1e9:.3g} B of them per-layer embeddings" if embeddings else ""
    weights = " · ".join(f"{gib(shape.weight_bytes(bits))} at {bits} bits" for bits in WEIGHT_BITS)
    out.print(console.plain(f"{name}: {shape.parameters / 1e9:.3g} B parameters{apart}"))
    out.print(f"weights: {weights}")
    if head := shape.head_bytes(head_bits):
        out.print(f"output head in {head_bits} bits: {gib(head)} more in main memory")
    for place in where:
        out.print(console.plain(f"{place.name}: {gib(place.available)} free of {gib(place.total)}"))
    out.print()
    columns = ["context", "KV bits", "KV cache", *(f"weights {bits} bits" for bits in WEIGHT_BITS)]
    lines = [
        (_length(row.context), row.kv_bits, gib(row.kv_bytes), *(_where(row.fits[str(b)]) for b in WEIGHT_BITS))
        for row in rows
    ]
    out.print(console.table(*columns, rows=lines, right=frozenset(columns[:3])))


def _length(tokens: int) -> str:
    return f"{tokens // 1024}K" if tokens >= 1024 else str(tokens)


def _where(fits: dict[str, bool]) -> str:
    """The places that are large enough."""
    return ", ".join(name for name, enough in fits.items() if enough) or "no"
