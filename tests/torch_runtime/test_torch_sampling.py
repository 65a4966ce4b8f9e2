"""Sampling against transformers' own filters, and the numbers it draws with."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from g4agent.errors import ModelLoadError
from g4agent.ports.runtime import Sampling
from g4agent_torch.sampling import choose, uniform


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 64, 0.95), (0.5, 5, 1.0), (1.7, 40, 0.4)])
def test_the_distribution_is_that_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    """Temperature, top-k and top-p in another order, or off by one, give another distribution."""
    logits = torch.randn(100, generator=torch.Generator().manual_seed(3)) * 3
    scores = TemperatureLogitsWarper(temperature)(torch.zeros(1, 1), logits[None])
    scores = TopPLogitsWarper(top_p)(torch.zeros(1, 1), TopKLogitsWarper(top_k)(torch.zeros(1, 1), scores))
    expected = scores.softmax(-1)[0]
    draws = 4000
    counts = torch.zeros(100)
    for position in range(draws):
        chosen = choose(logits, Sampling(temperature, top_p, top_k, seed=1), position)
        token, logprob = chosen.id, chosen.logprob
        counts[token] += 1
        assert logprob == pytest.approx(float(logits.log_softmax(0)[token]), abs=1e-5)
    assert not counts[expected == 0].any()
    assert float((counts / draws - expected).abs().max()) < 0.03  # about four standard deviations


def test_zero_temperature_is_greedy() -> None:
    """Greedy decoding must not depend on the seed."""
    logits = torch.tensor([0.0, 3.0, 2.9])
    assert {choose(logits, Sampling(temperature=0, seed=s), 0).id for s in range(20)} == {1}


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_refused(temperature: float, wrong: float) -> None:
    """The place of the first NaN, again and again, would look like an answer."""
    with pytest.raises(ModelLoadError, match="at position 7 are not numbers"):
        choose(torch.tensor([0.0, wrong, 2.9]), Sampling(temperature), 7)


def test_numbers_depend_on_seed_and_position_alone_and_are_spread_evenly() -> None:
    """Neighbouring positions or seeds with alike numbers would repeat tokens."""
    for numbers in ([uniform(7, p) for p in range(2000)], [uniform(s, 7) for s in range(2000)]):
        assert all(0 <= n < 1 for n in numbers) and len(set(numbers)) == 2000
        assert sum(numbers) / 2000 == pytest.approx(0.5, abs=0.03)
        assert sum(a * b for a, b in pairwise(numbers)) / 2000 == pytest.approx(0.25, abs=0.03)
    assert uniform(7, 3) == 0.42056992093657886  # a stored session must go on with the same numbers after an update
