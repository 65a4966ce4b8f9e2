"""What every token runtime must hold: run each of `RUNTIME_CHECKS` on a loaded runtime.

    @pytest.mark.parametrize("check", RUNTIME_CHECKS)
    def test_runtime(check):
        anyio.run(RUNTIME_CHECKS[check], load("model"))

A check raises AssertionError where the runtime breaks the contract of `g4agent.ports.runtime`; its docstring says what
goes wrong then. Masks (`GrammarRuntime`) and speed are not looked at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from g4agent.errors import ContextOverflowError
from g4agent.gemma4.render import model_turn_open, thought_open, user_turn
from g4agent.gemma4.tokens import BOS, CHANNEL_CLOSE, CONTROL_TOKENS, Control, encode_segments
from g4agent.ports.runtime import GenerateRequest, Sampling, TokenEngine, TokenRuntime

RuntimeCheck = Callable[[TokenRuntime], Awaitable[None]]
RUNTIME_CHECKS: dict[str, RuntimeCheck] = {}
"""Every check, by its name."""

GREEDY = Sampling(temperature=0)
NEVER_STOP: frozenset[int] = frozenset()


def _check(run: RuntimeCheck) -> RuntimeCheck:
    RUNTIME_CHECKS[run.__name__] = run
    return run


def _prompt(runtime: TokenRuntime) -> list[int]:
    """A dialogue's beginning, as the core renders it, up to where the model speaks."""
    segments = [Control(BOS), *user_turn("The lamp stands on the table."), *model_turn_open(False, "small")]
    return encode_segments(runtime.tokenizer, segments)


@asynccontextmanager
async def _prompted(runtime: TokenRuntime) -> AsyncIterator[TokenEngine]:
    engine = await runtime.open_engine()
    try:
        await engine.append(_prompt(runtime))
        yield engine
    finally:
        await engine.close()


async def _generated(engine: TokenEngine, count: int, stop: frozenset[int] = NEVER_STOP, seed: int = 0) -> list[int]:
    """Up to `count` tokens, sampled at temperature 1 by the seed."""
    request = GenerateRequest(count, Sampling(seed=seed), stop)
    async with aclosing(engine.generate(request)) as tokens:
        return [token.id async for token in tokens]


@_check
async def text_never_becomes_control(runtime: TokenRuntime) -> None:
    """A user who types `<turn|>` ends the turn, and a tool's result can make calls."""
    for string in CONTROL_TOKENS.values():
        ids = runtime.tokenizer.encode(f"a {string} b{string}")
        assert not CONTROL_TOKENS.keys() & set(ids), f"encoding {string!r} as text gives its control token"


@_check
async def text_comes_back(runtime: TokenRuntime) -> None:
    """A call's arguments are not what the model wrote."""
    for text in ("Order 4 chairs.", "  two\n\nlines\t", "naïve 東京 🪑 \u200d", '{"a": [1, 2]}'):
        ids = runtime.tokenizer.encode(text)
        assert runtime.tokenizer.decode(ids) == text, f"{text!r} comes back as {runtime.tokenizer.decode(ids)!r}"
        assert all(0 <= id < runtime.tokenizer.vocab_size for id in ids), "an id is outside the vocabulary"


@_check
async def what_is_appended_is_the_sequence(runtime: TokenRuntime) -> None:
    """The stored transcript is not what the model has read."""
    more = runtime.tokenizer.encode("Yes.")
    async with _prompted(runtime) as engine:
        await engine.append(more)
        assert list(engine.tokens) == [*_prompt(runtime), *more], "tokens are not what was appended"


@_check
async def what_is_yielded_is_kept(runtime: TokenRuntime) -> None:
    """A token is shown and not stored, or the token budget does not hold."""
    async with _prompted(runtime) as engine:
        ids = await _generated(engine, 7)
        assert len(ids) == 7, f"{len(ids)} tokens came where 7 were asked for and nothing stops them"
        assert list(engine.tokens) == [*_prompt(runtime), *ids], "tokens are not the prompt and what was yielded"


@_check
async def closing_early_keeps_what_was_yielded(runtime: TokenRuntime) -> None:
    """After Ctrl-C the transcript holds tokens that nobody has seen."""
    async with _prompted(runtime) as engine:
        seen: list[int] = []
        async with aclosing(engine.generate(GenerateRequest(9, GREEDY, NEVER_STOP))) as tokens:
            async for token in tokens:
                seen.append(token.id)
                if len(seen) == 3:
                    break
        assert list(engine.tokens) == [*_prompt(runtime), *seen], "closed after 3 tokens, it has not kept just these"


@_check
async def a_stop_token_is_the_last(runtime: TokenRuntime) -> None:
    """The model writes on after its turn, and answers itself."""
    async with _prompted(runtime) as engine:
        free = await _generated(engine, 5)
    stop = free[2]
    async with _prompted(runtime) as engine:
        ids = await _generated(engine, 5, frozenset({stop}))
        assert ids == free[: free.index(stop) + 1], "the stop token is not yielded, or not the last"
        assert engine.tokens[-1] == stop, "the stop token is not kept"


@_check
async def truncating_forgets(runtime: TokenRuntime) -> None:
    """A generation that was taken back still has an influence."""
    async with _prompted(runtime) as engine:
        await engine.mark()
        first = await _generated(engine, 6)
        await engine.truncate(len(_prompt(runtime)))
        assert list(engine.tokens) == _prompt(runtime), "more or less is left than was asked for"
        assert await _generated(engine, 6) == first, "it goes on in another way than before"


@_check
async def the_seed_decides(runtime: TokenRuntime) -> None:
    """A run cannot be replayed, and a resumed one takes another way."""
    async with _prompted(runtime) as engine:
        whole = await _generated(engine, 8, seed=5)
    async with _prompted(runtime) as engine:
        parts = [*await _generated(engine, 3, seed=5), *await _generated(engine, 5, seed=5)]
    assert parts == whole, "the same seed gives other tokens, or depends on where a generation begins"


@_check
async def engines_do_not_disturb_each_other(runtime: TokenRuntime) -> None:
    """Two sessions at a time write into each other's history."""
    async with _prompted(runtime) as alone:
        expected = await _generated(alone, 6)
    async with _prompted(runtime) as one, _prompted(runtime) as other:
        await other.append(runtime.tokenizer.encode("Something else."))
        mixed: list[int] = []
        for _ in range(3):
            mixed += await _generated(one, 2)
            await _generated(other, 2)
        assert mixed == expected, "an engine goes on in another way while a second one is used"


@_check
async def the_context_window_is_an_end(runtime: TokenRuntime) -> None:
    """A long session breaks inside the engine, where the core can no longer close it well."""
    too_many: Sequence[int] = runtime.tokenizer.encode(".")[:1] * runtime.info.context_length
    async with _prompted(runtime) as engine:
        try:
            await engine.append(too_many)
        except ContextOverflowError:
            assert list(engine.tokens) == _prompt(runtime), "it was refused, and something was appended"
        else:
            raise AssertionError("more tokens than the context window has were appended")


@_check
async def a_thought_ends_at_its_limit(runtime: TokenRuntime) -> None:
    """The budget for thinking does not hold."""
    request = GenerateRequest(5, GREEDY, NEVER_STOP, thought_limit=2, in_thought=True)
    async with _prompted(runtime) as engine:
        await engine.append(encode_segments(runtime.tokenizer, thought_open()))
        async with aclosing(engine.generate(request)) as tokens:
            ids = [token.id async for token in tokens]
    assert CHANNEL_CLOSE in ids[:3], "after 2 tokens of a thought <channel|> was not written"


@_check
async def work_is_counted_once(runtime: TokenRuntime) -> None:
    """Every step reads the whole history again, and nobody notices."""
    more = runtime.tokenizer.encode("Go on.")
    async with _prompted(runtime) as engine:
        for _ in range(3):
            await _generated(engine, 4)
            await engine.append(more)
        await _generated(engine, 4)
        computed = engine.computed_tokens
    length = len(_prompt(runtime)) + 3 * (4 + len(more)) + 4
    assert length - 4 <= computed <= length, f"{computed} tokens were computed for a sequence of {length}"
