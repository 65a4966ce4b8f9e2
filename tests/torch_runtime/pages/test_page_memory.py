"""A limit on the memory of keys and values: it holds, and no session notices."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from page_sessions import answered, prompt

from g4agent.errors import ConfigError
from g4agent_torch import load
from g4agent_torch.pages.state import CacheState

pytestmark = pytest.mark.anyio
BITS = ("16", "4")


@pytest.mark.parametrize("bits", BITS)
async def test_sessions_that_do_not_fit_together_wait_on_disk(tmp_path: Path, bits: str) -> None:
    """Three sessions by turns in memory for one and a half: each says what it says alone."""
    alone = load("nano", kv_bits=bits, offline=True)
    expected = []
    for index in range(3):
        engine = await alone.open_engine()
        said = []
        for turn in range(3):
            await engine.append(prompt(10 * index + turn, 500))
            said += await answered(engine, 20)
        expected.append(said)
    limit = int(CacheState(engine._kv).bytes_at(engine._kv.length)[0] * 1.5)
    runtime = load("nano", kv_bits=bits, kv_memory=limit, offline=True)
    engines = [await runtime.open_durable_engine(tmp_path) for _ in range(3)]
    found = [[] for _ in engines]  # type: ignore[var-annotated]
    for turn in range(3):
        for index, engine in enumerate(engines):
            await engine.append(prompt(10 * index + turn, 500))
            found[index] += await answered(engine, 20)
            assert sum(each.held_bytes for each in engines) <= limit
    assert found == expected
    assert [engine.computed_tokens for engine in engines] == [len(engine.tokens) - 1 for engine in engines]


async def test_sessions_that_come_back_for_a_few_tokens_make_room_too(tmp_path: Path) -> None:
    """None completes a page: four of them took more than twice the limit, a hundred would have taken all memory."""
    limit = 700_000
    runtime = load("nano", kv_bits="4", kv_memory=limit, offline=True)
    engines = [await runtime.open_durable_engine(tmp_path) for _ in range(4)]
    for index, engine in enumerate(engines):
        await engine.append(prompt(index, 916))
        await answered(engine, 2)
    for _ in range(2):
        for engine in engines:
            await engine.append(prompt(9, 3))
            await answered(engine, 2)
            assert 0 < sum(each.held_bytes for each in engines) <= limit
    assert [engine.computed_tokens for engine in engines] == [len(engine.tokens) - 1 for engine in engines]


@pytest.mark.parametrize("bits", BITS)
async def test_a_context_is_cut_to_what_fits(tmp_path: Path, bits: str) -> None:
    """The planner then ends a session that grows beyond it, as with any full context."""
    limit = 3_000_000
    runtime = load("nano", kv_bits=bits, kv_memory=limit, offline=True)
    length = runtime.info.context_length
    assert 512 < length < 131_072
    engine = await runtime.open_engine()
    await engine.append(prompt(0, length))
    await answered(engine, 0)
    cache = runtime._store.new()
    for start in range(0, length, 1000):
        for index, layer in enumerate(cache.layers.layers):
            heads, size = (1, 64) if index in (1, 3) else (2, 32)
            if index < 4:
                states = torch.randn(1, heads, min(1000, length - start), size)
                layer.update(states, states)
    held = CacheState(cache).bytes_at(length)[0]
    assert limit * 0.95 < held <= limit


def test_a_limit_that_leaves_no_session_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.0001 GB"):
        load("nano", kv_memory=100_000, offline=True)


@pytest.mark.parametrize("wrong", [{"kv_disk": -1}, {"kv_disk": "20GB"}, {"kv_memory": 0}, {"kv_memory": 1.5e9}])
def test_what_is_no_number_of_bytes_is_refused(wrong: dict[str, Any]) -> None:
    """A quota below zero would remove all pages, and a text would end the thread that writes them."""
    with pytest.raises(ConfigError, match="is no number of bytes"):
        load("nano", offline=True, **wrong)


def test_a_context_that_was_asked_for_is_not_cut_in_silence() -> None:
    lines: list[str] = []
    runtime = load("nano", kv_memory=3_000_000, context_length=100_000, offline=True, progress=lines.append)
    assert lines == [f"nano: 0.003 GB of keys and values have room for {runtime.info.context_length} tokens"]


async def test_a_checkpoint_finds_its_cache_put_on_disk_while_it_waited(tmp_path: Path) -> None:
    """Another session's pass comes first, and needs the memory: the step's commit failed on an empty cache."""
    runtime = load("nano", kv_bits="4", offline=True)
    engine = await runtime.open_durable_engine(tmp_path)
    await engine.append(prompt(0, 500))
    await answered(engine, 3)
    expected = await engine.checkpoint()
    begun, checkpoint_waits, found = threading.Event(), threading.Event(), []

    def pass_of_another() -> int:
        begun.set()
        checkpoint_waits.wait()
        return engine.put_on_disk()

    async def checkpoint() -> None:
        await anyio.to_thread.run_sync(begun.wait)
        found.append(await engine.checkpoint())

    async with anyio.create_task_group() as group:
        group.start_soon(runtime._turns.run, pass_of_another)
        group.start_soon(checkpoint)
        await anyio.sleep(0.2)
        checkpoint_waits.set()
    assert engine.held_bytes == 0 and expected is not None and found == [expected]
    assert await engine.checkpoint() == expected
    await engine.truncate(100)
    assert await engine.checkpoint() is None, "what was saved is more than what is left"


@pytest.mark.parametrize("change", ["truncate", "mark", "close"])
async def test_nothing_changes_while_another_engine_puts_the_cache_on_disk(tmp_path: Path, change: str) -> None:
    """Else the other session's pass fails, or files are named by tokens that their content is not of."""
    runtime = load("nano", kv_bits="4", offline=True)
    engine = await runtime.open_durable_engine(tmp_path)
    await engine.append(prompt(0, 500))
    await answered(engine, 3)
    changed = False

    async def change_it() -> None:
        nonlocal changed
        await (engine.truncate(100) if change == "truncate" else engine.mark() if change == "mark" else engine.close())
        changed = True

    async with anyio.create_task_group() as group:
        with engine._busy:  # as `put_on_disk` has it, in another engine's thread
            group.start_soon(change_it)
            await anyio.sleep(0.1)
            assert not changed and len(engine.tokens) == 503
    assert changed and len(engine.tokens) == {"truncate": 100, "mark": 503, "close": 0}[change]


@pytest.mark.parametrize("bits", BITS)
async def test_few_marks_are_in_memory_and_all_of_it_is_counted(tmp_path: Path, bits: str) -> None:
    """Each keeps windows from being freed: sixteen of a 31B's would have taken 27 GB that nobody had counted."""
    runtime = load("nano", kv_bits=bits, offline=True)
    engine = await runtime.open_durable_engine(tmp_path)
    ends = []
    for turn in range(4):
        await engine.append(prompt(turn, 700))
        await engine.mark()
        ends.append(len(engine.tokens))
        await answered(engine, 3)
    present = CacheState(engine._kv).bytes_at(engine._kv.length)[0]
    windows = sum(span.keys.nbytes + span.values.nbytes for spans in engine._kv._marks.values() for span in spans)
    assert len(engine._kv._marks) == 2 and present < engine.held_bytes <= present + windows
    computed = engine.computed_tokens
    await engine.truncate(ends[1])
    await engine.append(prompt(9, 5))
    said = await answered(engine, 2)
    assert engine.computed_tokens - computed == 6, "one that is not in memory is found on disk"
    twin = await runtime.open_engine()
    await twin.append(engine.tokens[:-2])
    assert [token.id for token in await answered(twin, 2)] == [token.id for token in said]


async def test_over_the_limit_marks_go_first_to_disk_alone(tmp_path: Path) -> None:
    """One session, whose context fits, took more than the limit for as long as it ran."""
    runtime = load("nano", kv_bits="4", kv_memory=700_000, offline=True)
    engine = await runtime.open_durable_engine(tmp_path)
    for turn in range(3):
        await engine.append(prompt(turn, 300))
        await engine.mark()
        await answered(engine, 140)
        assert 0 < engine.held_bytes <= 700_000
