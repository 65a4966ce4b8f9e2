"""Grammar masks for the embedded runtime: which tokens may come next inside a call, and which must."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import Final

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from g4agent.errors import ConversationError
from g4agent.gemma4.tokens import CALL_OPEN, CHANNEL_OPEN, RESPONSE_OPEN
from g4agent.ports.runtime import STOP_IDS, OutputMask
from g4agent_torch.thoughts import ThoughtMeter

MAX_COMPILED: Final = 64
"""Grammars kept compiled; beyond, the oldest goes."""


class GrammarCompiler:
    """Lark text → matchers, each compiled once for all sessions. Safe to use from several threads.

    Args:
        tokenizer: The checkpoint's `tokenizer.json`, read at the first grammar.
        width: Entries of the logits.
    """

    def __init__(self, tokenizer: Path, width: int) -> None:
        self._file, self.width = tokenizer, width
        self._tokenizer: LLTokenizer | None = None
        self._compiled: dict[str, LLMatcher] = {}
        self._lock = threading.Lock()

    def accepts(self, text: str) -> bool:
        """Whether a grammar compiles."""
        return not self._template(text).is_error()

    def matcher(self, text: str) -> LLMatcher:
        """A fresh matcher. Raises ConversationError for a grammar that does not compile."""
        template = self._template(text)
        if template.is_error():
            raise ConversationError(f"The grammar does not compile: {template.get_error()}")
        return template.deep_copy()

    def _template(self, text: str) -> LLMatcher:
        with self._lock:
            if text not in self._compiled:
                if self._tokenizer is None:
                    file = self._file.read_text(encoding="utf-8")
                    self._tokenizer = LLTokenizer(file, n_vocab=self.width, eos_token=sorted(STOP_IDS))
                if len(self._compiled) >= MAX_COMPILED:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[text] = LLMatcher(self._tokenizer, LLMatcher.grammar_from_lark(text), log_level=0)
            return self._compiled[text]


class Guide:
    """Follows one generation and says what may come next. Outside calls and typed answers it says nothing.

    Thoughts are free, but do not end the turn while a call is due.
    """

    def __init__(self, mask: OutputMask, compiler: GrammarCompiler, thought: ThoughtMeter) -> None:
        self._mask, self._compiler, self._thought = mask, compiler, thought
        self._may_think = mask.may_think and not thought.inside
        self._matcher: LLMatcher | None = None
        self._forced: deque[int] = deque()
        self._called = self._answering = False

    def forced(self) -> int | None:
        """The one token that has to come next, or None where there is a choice."""
        if self._forced:
            return self._forced[0]
        choice = self._choice()
        return choice[0] if choice is not None and len(choice) == 1 and not self._answer_open() else None

    def allowed(self) -> Tensor | None:
        """Bool [width], True for what may come next; None where anything may. For the token that is sampled next."""
        if self._matcher is not None:
            return self._bits(self._matcher)
        if self._thought.inside:
            due = self._mask.calls == "required" and not self._called
            return self._all_but(*STOP_IDS) if due else None
        choice = self._choice()
        if choice is not None:
            allowed = torch.zeros(self._compiler.width, dtype=torch.bool)
            if self._answer_open():
                assert self._mask.answer is not None
                allowed = self._bits(self._compiler.matcher(self._mask.answer))
            allowed[choice] = True
            return allowed
        if self._mask.calls == "forbidden":
            return self._all_but(CALL_OPEN)
        return None

    def see(self, token: int) -> None:
        """Takes note of a token that became part of the sequence."""
        if self._forced:
            self._forced.popleft()
        if self._matcher is not None:
            self._consume(token)
        elif self._thought.inside:
            self._may_think = False
        elif token == CALL_OPEN:
            self._called = True
            if self._mask.grammar is not None:
                self._matcher = self._compiler.matcher(self._mask.grammar)
                self._forced.extend(self._matcher.compute_ff_tokens())
        elif self._answer_open() and token != CHANNEL_OPEN:
            assert self._mask.answer is not None
            self._answering = True
            self._matcher = self._compiler.matcher(self._mask.answer)
            self._consume(token)

    def _choice(self) -> list[int] | None:
        """Where only a few control tokens may come next (beside an answer's first): these."""
        if self._matcher is not None or self._thought.inside:
            return None
        think = [CHANNEL_OPEN] if self._may_think else []
        if self._mask.calls == "required" and not self._called:
            return [CALL_OPEN, *think]
        if self._mask.answer is not None:
            if self._called:
                return [CALL_OPEN, RESPONSE_OPEN]
            return think if self._mask.calls == "forbidden" else [CALL_OPEN, *think]
        return None

    def _answer_open(self) -> bool:
        """Whether a typed answer may begin here."""
        free = self._mask.calls != "required" and not self._called and not self._answering
        return self._mask.answer is not None and free and self._matcher is None and not self._thought.inside

    def _consume(self, token: int) -> None:
        assert self._matcher is not None
        if self._answering and token in STOP_IDS and self._matcher.is_accepting():
            self._matcher = None
            return
        if not self._matcher.consume_token(token):
            raise ConversationError(f"The grammar refuses token {token}: {self._matcher.get_error()}")
        if not self._answering and self._matcher.is_accepting():
            self._matcher = None
        elif not self._forced:
            self._forced.extend(self._matcher.compute_ff_tokens())

    def _all_but(self, *refused: int) -> Tensor:
        allowed = torch.ones(self._compiler.width, dtype=torch.bool)
        allowed[list(refused)] = False
        return allowed

    def _bits(self, matcher: LLMatcher) -> Tensor:
        bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
        return torch.from_numpy(bits[: self._compiler.width].astype(np.bool_))
