"""What an engine's mask may let through in each step of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from g4agent.errors import ConfigError
from g4agent.gemma4.grammar import answer_grammar, call_grammar
from g4agent.gemma4.tokens import CALL_CLOSE
from g4agent.ports.runtime import CallRules, ConversationSetup, OutputMask
from g4agent.tools import Tool
from g4agent.toolset import ToolSet


class CallMasks:
    """The masks of one conversation.

    Args:
        accepts: Whether a grammar compiles in the engine; None where it cannot mask.
    """

    def __init__(self, accepts: Callable[[str], bool] | None) -> None:
        self.accepts = accepts
        self.unmasked: Mapping[str, tuple[str, ...]] = {}
        """By tool, the rules of its schema that no mask enforces, only the validator."""
        self._rules = CallRules()
        self._tools = ToolSet()
        self._thinking = False
        self._grammar: str | None = None
        self._answer: str | None = None

    def take_setup(self, setup: ConversationSetup) -> None:
        """Compiles what the setup asks for. Raises ConfigError where the engine cannot keep it."""
        self._rules, self._thinking = setup.calls, setup.thinking
        if (choice := setup.calls.choice) not in ("auto", "required", "none", *(tool.name for tool in setup.tools)):
            raise ConfigError(f"there is no tool called {choice!r} to choose", hint="Name one of the agent's tools.")
        if choice != "auto" and self.accepts is None:
            raise ConfigError(f"this model's engine cannot promise the tool choice {choice!r}", hint="Use auto.")
        self.take_tools(ToolSet(setup.tools))
        if setup.answer_schema is not None and setup.calls.masked and self.accepts is not None:
            self._answer = answer_grammar(setup.answer_schema)

    def take_tools(self, tools: ToolSet) -> None:
        """These are the tools from now on."""
        self._tools = tools
        self._grammar = self._grammar_of(list(tools.values()))

    def mask(self, turn: Sequence[int]) -> OutputMask | None:
        """What may be written behind the ids of the present model turn; None where nothing needs a mask."""
        if self.accepts is None or not (self._tools or self._answer):
            return None
        choice = self._rules.choice
        calls: Literal["allowed", "required", "forbidden"] = "allowed"
        if choice == "none" or not self._tools:
            calls = "forbidden"
        elif choice != "auto" and CALL_CLOSE not in turn:
            calls = "required"
        named = calls == "required" and choice != "required"
        grammar = self._grammar_of([self._tools[choice]]) if named else self._grammar
        return OutputMask(grammar, calls, self._answer, may_think=self._thinking)

    def _grammar_of(self, tools: Sequence[Tool]) -> str | None:
        if not self._rules.masked or self.accepts is None or not tools:
            return None
        grammar = call_grammar(tools, parallel=self._rules.parallel, accepts=self.accepts)
        self.unmasked = {**self.unmasked, **grammar.unmasked}
        return grammar.text
