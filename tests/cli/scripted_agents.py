"""Agents for the tests of the command line, by `scripted_agents:NAME`. Their models only play scripts."""

from __future__ import annotations

from pathlib import Path

import anyio

from g4agent import Agent, Policy, Rule, tool
from g4agent.testing import ScriptedModel, ScriptedRuntime, call, calls, say
from g4agent_coding import tools as coding_tools

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m [bold red]markup[/] \u202ereversed \r over"


@tool(effect="pure", where="host")
def add(a: int, b: int) -> int:
    """Add two integers.

    Args:
        a: One.
        b: The other.
    """
    return a + b


@tool(effect="pure", where="host")
def echo(text: str) -> str:
    """Give back a text.

    Args:
        text: Any text.
    """
    return text


@tool(effect="once", where="host")
def pay(amount: int) -> str:
    """Pay.

    Args:
        amount: In cents.
    """
    return f"paid {amount}"


@tool(effect="idempotent")
def write(text: str) -> int:
    """Write a text into out.txt.

    Args:
        text: Any text.
    """
    return Path("out.txt").write_text(text)


@tool(effect="pure", where="host")
async def wait(seconds: float) -> str:
    """Wait.

    Args:
        seconds: How long.
    """
    await anyio.sleep(seconds)
    return "waited"


ADDER = [
    call("add", a=1, b=2),
    calls(call("add", a=3, b="x"), call("subtract", a=1)),
    say("It is 3.", thought="One and two\nmake three."),
]
adder = Agent(model=ScriptedModel(ADDER), tools=[add])
hostile = Agent(model=ScriptedModel([call("echo", text=HOSTILE), say(HOSTILE, thought=HOSTILE)]), tools=[echo])
lost = Agent(model=ScriptedModel([call("nothing")] * 3), tools=[add])
broken = Agent(model=ScriptedModel([]))
two_turns = Agent(model=ScriptedModel([call("nothing"), say(""), say("Second answer.")]))
waiter = Agent(model=ScriptedModel([call("wait", seconds=60), say("Never said.")]), tools=[wait])
waiter_again = Agent(model=ScriptedModel([say("Gone on.")]), tools=[wait])
boxed = Agent(model=ScriptedModel([call("write", text="hello"), say('{"written": 5}')]), tools=[write])
patient = Agent(model=ScriptedModel([call("wait", seconds=3), call("wait", seconds=0), say("Waited.")]), tools=[wait])
one_by_one = Agent(
    model=ScriptedModel([call("add", a=1, b=1), say("Two."), call("wait", seconds=60)]), tools=[add, wait]
)
one_by_one_again = Agent(model=ScriptedModel([call("add", a=1, b=1), say("Gone on."), say("Lazy.")]), tools=[add, wait])
liar = Agent(model=ScriptedModel([say("All done.")]), tools=[add])
careful = Agent(
    model=ScriptedModel([call("pay", amount=5), say("Finished.")]), tools=[pay], policy=Policy((Rule("ask", "pay"),))
)
only_looked = Agent(model=ScriptedModel([call("add", a=1, b=2), call("pay", amount=5), say("Paid.")]), tools=[add, pay])

MENDING = [
    call("run_tests"),
    call("edit_file", path="totals.py", old="a - b", new="a + b"),
    call(
        "run_command", command="mkdir .github; cp totals.py .github/workflows; ln -s /etc/passwd link; echo 1 > x.log"
    ),
    call("run_tests"),
    say("It subtracted."),
]
mender = Agent(model=ScriptedModel(MENDING), tools=coding_tools(full=True))
mender_lost = Agent(model=ScriptedModel([MENDING[1], *[call("nothing")] * 3]), tools=coding_tools(full=True))
looker = Agent(
    model=ScriptedModel([call("list_files"), call("git_log"), say("Nothing to do.")]), tools=coding_tools(full=True)
)
SLOPPY = [
    '<|tool_call>call:add{"a":1,b:2<tool_call|><|tool_response>',
    "<|tool_call>call:add{a:1,b:<turn|>",
    "It is 3.<turn|>",
]
sloppy = Agent(model=ScriptedRuntime(SLOPPY), tools=[add])
sleeper = mender.replace(model=ScriptedModel([MENDING[1], call("run_command", command="sleep 60"), say("Never said.")]))
sleeper_again = mender.replace(model=ScriptedModel([say("Gone on.")]))
