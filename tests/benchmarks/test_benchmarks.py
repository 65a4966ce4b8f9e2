"""The benchmarks run and report; their figures are judged by `make bench`."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from _bf16_attention import library
from _report import Report, Target, publish

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def _run(script: str, *options: str, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / script), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def _report(script: str, *options: str, timeout: int = 300) -> dict[str, Any]:
    done = _run(script, *options, "--json", timeout=timeout)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_step_overhead_measures_all_frameworks() -> None:
    """A peer whose interface has changed must be noticed here, not when a release is due."""
    report = _report("step_overhead.py", "--steps", "3", "5", "--rounds", "1")
    names = {"g4agent", "g4agent with store", "g4agent, native transcript", "pydantic-ai", "smolagents"}
    assert report["rows"].keys() == names
    assert all(row[f"N = {n}"] > 0 for row in report["rows"].values() for n in (3, 5))


def test_import_time_measures_all_frameworks() -> None:
    """The same for imports."""
    report = _report("import_time.py", "--rounds", "1")
    assert {"g4agent", "pydantic-ai", "smolagents"} <= report["rows"].keys()


def test_many_tokens_measures_all_ways() -> None:
    """One round proves that it runs, not that it is fast."""
    report = _report("many_tokens.py", "--models", "E2B", "--rounds", "1")
    assert report["rows"].keys() == {"E2B"} and min(report["rows"]["E2B"].values()) > 0


def test_gpu_attention_without_a_gpu_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing measured must not look like a target met."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = _run("decode_attention_gpu.py", "--check")
    assert done.returncode == 2 and "no CUDA GPU" in done.stderr and not done.stdout


def test_coding_oracle_plays_problems_through_the_sandbox() -> None:
    """Red, stopped, green: the tools, the time limit and the judge agree about HumanEval's solutions and our own."""
    report = _report("coding_oracle.py", "--count", "2", "--check")
    assert report["rows"] == {
        "HumanEval": {"of": 2, "red": 2, "stopped": 2, "green": 2},
        "wrong answer": {"of": 2, "red": 2, "stopped": None, "green": 2},
        "endless recursion": {"of": 2, "red": 2, "stopped": None, "green": 2},
        "endless loop": {"of": 2, "red": None, "stopped": 2, "green": 2},
    }


def test_masked_calls_take_fewer_passes() -> None:
    """The whole way from cases to figures; CPU seconds of one round are too few to judge."""
    report = _report("masking.py", "--count", "4", "--rounds", "1")
    rows = report["rows"]
    assert (
        rows["greedy, masked"]["passes"] < rows["greedy, free"]["passes"] and rows["greedy, masked"]["valid %"] == 100
    )


def test_no_injection_of_agentdojo_gets_through() -> None:
    """Control tokens from text, or a call that ran unasked, would miss the targets."""
    done = _run("injection.py", "--check", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]["banking"]["cases"] > 100


def test_decode_attention_measures_both_sides() -> None:
    """Ours and PyTorch's at every rate; a small cache proves that it runs, not that it is fast."""
    report = _report("decode_attention.py", "--tokens", "1024", "--rounds", "1", "--shapes", "270M", "31B")
    here = library() is not None
    for row in report["rows"].values():
        bf16 = [row.pop(column) for column in ("bf16 kernel ms", "x bf16 at 4", "x bf16 at 3.5")]
        assert all(figure > 0 if here else figure is None for figure in bf16) and all(row.values())
    assert len(report["rows"]) == 2 and ("no bf16 kernel" in report["title"]) != here


@pytest.mark.parametrize("script", ["decode_attention.py --tokens", "codec.py --vectors"])
def test_parts_of_pages_are_refused(script: str) -> None:
    """A cache of fewer tokens than asked for would look like a quick one."""
    done = _run(*script.split(), "200")
    assert done.returncode == 2 and "200 is no multiple of 128" in done.stderr


def test_codec_meets_theory() -> None:
    """Distortion and bytes are exact claims: they hold on any machine."""
    done = _run("codec.py", "--sizes", "64", "128", "--vectors", "2048", "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_kv_memory_counts_all_caches() -> None:
    """Storages of ours and of the peers at a short context."""
    report = _report("kv_memory.py", "--tokens", "4096", "--peer-tokens", "256")
    assert {"bfloat16", "g4agent, 4 bits, V only", "turboquant, bits=4"} <= report["rows"].keys()
    short = _report("kv_memory.py", "--tokens", "300", "--peer-tokens", "256")["rows"]["g4agent, 4 bits, V only"]
    assert short["GB"] < report["rows"]["g4agent, 4 bits, V only"]["GB"] / 2


@pytest.mark.slow
def test_kv_quality_on_real_weights() -> None:
    """A codec that meets theory on normal vectors and fails on a model's keys; fetches a model of 100 MB once."""
    report = _report("kv_quality.py", "--quick")
    ours, uniform = report["rows"]["smollm2-135m, 4 bits"], report["rows"]["smollm2-135m, min-max 4 bits"]
    assert ours["bits"] < uniform["bits"] and ours["KL x 1000"] < uniform["KL x 1000"]
    assert ours["ppl +%"] < 2 and ours["top-1 %"] > 93


@pytest.mark.slow
def test_end_to_end_measures_every_cache() -> None:
    """A peer that no longer takes the model, or a cache of ours that answers differently; fetches 250 MB once."""
    rows = _report("end_to_end.py", "--tokens", "1024", "--rounds", "3", timeout=1200)["rows"]  # slow in bfloat16
    row = {name.removeprefix("1024 tokens, "): figures for name, figures in rows.items()}
    assert row["4 bits"]["KL x 1000"] < 100 and row["packed heads"]["KL x 1000"] < 10
    assert row["2.5 bits"]["global MB"] < row["4 bits"]["global MB"] and row["4 bits"]["encode %"] > 0
    assert row["4 bits, as it runs"]["KL x 1000"] < 100
    heads = {"4 bits, prepacked head": 100, "4 bits, 4-bit head": 100, "4 bits, int4 head": 1000}
    assert (heads.keys() <= row.keys()) == (torch.backends.cpu.get_cpu_capability() == "AVX512")
    assert all(row[name]["KL x 1000"] < most for name, most in heads.items() if name in row)
    assert row["quanto 4 bits"]["ms/token"] > 0 and row["turboquant 4 bits"]["MB"] > row["DynamicCache"]["MB"]


def test_sandbox_latency_measures_a_box_and_its_absence() -> None:
    """A box that cannot be opened, or a tool that fails in it, must not look like a fast one."""
    report = _report("sandbox_latency.py", "--rounds", "1", "--calls", "2")
    rows = report["rows"]
    assert all(rows["bubblewrap"][column] > 0 for column in ("cold", "first call", "command", "call"))
    assert rows["subprocess.run"]["call"] > 0 and rows["bubblewrap / subprocess"]["command"] > 0


def test_snapshot_cost_measures_a_change_and_the_whole() -> None:
    """A snapshot that is not taken must not look like a cheap one."""
    report = _report("snapshot_cost.py", "--files", "200", "--rounds", "2")
    changed, whole = (report["rows"][f"bubblewrap, {kind}"] for kind in ("one file changed", "whole"))
    assert all(row[column] > 0 for row in (changed, whole) for column in ("archive", "compression"))
    assert whole["restore"] > 0


@pytest.mark.parametrize(("figure", "check", "code"), [(1.0, True, 0), (1.1, True, 1), (1.1, False, 0)])
def test_only_a_missed_target_fails_and_only_a_check(figure: float, check: bool, code: int) -> None:
    """A gate that cannot fail is none."""
    report = Report("title", "ms", {"row": {"column": figure}}, (Target("figure", figure, 1.0),))
    assert publish(report, Namespace(check=check, json=False)) == code


def test_resume_kills_a_session_and_finds_it_again() -> None:
    """The script itself fails where the two processes disagree about a logit."""
    report = _report("resume.py", "--model", "nano", "--tokens", "600")
    row = report["rows"]["600 tokens"]
    assert row["computed"] == 1 and row["restored s"] > 0 and 0 < row["held MB"] < row["disk MB"]
