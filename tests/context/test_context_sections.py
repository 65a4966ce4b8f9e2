"""Every token of a transcript belongs to something, and what is read piece by piece is what is read at once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from g4agent.gemma4.sections import Section, SectionReader, has_system_turn, read_sections, without_thoughts
from g4agent.gemma4.tokens import CONTROL_TOKENS, THINK
from g4agent.testing import ScriptedRuntime

CALL = "<|tool_call>call:add{a:1}<tool_call|>"
RESPONSE = "<|tool_response>response:add{value:1}<tool_response|>"
HEAD = "<bos><|turn>system\n<|think|>\nBe brief.<|tool>declaration:add{}<tool|><turn|>\n<|turn>user\nHi<turn|>\n"
TURN = f"<|turn>model\n<|channel>thought\nHm.<channel|>{CALL}{CALL}{RESPONSE}{RESPONSE}<|channel>thought\nA<channel|>1"


def read(text: str, has_system: bool = True) -> list[tuple[str, str]]:
    runtime = ScriptedRuntime([])
    ids = runtime.ids(text)
    return [(s.kind, runtime.tokenizer.decode(ids[s.start : s.end])) for s in read_sections(ids, has_system)]


def test_each_part_of_a_turn_is_a_section_of_its_own() -> None:
    """The ladder cuts at their borders."""
    assert read(HEAD + TURN + "<turn|>\n<|turn>user\nBye<turn|>\n<|turn>model\n") == [
        ("system", "<bos>"),
        ("system", "<|turn>system\n<|think|>\nBe brief."),
        ("tools", "<|tool>declaration:add{}<tool|>"),
        ("system", "<turn|>\n"),
        ("user", "<|turn>user\nHi<turn|>\n"),
        ("answers", "<|turn>model\n"),
        ("thoughts", "<|channel>thought\nHm.<channel|>"),
        ("calls", CALL),
        ("calls", CALL),
        ("results", RESPONSE),
        ("results", RESPONSE),
        ("thoughts", "<|channel>thought\nA<channel|>"),
        ("answers", "1<turn|>\n"),
        ("user", "<|turn>user\nBye<turn|>\n"),
        ("answers", "<|turn>model\n"),
    ]


def test_a_user_turn_behind_the_first_is_the_summary() -> None:
    """No model turn stands between the two; a later prompt has one before it."""
    kinds = [kind for kind, _ in read(HEAD + "<|turn>user\nSummary<turn|>\n<|turn>user\nGo on<turn|>\n" + TURN)]
    assert kinds[4:8] == ["user", "summary", "user", "answers"]


def test_what_the_model_wrote_astray_opens_nothing() -> None:
    """A model may sample `<|turn>` or `<tool_response|>` in its text; the history must not be torn at it."""
    stray = "<|turn>user\n<tool_response|><tool_call|> no"
    assert read(HEAD + "<|turn>model\n" + stray)[-1] == ("answers", "<|turn>model\n" + stray)
    assert read(HEAD + f"<|turn>model\n<|channel>thought\nHm {CALL}{RESPONSE}")[-3:] == [
        ("thoughts", "<|channel>thought\nHm "),
        ("calls", CALL),
        ("results", RESPONSE),
    ]


def test_a_conversation_may_have_no_system_turn() -> None:
    """Without system text, tools and thinking there is none, and the first turn is the user's."""
    ids = ScriptedRuntime([]).ids("<bos><|turn>user\nHi<turn|>\n<|turn>model\nHi<turn|>")
    assert not has_system_turn(ids, "") and has_system_turn(ids, "x")
    assert [s.kind for s in read_sections(ids, False)] == ["system", "user", "answers"]
    assert has_system_turn([2, 105, THINK, 106], "")


def test_a_thought_that_ends_with_its_turn_keeps_the_end_of_the_turn() -> None:
    """A model may end its turn within a thought; without `<turn|>` the next user turn would stand inside it."""
    ids = ScriptedRuntime([]).ids
    assert without_thoughts(ids("<|channel>thought\nHm<turn|>")) == ids("<turn|>")


IDS = st.lists(st.sampled_from([*list(CONTROL_TOKENS)[:17], 107, 300, 301]), max_size=60)


@settings(max_examples=300)
@given(st.lists(st.tuples(IDS, st.floats(0, 1)), min_size=1, max_size=6), st.booleans())
def test_reading_on_is_reading_anew(pieces: list[tuple[list[int], float]], has_system: bool) -> None:
    """The ledger is kept up step by step, across cuts anywhere; it must be the one of the whole transcript."""
    reader, tokens = SectionReader(has_system), list[int]()
    for added, kept in pieces:
        start = int(len(tokens) * kept)
        tokens[start:] = added
        reader.read(tokens, start)
        whole = read_sections(tokens, has_system)
        assert reader.sections == whole
        assert [s.start for s in whole] + [len(tokens)] == [0, *(s.end for s in whole)]
        assert sum(reader.counts.values()) == len(tokens)


def test_a_section_knows_its_length() -> None:
    """Rungs compare it with their limits."""
    assert Section("user", 3, 7, 1).length == 4
