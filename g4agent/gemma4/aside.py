"""A question to the model about the conversation so far, which leaves no trace in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import anyio

from g4agent.events import Usage
from g4agent.gemma4 import render
from g4agent.gemma4.conversation import NativeConversation
from g4agent.gemma4.parse import AnswerText, Parser, State, initial_state_from
from g4agent.gemma4.tokens import CHANNEL_CLOSE, TURN_CLOSE, Control, Segment, encode_segments
from g4agent.ports.runtime import GenerateRequest, OutputMask, Sampling


async def ask_aside(
    conversation: NativeConversation,
    base: int,
    question: str,
    max_tokens: int,
    sampling: Sampling,
    stopping: Callable[[], bool] = lambda: False,
) -> str | None:
    """Asks behind the first `base` tokens, as a user turn of its own; no call can be made, no thought is thought.

    Whatever happens, the transcript is then the one of before. What it took is counted in `conversation.usage`.

    Args:
        conversation: Between two generations.
        base: Where a turn has ended, or could.
        question: The user turn.
        max_tokens: Of the answer.
        sampling: How it is sampled.
        stopping: Asked at every token; where it says so, the answer is given up.

    Returns:
        The answer's text, trimmed; None where it was given up.

    Raises:
        ContextOverflowError: The question does not fit; see `fits`.
    """
    before = list(conversation.engine.tokens)
    prompt = _prompt(conversation, before[:base], question)
    parser, parts = Parser(conversation.tokenizer, State.TEXT), list[str]()
    try:
        await conversation.engine.truncate(base)
        await conversation.engine.mark()
        await conversation.engine.append(prompt)
        conversation.count(Usage(prompt_tokens=len(prompt)))
        mask = OutputMask(calls="forbidden") if conversation.masks.accepts is not None else None
        request = GenerateRequest(max_tokens, sampling, thought_limit=0, mask=mask)
        async with aclosing(conversation.engine.generate(request)) as tokens:
            async for token in tokens:
                conversation.count(Usage(generated_tokens=1))
                parts += [event.text for event in parser.feed(token.id) if isinstance(event, AnswerText)]
                if stopping():
                    return None
        parts += [event.text for event in parser.finish() if isinstance(event, AnswerText)]
    finally:
        with anyio.CancelScope(shield=True):
            await conversation.engine.truncate(base)
            await conversation.engine.append(before[base:])
    return "".join(parts).strip()


def fits(conversation: NativeConversation, base: int, question: str, max_tokens: int) -> bool:
    """Whether there is room for a question behind the first `base` tokens, and for its answer."""
    prompt = _prompt(conversation, list(conversation.engine.tokens[:base]), question)
    return base + len(prompt) + max_tokens <= conversation.info.context_length


def _prompt(conversation: NativeConversation, tokens: list[int], question: str) -> list[int]:
    """The end of the turn under way, the question, and the beginning of the answer."""
    closing: list[Segment] = []
    newline = encode_segments(conversation.tokenizer, render.turn_close(token_present=True))
    if tokens[-1] == TURN_CLOSE:
        closing = render.turn_close(token_present=True)
    elif tokens[-len(newline) - 1 :] != [TURN_CLOSE, *newline]:
        thinks = initial_state_from(tokens) is not State.TEXT
        closing = [*([Control(CHANNEL_CLOSE)] if thinks else []), *render.turn_close()]
    opening = render.model_turn_open(thinking=False, variant=conversation.info.variant)
    return encode_segments(conversation.tokenizer, [*closing, *render.user_turn(question), *opening])
