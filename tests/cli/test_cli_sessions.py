"""`g4agent sessions`: listing, telling and going on with what is stored."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from command_line import Command

from g4agent.cli.sessions import size

BRIEF = """
from g4agent import Agent, Budget

agent = Agent(model="nano", budget=Budget(step_tokens=30), model_options={"kv_bits": "2.5"})
"""
"""A true model that says little."""


def _run(g4agent: Command, agent: str, *options: str) -> str:
    """Id of a new session of the agent."""
    done = g4agent("run", "Some prompt", "--agent", f"scripted_agents:{agent}", "--json", *options)
    started: str = done.stdout.splitlines()[0]
    return started.split('"session_id": "')[1].split('"')[0]


def _memory(g4agent: Command, id: str) -> tuple[str, str]:
    """What the list says that a session's keys and values take, and would take without compression."""
    (line,) = [line for line in g4agent("sessions", "list").stdout.splitlines() if line.startswith(id)]
    memory, plain = re.findall(r"[\d.]+ (?:B|[KMG]iB)", line)[:2]
    return memory, plain


def _cache(done: subprocess.CompletedProcess[str]) -> tuple[int, float]:
    """After the last step of a run with `--json`: the tokens that the window holds, and the bytes that each takes."""
    (*_, last) = [json.loads(line) for line in done.stdout.splitlines() if '"step_finished"' in line]
    return last["context"]["window"], last["context"]["token_bytes"]


def test_sessions_are_listed_last_used_first(g4agent: Command) -> None:
    """The list is how an id is found again."""
    first, second = _run(g4agent, "adder"), _run(g4agent, "lost")
    header, *lines = g4agent("sessions", "list").stdout.splitlines()
    assert " ".join(header.split()) == "session age agent model steps tokens memory plain status prompt"
    assert [line.split()[0] for line in lines] == [second, first]
    assert lines[0].split()[-3:-1] == ["too_many_errors", "Some"]


def test_sizes_are_in_the_unit_that_fits() -> None:
    assert [size(n) for n in (0, 1023, 1024, 65_536, 1_600_000, 3 << 30, 5 << 50)] == [
        *("0 B", "1023 B", "1.0 KiB", "64 KiB", "1.5 MiB", "3.0 GiB", "5120 TiB")
    ]


def test_the_story_of_a_session_is_told_from_the_store(g4agent: Command) -> None:
    """What was seen live can be read later, by the beginning of the id."""
    id = _run(g4agent, "adder")
    story = g4agent("sessions", "show", id[:-1]).stdout.splitlines()
    assert story[0].startswith(f"session {id} · scripted_agents:adder · scripted · ")
    assert story[1:5] == ["> Some prompt", "→ add(a=1, b=2)", "  ran on the host · 0.0 s", "← add: 3"]
    assert story[-6:-3] == [
        "✗ subtract: there is no tool called subtract; the tools are: add",
        "thought: One and two",
        "make three.",
    ]
    assert story[-3:] == ["It is 3.", "done · 4 steps · 0 + 0 tokens · 0.0 s", "  context: 0 tokens"]


def test_the_story_says_who_answered_what(g4agent: Command) -> None:
    """Months later it must be clear that a person let the payment go through, when, and what they said."""
    id = _run(g4agent, "careful", "--headless")
    waiting = g4agent("sessions", "show", id).stdout.splitlines()
    assert waiting[2] == "→ pay(amount=5)" and waiting[3].startswith("  ? ")
    assert waiting[4] == f"  answer with: g4agent approve {id}-1 [--deny]"
    assert g4agent("approve", f"{id}-1", "--comment", "as agreed").returncode == 0
    g4agent("sessions", "resume", id)
    told = g4agent("sessions", "show", id).stdout.splitlines()
    assert told[2:4] == waiting[2:4] and told.count("→ pay(amount=5)") == 1
    assert told[4].startswith("  approved at 20") and told[4].endswith(" UTC: as agreed")
    assert told[6:8] == ['← pay: "paid 5"', "Finished."]


def test_the_story_says_what_was_mended(g4agent: Command) -> None:
    """A call that ran otherwise than the model wrote it must be known as such."""
    story = g4agent("sessions", "show", _run(g4agent, "sloppy")).stdout.splitlines()
    mended = story.index("→ add(a=1, b=2)") + 1
    assert story[mended].startswith("  mended: ") and "missing_brace" in story[mended]
    assert story[mended + 2] == "← add: 3"
    assert [line for line in story if line.startswith("✗ add: ")]


def test_a_true_models_story_has_its_tokens_and_its_cache(g4agent: Command) -> None:
    """What each step took, in tokens and time, adds up to the whole; and the context's share of memory is told."""
    done = g4agent("run", "Hello", "--model", "nano", "--max-tokens", "200", "--json")
    id = done.stdout.split('"session_id": "')[1].split('"')[0]
    story = g4agent("sessions", "show", id, "-v").stdout
    spent = r" · (\d+) \+ (\d+) tokens.* · (\d+\.\d) s$"
    steps = re.findall(r"^step \d+" + spent, story, re.MULTILINE)
    ((*whole, seconds),) = re.findall(r"^.* · \d+ steps?" + spent, story, re.MULTILINE)
    assert [str(sum(int(step[i]) for step in steps)) for i in (0, 1)] == whole and int(whole[1]) > 0
    assert float(seconds) == round(json.loads(done.stdout.splitlines()[-1])["usage"]["seconds"], 1)
    memory, plain = _memory(g4agent, id)
    cache = f"{memory} of keys and values ({plain} uncompressed)"
    assert re.search(rf"^  context: [1-9]\d* tokens · {re.escape(cache)}$", story, re.MULTILINE)


def test_the_story_of_hostile_text_moves_no_cursor(g4agent: Command) -> None:
    """What a model thought and said is as untrusted in the store as it was live."""
    story = g4agent("sessions", "show", _run(g4agent, "hostile"), "-v").stdout
    assert "thought: " in story and "[bold red]markup[/]" in story
    assert not any(character in story for character in "\x1b\x07\x9b\u202e\r")


def test_a_session_finds_its_agent_again(g4agent: Command) -> None:
    """`resume` needs no `--agent`: the store knows the reference."""
    id = _run(g4agent, "adder")
    done = g4agent("sessions", "resume", id, "And now?")
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "→ add(a=1, b=2)")
    assert g4agent("sessions", "show", id).stdout.count("\n> ") == 2


def test_a_finished_run_cannot_go_on_without_a_prompt(g4agent: Command) -> None:
    """There is nothing to go on with, and the message says what to give."""
    done = g4agent("sessions", "resume", _run(g4agent, "adder"))
    assert done.returncode == 1
    assert "has no interrupted run" in done.stderr


def test_a_session_goes_on_in_a_window_of_its_own(g4agent: Command) -> None:
    """What does not fit on this machine, or is full, is resumed with another `--context`, as it was begun."""
    id = _run(g4agent, "adder")
    assert g4agent("sessions", "resume", id, "And now?", "--context", "4096").returncode == 0


def test_a_session_goes_on_with_the_options_it_was_begun_with(g4agent: Command, tmp_path: Path) -> None:
    """Without a word, all of it was computed again at 16 bits, and its memory grew threefold."""
    agent, once = tmp_path / "brief.py", ("--max-steps", "1", "--json")
    agent.write_text(BRIEF)

    def pages() -> dict[Path, int]:
        """When each was last used."""
        return {file: file.stat().st_mtime_ns for file in (tmp_path / "pages").rglob("*.page")}

    options = ("--kv-bits", "4", "--kv-sliding-bits", "8", "--context", "4096")
    begun = g4agent("run", "The mug is blue. " * 100, "--agent", str(agent), *options, *once)
    id = begun.stdout.split('"session_id": "')[1].split('"')[0]
    (window, token_bytes), saved = _cache(begun), pages()
    assert window == 4096 and len(saved) > 4

    resumed = g4agent("sessions", "resume", id, "And?", *once)
    assert _cache(resumed) == (window, token_bytes), resumed.stderr
    used = pages()
    assert all(used[file] > at for file, at in saved.items()) and len(used) <= len(saved) + 1, "all were found again"
    talked = g4agent("chat", "--session", id, *once, stdin="And?\n")
    assert _cache(talked) == (window, token_bytes), talked.stderr
    replayed = g4agent("sessions", "replay", id)
    assert "came out the same" in replayed.stdout, replayed.stderr

    memory, plain = _memory(g4agent, id)
    assert memory.endswith(" KiB") and plain.endswith(" MiB"), (memory, plain)
    story = g4agent("sessions", "show", id).stdout.splitlines()
    assert story[0].endswith(" UTC · --context-length 4096 · --kv-bits 4 · --kv-sliding-bits 8")
    assert [line for line in story if line.endswith(f" · {memory} of keys and values ({plain} uncompressed)")]

    other = g4agent("sessions", "resume", id, "And?", "--kv-bits", "16", *once)
    assert _cache(other)[0] == window and _cache(other)[1] > 3 * token_bytes, other.stderr


@pytest.mark.parametrize("option", ["--kv-memory", "--kv-disk"])
@pytest.mark.parametrize("value", ["inf", "nan", "1e300", "-1"])
def test_sizes_that_are_none_are_refused(g4agent: Command, option: str, value: str) -> None:
    """They were taken for a bug of ours."""
    done = g4agent("run", "x", option, value)
    assert done.returncode == 2 and f"Invalid value for '{option}'" in done.stderr


def test_other_tools_are_refused(g4agent: Command) -> None:
    """A transcript declares its tools: going on with others would deceive the model."""
    done = g4agent("sessions", "resume", _run(g4agent, "adder"), "x", "--agent", "scripted_agents:waiter")
    assert done.returncode == 1
    assert "was made with other tools" in done.stderr


def test_an_unknown_id_is_an_error(g4agent: Command) -> None:
    """No traceback of the database, and no new session."""
    done = g4agent("sessions", "show", "zzzz")
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no session 'zzzz'")


def test_chat_goes_on_with_a_stored_session(g4agent: Command) -> None:
    """`chat --session` adds turns to the same history."""
    id = _run(g4agent, "adder")
    assert g4agent("chat", "--session", id, stdin="More\n").returncode == 0
    assert "\n> More\n" in g4agent("sessions", "show", id).stdout


def test_a_fork_has_the_history_up_to_its_step(g4agent: Command) -> None:
    """`fork` prints an id that the other commands take."""
    id = _run(g4agent, "adder")
    fork = g4agent("sessions", "fork", id[:-1], "--at", "1").stdout.strip()
    assert fork != id
    story = g4agent("sessions", "show", fork).stdout.splitlines()
    assert story[1:3] == ["> Some prompt", "→ add(a=1, b=2)"] and "It is 3." not in story
    assert story[-1] == f"  go on with: g4agent sessions resume {fork}"
    assert any(line.startswith("unfinished · 2 steps") for line in story)
    refused = g4agent("sessions", "fork", id, "--at", "9")
    assert refused.returncode == 16 and "has no step 9" in refused.stderr


def test_a_session_goes_out_and_comes_in(g4agent: Command, tmp_path: Path) -> None:
    """Where the id is taken, `import` prints the new one; a damaged file is an error in words."""
    id, file = _run(g4agent, "adder"), tmp_path / "session.g4"
    assert g4agent("sessions", "export", id[:-1], str(file)).returncode == 0
    copy = g4agent("sessions", "import", str(file)).stdout.strip()
    stories = [g4agent("sessions", "show", session).stdout.splitlines()[1:] for session in (id, copy)]
    assert copy != id and stories[0] == stories[1]
    file.write_bytes(file.read_bytes()[:-20])
    damaged = g4agent("sessions", "import", str(file))
    assert damaged.returncode == 16 and "is damaged or cut short" in damaged.stderr
    assert "Traceback" not in damaged.stderr


def test_a_session_is_verified(g4agent: Command) -> None:
    """Exit code 0 where every token comes out again, else 1 and both tokens."""
    started = g4agent("run", "Hello!", "--model", "nano", "--seed", "3", "--max-tokens", "200", "--json").stdout
    id = started.split('"session_id": "')[1].split('"')[0]
    same = g4agent("sessions", "replay", id, "--verify")
    assert same.returncode == 0 and same.stdout.endswith(f"✓ session {id} is reproduced\n"), same.stdout + same.stderr
    other = g4agent("sessions", "replay", id, "--verify", "--seed", "4", "--temperature", "2")
    assert other.returncode == 1 and "✗ step 1, token " in other.stdout and "expected " in other.stdout
    assert g4agent("sessions", "replay", id, "--seed", "4", "--temperature", "2").returncode == 0


def test_a_deleted_session_is_gone(g4agent: Command) -> None:
    """Somebody else's data stays on the disk after it was asked to go; or one wrong word deletes without a question."""
    first, second = _run(g4agent, "adder"), _run(g4agent, "adder")
    refused = g4agent("sessions", "delete", first, stdin="")
    assert refused.returncode != 0 and "--yes" in refused.stderr
    unknown = g4agent("sessions", "delete", second, "none", "--yes")
    assert unknown.returncode != 0 and len(g4agent("sessions", "list").stdout.splitlines()) == 3, "all or nothing"
    assert g4agent("sessions", "delete", first, "--yes").stdout.split() == [first]
    _, *left = g4agent("sessions", "list").stdout.splitlines()
    assert [line.split()[0] for line in left] == [second]
