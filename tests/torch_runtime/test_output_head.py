"""`head_bits=4`: codes find the likely tokens, weights score them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from typer.testing import CliRunner

from g4agent.cli.app import app
from g4agent.cli.options import AgentOptions
from g4agent.errors import ConfigError
from g4agent.ports.runtime import GenerateRequest, Sampling
from g4agent_torch import load
from g4agent_torch.kv import DenseKVStore
from g4agent_torch.memory import OFFICIAL, Shape
from g4agent_torch.output_head import BEST, BLOCK_ROWS, ScreenedHead, check


@pytest.fixture(autouse=True)
def avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the processors where it is allowed, wherever the tests run."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


SHAPE = OFFICIAL["google/gemma-4-E2B-it"]
CPU = torch.device("cpu")


def weight_of(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, columns, generator=generator).mul_(0.05).to(dtype)


@pytest.mark.parametrize("rows", [5000, BLOCK_ROWS + 1007])
@torch.no_grad()
def test_likely_tokens_have_the_logits_of_the_weight(rows: int) -> None:
    """Rows that fill neither the last block nor the last 16: the best are exact, all others near."""
    weight = weight_of(rows, 256)
    head, state = ScreenedHead(weight), weight[77] * 40 + torch.randn(256).bfloat16()
    found, exact = head(state).float(), functional.linear(state, weight).float()
    assert found.shape == (rows,) and found.argmax() == exact.argmax() == 77
    best = exact.topk(BEST // 4).indices
    assert torch.allclose(found[best], exact[best], rtol=2**-8)
    assert 0 < (found - exact).norm() < 0.09 * exact.norm()
    assert functional.kl_div(found.log_softmax(-1), exact.softmax(-1), reduction="sum") < 0.01


@torch.no_grad()
def test_a_small_vocabulary_is_scored_by_the_weight_alone() -> None:
    """Fewer tokens than are scored anew, and not a multiple of anything."""
    weight, state = weight_of(1003, 64, torch.float32), torch.randn(64)
    assert torch.allclose(ScreenedHead(weight)(state), functional.linear(state, weight), atol=1e-5)


@torch.no_grad()
def test_the_bytes_are_those_that_fit_counts() -> None:
    for dtype, rows in ((torch.bfloat16, 1003), (torch.float32, 1024)):
        head = ScreenedHead(weight_of(rows, 96, dtype))
        shape = Shape({"vocab_size": rows, "hidden_size": 96}, ())
        assert head.codes.nbytes + head.scales.nbytes == shape.head_bytes("4", dtype.itemsize)
        assert shape.head_bytes("16") == 0


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_keeps_its_cap_and_its_answers(dtype: str) -> None:
    """nano's whole vocabulary but 1,024 tokens has coarse scores; the cap is applied behind the head as ever."""
    logits = []
    for bits in ("16", "4"):
        decoder: Any = load("nano", dtype=dtype, device="cpu", offline=True, head_bits=bits)._decoder
        decoder._head.register_forward_hook(lambda module, state, out: out * 5)
        cache = DenseKVStore(decoder.config).new()
        logits.append(decoder.forward([2, 105, 700], cache, want_logits=True))
        assert logits[-1].abs().max() <= decoder.config.final_logit_softcapping
    assert logits[0].argmax() == logits[1].argmax() and not torch.equal(*logits)


@pytest.mark.anyio
async def test_sessions_run_with_it() -> None:
    runtime = load("nano", offline=True, device="cpu", head_bits="4", kv_bits="4")
    plain = load("nano", offline=True, device="cpu", kv_bits="4")
    assert runtime.info.parameters == plain.info.parameters and runtime.info.fingerprint == plain.info.fingerprint
    said = []
    for one in (runtime, plain):
        engine = await one.open_engine()
        await engine.append(one.tokenizer.encode("What does the first order cost?"))
        request = GenerateRequest(max_tokens=12, stop_ids=frozenset(), sampling=Sampling(temperature=0))
        said.append([token.id async for token in engine.generate(request)])
    assert said[0] == said[1]


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"head_bits='8' .*\n.*'16' or '4'"):
        load("nano", head_bits="8")
    with pytest.raises(ConfigError, match=r"head_bits=4 .*\n.*'16' or '4'"):
        load("nano", head_bits=4)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="CPU only") as refused:
        check("4", torch.device("cuda"), SHAPE)
    assert refused.value.hint is not None and "device=cpu" in refused.value.hint
    with pytest.raises(ConfigError, match="no multiple of 32"):
        check("4", CPU, Shape({"hidden_size": 40}, ()))
    check("4", CPU, SHAPE)
    check("16", torch.device("cuda"), SHAPE)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    with pytest.raises(ConfigError, match="AVX-512"):
        check("4", CPU, SHAPE)


def test_fit_and_the_command_line_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As more main memory: 252 MB of E2B, which can decide whether it fits."""
    from g4agent_torch import fit

    assert AgentOptions(head_bits="4").configure().model_options == {"head_bits": "4"}
    need = SHAPE.weight_bytes(16) + (SHAPE.kv_bytes(8192, "4", fit.CPU_CHUNK) or 0)
    monkeypatch.setattr(fit, "places", lambda: [fit.Place(fit.MAIN_MEMORY, need, need, fit.CPU_CHUNK)])
    for bits, fits, line in (("16", "memory", False), ("4", "no", True)):
        told = CliRunner().invoke(app, ["fit", "e2b", "--head-bits", bits], env={"COLUMNS": "200"})
        (row,) = [line for line in told.output.splitlines() if line.split()[:2] == ["8K", "4"]]
        assert row.split()[4] == fits and ("output head in 4 bits" in told.output) == line
    assert CliRunner().invoke(app, ["fit", "e2b", "--head-bits", "3"]).exit_code == 1
    assert SHAPE.head_bytes("4") == 262_144 * (768 + 1536 // 32 * 4)
