"""Passes of one token in bfloat16 on a CPU: another kernel, the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from torch.nn import functional

from g4agent_torch import load
from g4agent_torch.decoder import Decoder
from g4agent_torch.kv import DenseKVStore
from g4agent_torch.one_token import pass_of, products_of_many_rows, reads_faster_alone

PROMPT = [2, 105, 700, 900, 1100, 1300]
onednn: Any = torch.backends.mkldnn


@pytest.fixture(autouse=True)
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the processors where the kernel is used, wherever the tests run."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.parametrize(("rows", "columns"), [(7, 32), (1003, 640), (4099, 192)])
def test_products_are_rounded_once_from_exact_sums(rows: int, columns: int) -> None:
    """Lossless: no further from the exact product than bfloat16 rounding, whatever the number of rows."""
    torch.manual_seed(0)
    weight, state = torch.randn(rows, columns).bfloat16(), torch.randn(columns).bfloat16()
    exact = weight.double() @ state.double()
    with torch.no_grad(), pass_of(1):
        found = functional.linear(state, weight)
    slack = 1e-5 * (weight.double().abs() @ state.double().abs())  # of sums in float32
    assert found.dtype == torch.bfloat16
    assert ((found.double() - exact).abs() <= exact.abs() * 2**-8 + slack).all()


def decoder_of(dtype: str) -> Decoder:
    decoder = load("nano", dtype=dtype, device="cpu", offline=True)._decoder
    assert decoder is not None
    return decoder


def logits_after(decoder: Decoder, ids: list[int]) -> list[torch.Tensor]:
    """After each token, all passes of one."""
    cache = DenseKVStore(decoder.config).new()
    found = [decoder.forward([id], cache, want_logits=True) for id in ids]
    return [logits for logits in found if logits is not None]


@torch.no_grad()
def test_a_model_answers_as_without_it() -> None:
    """Over all layers and the head, its soft cap included: the difference is that of two orders of adding up."""
    decoder = decoder_of("bfloat16")
    quick = logits_after(decoder, PROMPT)
    decoder._one_token_kernel = False
    plain = logits_after(decoder, PROMPT)
    exact = logits_after(decoder_of("float32"), PROMPT)
    for found, usual, truth in zip(quick, plain, exact, strict=True):
        assert found.abs().max() <= decoder.config.final_logit_softcapping
        assert (found - truth).norm() <= 1.5 * (usual - truth).norm()
        assert functional.kl_div(found.log_softmax(-1), usual.softmax(-1), reduction="sum") < 0.01


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "tokens", "on"), [("bfloat16", 1, False), ("bfloat16", 2, True), ("float32", 1, True)]
)
def test_only_passes_of_one_token_in_bfloat16_use_it(dtype: str, tokens: int, on: bool) -> None:
    """Many tokens would take ten times as long without oneDNN."""
    decoder, seen = decoder_of(dtype), []
    decoder._head.register_forward_hook(lambda *_: seen.append(onednn.enabled))
    decoder.forward(PROMPT[:tokens], DenseKVStore(decoder.config).new(), want_logits=True)
    assert seen == [on] and onednn.enabled


def test_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads_faster_alone(torch.device("cpu"), torch.bfloat16)
    assert not reads_faster_alone(torch.device("cuda"), torch.bfloat16)
    assert not reads_faster_alone(torch.device("cpu"), torch.float32)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not reads_faster_alone(torch.device("cpu"), torch.bfloat16)


@pytest.mark.parametrize("chosen", [True, False])
def test_the_switch_goes_back_to_what_it_was(chosen: bool) -> None:
    """Also after an error. Someone who saved it within a pass of one token and brings it back leaves it off: prompts
    must not suffer for it."""
    onednn.enabled = chosen
    try:
        for tokens in (1, 2):
            with pytest.raises(MemoryError), pass_of(tokens):
                assert onednn.enabled == (tokens == 2)
                raise MemoryError
            assert onednn.enabled == chosen
    finally:
        onednn.enabled = True


def test_products_with_other_things_than_weights_are_as_ever() -> None:
    """Attention by tables takes twenty times as long without oneDNN. Other threads' passes are none of its business."""
    with pass_of(1):
        with products_of_many_rows():
            assert onednn.enabled
        assert not onednn.enabled
        other = threading.Thread(target=lambda: products_of_many_rows().__enter__())
        other.start()
        other.join()
        assert not onednn.enabled
    with products_of_many_rows():
        assert onednn.enabled


def test_frozen_flags_do_not_stop_a_pass() -> None:
    program = "import torch; from g4agent_torch.one_token import pass_of; torch.backends.disable_global_flags()"
    subprocess.run([sys.executable, "-c", f"{program}\nfor n in (1, 2):\n  with pass_of(n): pass"], check=True)


def test_a_child_that_is_forked_within_a_pass_can_compute() -> None:
    """The lock would be held for ever by a thread that the child has not."""
    with pass_of(1):
        child = os.fork()
        if child == 0:
            with pass_of(2):
                os._exit(0 if onednn.enabled else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_pass_of_many_tokens_waits_for_the_switch() -> None:
    """Two models in one process: neither's prompt is computed without oneDNN."""
    seen: list[bool] = []

    def prompt() -> None:
        with pass_of(100):
            seen.append(onednn.enabled)

    with pass_of(1):
        other = threading.Thread(target=prompt)
        other.start()
        other.join(0.05)
        assert seen == []
    other.join(10)
    assert seen == [True]
