"""Python with a memory: what a call gives, what the next one finds, and what is said of what it does not find."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from g4agent import Agent
from g4agent.ports.sandbox import Box, BoxSpec, PythonCall
from g4agent.testing import ScriptedModel, call, calls, say
from g4agent_bubblewrap import BubblewrapSandbox
from g4agent_python import tools
from g4agent_python.code import run_code

pytestmark = pytest.mark.anyio

TOOLS = Path(__file__).parents[2] / "tools"
Run: TypeAlias = Callable[[str], Awaitable[dict[str, Any]]]
"""Calls the tool with code; gives its answer."""


@pytest.fixture
async def box() -> AsyncGenerator[Box, None]:
    box = await BubblewrapSandbox().open(BoxSpec(python_paths=(TOOLS,)))
    try:
        yield box
    finally:
        await box.close()


@pytest.fixture
def run(box: Box) -> Run:
    async def run(code: str) -> dict[str, Any]:
        outcome = await box.call(PythonCall("g4agent_python.running", "run_python", {"code": code}), timeout=60)
        assert outcome.error is None, outcome.error
        assert isinstance(outcome.value, dict)
        return outcome.value

    return run


def test_the_pack_has_its_tool() -> None:
    """Code may do anything once: after a crash it must not be repeated blindly."""
    assert [(tool.name, tool.effect, tool.where) for tool in tools()] == [("run_python", "once", "sandbox")]


async def test_an_agent_goes_on_where_its_last_call_ended(tmp_path: Path) -> None:
    """The first reason for the pack, in a session of an agent; calls of one step do not lose each other's names."""
    (tmp_path / "n.txt").write_text("20\n")
    model = ScriptedModel(
        [
            call("run_python", code="n = int(open('n.txt').read())\nprint('read')\nn + 1"),
            calls(call("run_python", code="a = n"), call("run_python", code="b = 2 * n")),
            call("run_python", code="a + b"),
            say("60"),
        ]
    )
    result = await Agent(model=model, tools=tools(), workspace=tmp_path, store=False).run("x")
    assert [r.value for r in result.results] == [
        {"result": "21", "output": "read"},
        {"output": ""},
        {"output": ""},
        {"result": "60"},
    ]


async def test_functions_and_classes_are_kept_and_see_later_values(run: Run) -> None:
    """A copy of a function's globals would make it work with old values, without a word."""
    await run(
        "import math, dataclasses, enum\n"
        "rate = 2\n"
        "def price(x): return helper(x) * rate\n"
        "def helper(x): return math.floor(x)\n"
        "@dataclasses.dataclass\n"
        "class Item:\n"
        "    name: str\n"
        "    def cost(self): return price(3.7)\n"
        "class Kind(enum.Enum):\n"
        "    A = 1\n"
        "def counter():\n"
        "    count = 0\n"
        "    def next_one():\n"
        "        nonlocal count\n"
        "        count += 1\n"
        "        return count\n"
        "    return next_one\n"
        "tick = counter(); tick()\n"
        "item, kind = Item('x'), Kind.A\n"
        "shared = []; also = shared; names = globals()"
    )
    await run("rate = 10\ndef helper(x): return 1\nalso.append(5)")
    got = await run(
        "price(2.5), item.cost(), isinstance(item, Item), kind is Kind.A, tick(), shared, names is globals()"
    )
    assert got == {"result": "(10, 10, True, True, 2, [5], True)"}
    assert await run("def set_rate(x):\n    global rate\n    rate = x") == {"output": ""}
    assert await run("set_rate(3); rate") == {"result": "3"}


async def test_common_decorators_and_libraries_are_kept(run: Run) -> None:
    """A cached function pickles as a name in a module that the next call does not have; arrays are large objects."""
    await run(
        "import collections, contextlib, functools, numpy as np\n"
        "@functools.lru_cache(maxsize=None)\n"
        "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "Point = collections.namedtuple('Point', 'x y')\n"
        "def twice(f):\n"
        "    @functools.wraps(f)\n"
        "    def call(*a): return f(*a) * 2\n"
        "    return call\n"
        "@twice\n"
        "def one(): return 1\n"
        "@contextlib.contextmanager\n"
        "def around(): yield Point(1, 2)\n"
        "grid = np.arange(6).reshape(2, 3); view = grid[0]\n"
        "class Base:\n"
        "    def __init__(self, x): self.x = x\n"
        "class Derived(Base):\n"
        "    def __init__(self): super().__init__(5)\n"
        "derived = Derived()"
    )
    got = await run("with around() as point: pass\nfib(50), point.y, one(), int(view.sum()), derived.x, Derived().x")
    assert got == {"result": "(12586269025, 2, 2, 3, 5, 5)"}


async def test_what_refers_to_the_code_by_name_is_named_and_the_rest_is_kept(run: Run) -> None:
    """It can be read back only where the code has run already, so checking in that very process would miss it."""
    got = await run("class Named:\n    def __reduce__(self): return 'named'\nnamed = Named()\nx = 1")
    assert got["note"].startswith("not kept for the next call: named (")
    assert await run("x") == {"result": "1"}


async def test_what_cannot_be_kept_is_named_and_the_rest_is_kept(run: Run) -> None:
    """A connection must not cost the model all of its names, nor vanish without a word."""
    got = await run(
        "import sqlite3, threading\n"
        "db = sqlite3.connect(':memory:'); lock = threading.Lock(); steps = (i for i in range(3))\n"
        "class Odd:\n"
        "    def __reduce__(self): return (int, ('no number',))\n"
        "class Deadly:\n"
        "    def __reduce__(self): return (__import__('os')._exit, (0,))\n"
        "odd, deadly, fine = Odd(), Deadly(), [1]\n"
        "def rows(): return db.execute('SELECT 1').fetchall()\n"
        "rows()"
    )
    assert got["result"] == "[(1,)]" and got["note"].startswith("not kept for the next call: ")
    for name in ("db", "lock", "steps", "odd"):
        assert f"{name} (" in got["note"]
    assert "fine" not in got["note"] and "rows" not in got["note"]
    assert await run("fine, 'db' in globals(), callable(rows)") == {"result": "([1], False, True)"}
    failed = await run("rows()")
    assert failed["error"].endswith("NameError: name 'db' is not defined")
    assert 'File "<call 1>", line 8, in rows' in failed["error"] and "def rows(): return db.execute" in failed["error"]


async def test_what_is_too_large_is_named_and_the_rest_is_kept(run: Run) -> None:
    """Every checkpoint of the session would hold it; and a failed write must not lose the names before."""
    got = await run("small = 1\nlarge = bytes(60_000_000)\nhalf = bytearray(30_000_000); other = bytearray(30_000_000)")
    assert "large (more than 48 MiB: save it to a file)" in got["note"] and "(no room: all names" in got["note"]
    assert await run("small, ('half' in globals()) + ('other' in globals())") == {"result": "(1, 1)"}


async def test_an_error_keeps_what_was_done_before_it(run: Run) -> None:
    """As at a prompt: the model mends the line that failed and goes on. Frames that are not its own are left out."""
    failed = await run("x = 1\nprint('before')\ndef f(): return 1 / 0\nimport json\njson.loads('{')")
    assert failed["output"] == "before"
    assert failed["error"].startswith('Traceback (most recent call last):\n  File "<call 1>", line 5, in <module>\n')
    assert "JSONDecodeError" in failed["error"] and "running.py" not in failed["error"]
    assert failed["error"].count("File ") == 2
    failed = await run("f()")
    assert "return 1 / 0" in failed["error"] and failed["error"].endswith("ZeroDivisionError: division by zero")
    assert "SyntaxError" in (await run("x = = 2"))["error"]
    assert (await run("raise SystemExit(3)"))["error"].endswith("SystemExit: 3")
    assert (await run("def g(): g()\ng()"))["error"].endswith("RecursionError: maximum recursion depth exceeded")
    assert await run("x") == {"result": "1"}


async def test_a_killed_call_leaves_the_names_before(run: Run, box: Box) -> None:
    """A crash in the middle leaves the file of the call before, not half of a new one."""
    await run("x = 1")
    with pytest.raises(AssertionError):
        await run("x = 2\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert await run("x") == {"result": "1"}


async def test_names_go_back_with_the_workspace(run: Run, box: Box) -> None:
    """Resume and fork restore a checkpoint's workspace: names from after it would contradict the transcript."""
    await run("x = 1")
    snapshot = await box.snapshot()
    await run("x = 2; y = 3")
    await box.restore(snapshot)
    assert await run("x, 'y' in globals()") == {"result": "(1, False)"}


async def test_broken_memory_is_said_and_left_behind(run: Run, box: Box) -> None:
    """Whatever wrote into the file, the tool works on, and the model knows that its names are gone."""
    for junk in (b"", b"junk", b"g4agent names 1, Python 2.7\n."):
        await run("x = 1")
        await box.write_file(".g4agent/python/names", junk)
        got = await run("'x' in globals()")
        assert got["result"] == "False" and "the names of the calls before are lost" in got["note"]
    assert ".g4agent/.gitignore" in await box.list_files()


async def test_output_is_shaped_and_in_order(run: Run) -> None:
    """That of processes too; a flood leaves its head and its tail, and does not fill the memory."""
    got = await run("import os, sys\nprint('a')\nos.system('echo b')\nprint('c', file=sys.stderr)\nprint('d')")
    assert got == {"output": "a\nb\nc\nd"}
    got = await run("for i in range(1_000_000): print(i)\nlist(range(100_000))")
    assert got["output"].startswith("0\n1\n") and got["output"].endswith("999999\n") and "left out]" in got["output"]
    assert len(got["output"]) < 7000 and len(got["result"]) < 5000 and "characters left out" in got["result"]
    assert (await run("print('\\ud800'); '\\ud800'"))["output"] == "\\ud800"


async def test_a_plot_becomes_a_file_and_an_image(run: Run, box: Box) -> None:
    """A model that cannot see it can say where it is; it is drawn once."""
    code = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])\nplt.show()"
    plotted = await box.call(PythonCall("g4agent_python.running", "run_python", {"code": code}), timeout=60)
    got, (image,) = plotted.value, plotted.images
    file = await box.read_file("plots/call-1-1.png")
    assert file.startswith(b"\x89PNG") and image.data == file and image.name == "plots/call-1-1.png"
    assert got == {"plots": [{"image": "plots/call-1-1.png", "media_type": "image/png", "bytes": len(file)}]}
    assert await run("len(ax.lines)") == {"result": "1"}


async def test_hostile_values_do_not_break_the_answer(run: Run) -> None:
    """A value whose repr fails, an exception without words, a name that is shadowed."""
    await run(
        "class Bad:\n"
        "    def __repr__(self): raise ValueError('no repr')\n"
        "class Mute(Exception):\n"
        "    def __str__(self): raise ValueError\n"
    )
    assert (await run("Bad()"))["error"].endswith("ValueError: no repr")
    assert "Mute" in (await run("raise Mute"))["error"]
    assert await run("print = open = repr = str = None") == {"output": ""}
    assert await run("1 + 1") == {"result": "2"}
    await run("import os\nos.chdir('/tmp')\nkept = 1")
    assert await run("os.getcwd(), kept") == {"result": "('/workspace', 1)"}


def test_code_without_end_is_ended_with_its_output() -> None:
    """Being killed from outside would lose what it printed and all names of the call."""
    namespace: dict[str, Any] = {}
    endless = "print('begun')\nx = 1\nwhile True:\n    try:\n        y = 2\n    except Exception:\n        pass"
    ran = run_code(endless, namespace, 1, 0.3)
    assert ran.output == "begun" and ran.error.startswith("no end after 0.3 s") and namespace["x"] == 1
