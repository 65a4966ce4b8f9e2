"""How sure a model was of a call, read from the probabilities of its tokens."""

from __future__ import annotations

import math

from g4agent.events import CallSignals
from g4agent.gemma4.tokens import CALL_CLOSE, CALL_OPEN
from g4agent.ports.runtime import SampledToken, Tokenizer


class CallMeter:
    """Follows a generation; `take` gives the signals of the call that has just ended."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[SampledToken] | None = None

    def see(self, token: SampledToken) -> None:
        """Takes note of a token."""
        if token.id == CALL_OPEN:
            self._tokens = []
        elif self._tokens is not None and token.id != CALL_CLOSE:
            self._tokens.append(token)

    def take(self) -> CallSignals | None:
        """The signals of the last call; None where the engine gave no probabilities."""
        tokens, self._tokens = self._tokens or [], None
        if all(token.logprob is None for token in tokens):
            return None
        name = next((i + 1 for i in range(len(tokens)) if "{" in self._text(tokens[: i + 1])), len(tokens))
        kept = math.prod(token.allowed_mass for token in tokens)
        return CallSignals(_probability(tokens[:name]), _probability(tokens[name:]), 1.0 - kept)

    def _text(self, tokens: list[SampledToken]) -> str:
        return self._tokenizer.decode([token.id for token in tokens])


def _probability(tokens: list[SampledToken]) -> float:
    return math.exp(sum(token.logprob or 0.0 for token in tokens))
