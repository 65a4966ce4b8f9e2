"""What nano learns from: a wrong call, a leaked word or a wrong mark here would be learnt by every later model."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from retail_checkout.tools import TOOLS
from tokenizers import Tokenizer

from g4agent.gemma4.parse import CallEnd, parse
from g4agent.gemma4.payload import read_strict
from g4agent.tools import Tool
from g4agent_coding import tools as coding_tools
from training import coding, data, export, generic, retail, tokenizer
from training.dialogue import Dialogue
from training.words import FIRST, LAST, WORDS, Split, is_heldout

SPLITS: tuple[Split, Split] = ("train", "heldout")


@pytest.fixture(scope="module")
def tokens() -> Tokenizer:
    return tokenizer.load(export.NANO)


def calls(tokens: Tokenizer, talk: Dialogue) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every call that the model says, read by the product's strict parser."""
    for text, said in talk.pieces:
        if said:
            for event in parse(tokens, tokens.encode(text, add_special_tokens=False).ids):  # type: ignore[arg-type]
                if isinstance(event, CallEnd):
                    yield read_strict(event.call.payload)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    ("dialogue", "declared"), [(retail.dialogue, TOOLS), (coding.dialogue, coding_tools())], ids=["retail", "coding"]
)
def test_calls_are_valid_for_the_products_own_tools(
    tokens: Tokenizer, dialogue: Any, declared: tuple[Tool, ...], split: Split
) -> None:
    by_name, seen = {tool.name: tool for tool in declared}, 0
    for seed in range(20):
        for name, arguments in calls(tokens, dialogue(random.Random(seed), split)):
            by_name[name].validate(arguments)
            seen += 1
    assert seen > 20


@pytest.mark.parametrize("split", SPLITS)
def test_invented_calls_name_a_declared_tool_with_its_required_arguments(tokens: Tokenizer, split: Split) -> None:
    seen = 0
    for seed in range(40):
        talk = generic.dialogue(random.Random(seed), split)
        declared = talk.pieces[0][0]
        for name, arguments in calls(tokens, talk):
            schema = declared.split(f"declaration:{name}{{")[1].split("<tool|>")[0]
            own = re.search(r'required:\[([^\]]*)\],type:<\|"\|>OBJECT<\|"\|>\}\}$', schema)
            required = set(re.findall(r"\w+", own[1])) if own else set()
            assert all(f"{key}:{{" in schema for key in arguments), (name, arguments, schema)
            assert required <= arguments.keys(), (name, arguments, schema)
            seen += 1
    assert seen > 40


def test_the_model_learns_its_own_words_and_no_others(tokens: Tokenizer) -> None:
    talk = generic.dialogue(random.Random(3), "train", turns=2)
    ids = data.encode(tokens, talk)
    said = [int(id) for id in ids if id >= data.LEARN]
    wanted = [id for text, said in talk.pieces if said for id in tokens.encode(text, add_special_tokens=False).ids]
    assert [id - data.LEARN for id in said] == wanted
    assert tokens.decode([int(id) % data.LEARN for id in ids], skip_special_tokens=False) == talk.text()


def test_held_out_words_and_tools_are_never_learnt() -> None:
    """Blends can spell a held-out word by accident, so known words are looked for in full names and tool names."""
    heldout = {word for word in (*FIRST, *LAST) if is_heldout(word)}
    names, found = 0, Counter[str]()
    for seed in range(150):
        talk = generic.dialogue(random.Random(seed), "train")
        for name in re.findall(r"declaration:(\w+)", talk.pieces[0][0]):
            assert not is_heldout(name)
            names += 1
        found.update(word for text, _ in talk.pieces for word in re.findall(r"[A-Z][a-z]+", text) if word in heldout)
    assert names > 150
    assert sum(found.values()) <= 2, found
    assert any(is_heldout(word) for word in WORDS)


def test_tasks_are_always_the_same_for_a_seed() -> None:
    assert [case.wish for case in retail.tasks("heldout", 3, 5)] == [
        case.wish for case in retail.tasks("heldout", 3, 5)
    ]
    assert coding.tasks("heldout", 5, 5) == coding.tasks("heldout", 5, 5) != coding.tasks("heldout", 5, 6)


def test_a_bug_fails_its_test_and_its_fix_passes() -> None:
    """The test results in the dialogues are computed, so they must be those that Python really gives."""
    for bug in coding.tasks("train", 40, 1):
        for text, passes in ((bug.source, False), (bug.source.replace(bug.wrong, bug.right), True)):
            space: dict[str, Any] = {}
            exec(text, space)
            line = next(line for line in bug.test_source.splitlines() if f"assertEqual({bug.test_name[5:]}(" in line)
            call, expected = re.fullmatch(r"\s*self\.assertEqual\((.*\)), (.*)\)", line).groups()  # type: ignore[union-attr]
            try:
                right = eval(call, space) == eval(expected)
            except Exception:
                right = False
            assert right is passes, (text, line)


def test_an_unserved_task_fails_and_the_oracle_passes() -> None:
    for case in retail.tasks("heldout", 8, 2):
        shop, talk = case.shop(), Dialogue("", [], False)
        retail.play(talk, shop, case.wish)
        assert case.passed(shop, talk.pieces[-2][0])
        assert not case.passed(case.shop(), "")


def test_batches_go_on_where_they_were_left(tmp_path: Path) -> None:
    for number in range(2):
        rows = np.arange(data.ROWS, dtype=np.uint16)[:, None] + 1000 * number
        np.save(tmp_path / f"shard-{number:03}.npy", rows)
    stream = data.batches(tmp_path, 2, 0)
    first = [next(stream)[:, 0].tolist() for _ in range(100)]
    assert first[0] == [0, 1] and first[64] == [1000, 1001]
    resumed = data.batches(tmp_path, 2, 70)
    assert [next(resumed)[:, 0].tolist() for _ in range(30)] == first[70:]


def test_the_shipped_tokenizer_keeps_what_the_product_relies_on(tokens: Tokenizer) -> None:
    tokenizer.check(tokens)


@pytest.mark.parametrize("split", SPLITS)
def test_a_row_is_picked_by_its_name(tokens: Tokenizer, split: Split) -> None:
    """A value of another row would teach nano to return the wrong article."""
    seen = 0
    for seed in range(30):
        talk = generic.picking(random.Random(seed), split)
        listing = re.search(r"response:list_\w+\{\w+:\[(.*?)\]\}<tool_response\|>", talk.text())
        assert listing is not None
        rows = re.findall(r"\{(.*?)\}", listing[1])
        asked = re.findall(r"<\|turn>user\n(.*?)<turn\|>", talk.text())[1:]
        for prompt, (_, arguments) in zip(asked, list(calls(tokens, talk))[1:], strict=True):
            (value,) = arguments.values()
            wanted = value[0] if isinstance(value, list) else value
            (row,) = [row for row in rows if f'<|"|>{wanted}<|"|>' in row]
            names = re.findall(r'(?:name|title|label|item):<\|"\|>(.*?)<\|"\|>', row)
            assert any(name in prompt for name in names), (prompt, row)
            seen += 1
    assert seen > 60
