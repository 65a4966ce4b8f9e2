"""The live tools' JSON Schemas as one grammar of the native call syntax, in llguidance's Lark dialect.

The text names control tokens by id and nothing else of an engine, so whatever runs llguidance (the embedded runtime,
vLLM, llama.cpp) takes it as it is.
"""

from g4agent.gemma4.grammar.calls import CallGrammar, answer_grammar, call_grammar

__all__ = ["CallGrammar", "answer_grammar", "call_grammar"]
