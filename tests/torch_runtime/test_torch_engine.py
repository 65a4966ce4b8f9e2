"""The embedded engine on every official layer pattern: what is cached, computed, cut back and sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import anyio
import pytest
import torch
from tiny_models import VARIANTS, VOCABULARY, WINDOW
from transformers import PreTrainedModel

from g4agent.errors import ContextOverflowError, ConversationError
from g4agent.gemma4.tokens import CHANNEL_CLOSE, CHANNEL_OPEN
from g4agent.ports.runtime import GenerateRequest, SampledToken, Sampling, TokenEngine
from g4agent_torch.runtime import TorchRuntime
from g4agent_torch.thoughts import ThoughtMeter

pytestmark = pytest.mark.anyio

Runtimes = Callable[..., TorchRuntime]
GREEDY = Sampling(temperature=0)
TOLERANCE = 1e-2
"""Of log probabilities: rounding in the random E2B comes to 1e-3, one key too many or too few to more than 1."""


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(108, VOCABULARY, (length,), generator=generator).tolist()


async def generated(
    engine: TokenEngine, count: int, sampling: Sampling = GREEDY, **request: object
) -> list[SampledToken]:
    wanted = GenerateRequest(max_tokens=count, sampling=sampling, stop_ids=frozenset())
    async with aclosing(engine.generate(replace(wanted, **request))) as tokens:  # type: ignore[arg-type]
        return [token async for token in tokens]


def log_probabilities(model: PreTrainedModel, tokens: Sequence[int]) -> torch.Tensor:
    """Of every next token after one full, uncached pass of transformers' own forward: [T, V]."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0]
        return logits.log_softmax(-1)


@pytest.mark.parametrize("variant", VARIANTS)
async def test_a_run_of_steps_computes_each_token_once_and_equals_one_full_pass(
    variant: str, runtime: Runtimes, reference: Callable[[str], PreTrainedModel]
) -> None:
    """The core promise: append, generate, append, ... prefills only what is new, across windows, and loses nothing."""
    engine = await runtime(variant, prefill_chunk=7).open_engine()
    await engine.append(prompt(WINDOW + 9))
    sampled: dict[int, SampledToken] = {}
    for step in range(4):
        at = len(engine.tokens)
        sampled |= {at + i: token for i, token in enumerate(await generated(engine, 5))}
        await engine.append(prompt(6, seed=step + 1))
    final = len(engine.tokens)
    assert final == WINDOW + 9 + 4 * (5 + 6) > 2 * WINDOW
    assert engine.computed_tokens == final - 6 - 1  # the last append and the last sampled token are not needed yet
    await generated(engine, 1)
    assert engine.computed_tokens == final
    expected = log_probabilities(reference(variant), engine.tokens)
    for position, token in sampled.items():
        assert token.id == int(expected[position - 1].argmax())
        assert token.logprob == pytest.approx(float(expected[position - 1, token.id]), abs=TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
async def test_chunks_do_not_change_the_result(variant: str, runtime: Runtimes) -> None:
    """A prompt in chunks that cross the window must give what it gives in one pass."""
    results = []
    for chunk in (5, 512):
        engine = await runtime(variant, prefill_chunk=chunk).open_engine()
        await engine.append(prompt(3 * WINDOW + 2))
        results.append(await generated(engine, 4))
    assert [t.id for t in results[0]] == [t.id for t in results[1]]
    assert [t.logprob for t in results[0]] == pytest.approx([t.logprob for t in results[1]], abs=TOLERANCE)


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
async def test_truncation_gives_what_a_fresh_engine_gives(variant: str, marked: bool, runtime: Runtimes) -> None:
    """Dropping thoughts or an unfinished step must leave no trace, and cost nothing where a mark was set."""
    engine = await runtime(variant, prefill_chunk=16).open_engine()
    start = prompt(WINDOW + 5)
    await engine.append(start)
    if marked:
        await engine.mark()
    await generated(engine, 3 * WINDOW)
    before = engine.computed_tokens
    await engine.truncate(len(start))
    await engine.append(prompt(4, seed=9))
    after_cut = await generated(engine, 6)
    recomputed = engine.computed_tokens - before - 4 - 5
    assert recomputed == (0 if marked else len(start))

    fresh = await runtime(variant, prefill_chunk=16).open_engine()
    await fresh.append([*start, *prompt(4, seed=9)])
    expected = await generated(fresh, 6)
    assert [t.id for t in after_cut] == [t.id for t in expected]
    assert [t.logprob for t in after_cut] == pytest.approx([t.logprob for t in expected], abs=TOLERANCE)


async def test_the_same_seed_samples_the_same_also_when_resumed(runtime: Runtimes) -> None:
    """A run taken up in another process must go on as if nothing had happened."""
    sampling = Sampling(temperature=1.0, seed=11)
    engine = await runtime("31B").open_engine()
    await engine.append(prompt(10))
    whole = [t.id for t in await generated(engine, 12, sampling)]
    resumed = await runtime("31B").open_engine()
    await resumed.append([*prompt(10), *whole[:5]])
    assert [t.id for t in await generated(resumed, 7, sampling)] == whole[5:]
    other = await runtime("31B").open_engine()
    await other.append(prompt(10))
    assert [t.id for t in await generated(other, 12, replace(sampling, seed=12))] != whole


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.3), (5, 0.5)])
async def test_top_k_and_top_p_keep_to_the_likeliest(
    top_k: int, top_p: float, runtime: Runtimes, reference: Callable[[str], PreTrainedModel]
) -> None:
    """A truncated distribution must never give a token outside of it: top-k first, then the smallest set over top-p."""
    start = prompt(12)
    ordered = log_probabilities(reference("31B"), start)[-1].sort(descending=True)
    kept = ordered.values[: top_k or None].softmax(-1)
    allowed = ordered.indices[: int((kept.cumsum(-1) - kept < top_p).sum())].tolist()
    seen = set()
    for seed in range(40):
        engine = await runtime("31B").open_engine()
        await engine.append(start)
        (token,) = await generated(engine, 1, Sampling(1.0, top_p, top_k, seed))
        seen.add(token.id)
    assert seen <= set(allowed)
    assert len(seen) > 1 or len(allowed) == 1


async def test_the_thought_budget_holds_to_the_token(runtime: Runtimes) -> None:
    """At the cap the channel is closed by force, once, and the model goes on."""
    engine = await runtime("E4B").open_engine()
    await engine.append([*prompt(8), CHANNEL_OPEN])
    tokens = await generated(engine, 12, thought_limit=5, in_thought=True)
    assert [t.forced for t in tokens] == [False] * 5 + [True] + [False] * 6
    assert tokens[5].id == CHANNEL_CLOSE and tokens[5].logprob is None
    (first, *_) = await generated(engine, 3, thought_limit=0, in_thought=True)
    assert first.forced and first.id == CHANNEL_CLOSE


async def test_a_stop_id_is_given_out_and_ends_the_generation(runtime: Runtimes) -> None:
    """The stop token is part of the transcript: without it the turn would not be closed."""
    engine = await runtime("E2B").open_engine()
    await engine.append(prompt(9))
    plain = [t.id for t in await generated(engine, 6)]
    await engine.truncate(9)
    stopped = [t.id for t in await generated(engine, 6, stop_ids=frozenset({plain[2]}))]
    assert stopped == plain[: plain.index(plain[2]) + 1]
    assert list(engine.tokens[9:]) == stopped


async def test_the_context_window_is_a_hard_end(runtime: Runtimes) -> None:
    """Too long an append raises and appends nothing; a generation stops at the window's last token."""
    engine = await runtime("E2B", context_length=32).open_engine()
    await engine.append(prompt(28))
    with pytest.raises(ContextOverflowError):
        await engine.append(prompt(5))
    assert len(engine.tokens) == 28
    assert len(await generated(engine, 50)) == 4


async def test_engines_over_one_set_of_weights_do_not_disturb_each_other(runtime: Runtimes) -> None:
    """Several sessions at once share weights, never state."""
    starts = [prompt(20, seed=s) for s in range(3)]
    alone = []
    for start in starts:
        engine = await runtime("26B-A4B").open_engine()
        await engine.append(start)
        alone.append([t.id for t in await generated(engine, 8)])
    together: list[list[int]] = [[] for _ in starts]

    async def one(index: int) -> None:
        engine = await runtime("26B-A4B").open_engine()
        await engine.append(starts[index])
        together[index] = [t.id for t in await generated(engine, 8)]

    async with anyio.create_task_group() as group:
        for index in range(len(starts)):
            group.start_soon(one, index)
    assert together == alone


async def test_cancelling_leaves_exactly_the_tokens_that_were_given_out(runtime: Runtimes) -> None:
    """A stopped generation must not have appended a token that nobody saw."""
    engine = await runtime("12B").open_engine()
    await engine.append(prompt(20))
    seen: list[int] = []
    with anyio.CancelScope() as scope:
        async with aclosing(engine.generate(GenerateRequest(200, GREEDY, frozenset()))) as tokens:
            async for token in tokens:
                seen.append(token.id)
                if len(seen) == 7:
                    scope.cancel()
    assert list(engine.tokens[20:]) == seen and len(seen) == 7
    more = [t.id for t in await generated(engine, 3)]
    fresh = await runtime("12B").open_engine()
    await fresh.append(prompt(20))
    assert [t.id for t in await generated(fresh, 10)] == seen + more


def test_one_runtime_serves_several_event_loops(runtime: Runtimes) -> None:
    """`run_sync` starts a loop for each call: nothing in the runtime may belong to the first one."""

    async def run() -> list[int]:
        engine = await runtime("E2B").open_engine()
        await engine.append(prompt(9))
        return [t.id for t in await generated(engine, 3)]

    assert anyio.run(run) == anyio.run(run)


async def test_engines_take_turns_token_by_token(runtime: Runtimes) -> None:
    """A long generation must not hold up the others until its end."""
    order: list[int] = []

    async def one(index: int) -> None:
        engine = await runtime("31B").open_engine()
        await engine.append(prompt(20))
        async with aclosing(engine.generate(GenerateRequest(15, GREEDY, frozenset()))) as tokens:
            async for _ in tokens:
                order.append(index)

    async with anyio.create_task_group() as group:
        group.start_soon(one, 0)
        group.start_soon(one, 1)
    assert all(abs(order[:i].count(0) - order[:i].count(1)) <= 2 for i in range(len(order)))


async def test_a_prompt_can_be_cancelled_between_chunks(runtime: Runtimes) -> None:
    """Reading a long prompt takes minutes on a CPU: it must stop when told, and go on later without loss."""
    engine = await runtime("31B", prefill_chunk=8).open_engine()
    await engine.append(prompt(2000))
    async with anyio.create_task_group() as group:
        group.start_soon(generated, engine, 1)
        while not engine.computed_tokens:  # noqa: ASYNC110 (an engine tells no one about its chunks)
            await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    assert len(engine.tokens) == 2000 and 0 < engine.computed_tokens < 2000
    await engine.truncate(40)
    fresh = await runtime("31B").open_engine()
    await fresh.append(prompt(2000)[:40])
    assert [t.id for t in await generated(engine, 3)] == [t.id for t in await generated(fresh, 3)]


async def test_a_failed_pass_leaves_no_half_written_cache(runtime: Runtimes) -> None:
    """Out of memory in the middle of a pass: some layers hold its keys and some do not."""
    engine = await runtime("E4B").open_engine()
    await engine.append(prompt(30))
    whole = [t.id for t in await generated(engine, 4)]
    await engine.truncate(30)
    cache = engine._kv.layers.layers
    last, cache[11] = cache[11], None  # the last caching layer of the E4B
    with pytest.raises(AttributeError):
        await generated(engine, 4)
    assert last.get_seq_length() < 30 <= cache[10].get_seq_length()
    assert [t.id for t in await generated(engine, 4)] == whole


async def test_misuse_is_refused_and_changes_nothing(runtime: Runtimes) -> None:
    """On a GPU an id beyond the embedding is a crash of the process; here it is an error with a name."""
    engine = await runtime("E2B").open_engine()
    with pytest.raises(ConversationError, match="nothing to generate"):
        await generated(engine, 1)
    for wrong in (VOCABULARY, -1):
        with pytest.raises(ConversationError, match="not in the model"):
            await engine.append([5, wrong])
    await engine.append(prompt(3))
    with pytest.raises(ConversationError, match="Cannot cut"):
        await engine.truncate(4)
    assert list(engine.tokens) == prompt(3)


def test_a_thought_that_the_model_opens_is_counted_too() -> None:
    """The opener and the closer do not count; a reopened thought is closed at once when the budget is spent."""
    meter = ThoughtMeter(limit=2, inside=False)
    closings = []
    for token in (200, CHANNEL_OPEN, 201, 202, CHANNEL_CLOSE, 203, CHANNEL_OPEN):
        meter.see(token)
        closings.append(meter.must_close)
    assert closings == [False, False, False, True, False, False, True]
    assert not ThoughtMeter(limit=None, inside=True, used=10_000).must_close
