"""Test doubles for agents: a scripted conversation and a scripted token engine, so that no model is needed.

    model = ScriptedModel([call("add", a=1, b=2), say("It is 3.")])
    result = Agent(model=model, tools=[add], store=False).run_sync("What is 1 + 2?")
    model.assert_complete()

`ScriptedModel` plays at the level of calls and text. `ScriptedRuntime` plays token ids through the real renderer and
parser, so malformed output can be scripted as well.
"""

from g4agent.testing.conversation import Reply, Script, ScriptedModel, call, calls, say
from g4agent.testing.engine import ScriptedEngine, ScriptedRuntime
from g4agent.testing.tokenizer import ByteTokenizer

__all__ = [
    "ByteTokenizer",
    "Reply",
    "Script",
    "ScriptedEngine",
    "ScriptedModel",
    "ScriptedRuntime",
    "call",
    "calls",
    "say",
]
