"""Snapshots that are put together from parts, where the box that sends them is hostile or dies."""

from __future__ import annotations

import random

import pytest

from g4agent.errors import WorkspacePathError
from g4agent_box import parts
from g4agent_box.inside.snapshot import END, LENGTH, NO_NAME
from g4agent_box.parts import Parts

ONE, TWO = b"1" * 16, b"2" * 16
LAST = LENGTH.pack(END)


def sent(part: bytes, name: bytes) -> bytes:
    return LENGTH.pack(len(part)) + part + name


def test_parts_that_are_here_are_not_sent_again() -> None:
    """A snapshot lacks what was only named, has it in the wrong place, or keeps what was removed."""
    here = Parts()
    first = here.assemble(sent(b"a" * 512, ONE) + sent(b"b" * 512, TWO) + LAST, here.held)
    assert first == b"a" * 512 + b"b" * 512 + bytes(1024)
    assert here.assemble(sent(b"", TWO) + sent(b"", ONE) + LAST, here.held)[:1024] == b"b" * 512 + b"a" * 512
    here.assemble(sent(b"", TWO) + LAST, here.held)
    assert here.held == {TWO: b"b" * 512}


def test_answers_that_are_not_complete() -> None:
    """A box that was killed or lies makes a snapshot that lacks files, or crashes its host."""
    whole = sent(b"a" * 512, ONE) + sent(b"b" * 512, TWO) + LAST
    broken = [whole[:end] for end in range(len(whole))]
    broken += [sent(b"", b"3" * 16) + LAST, LENGTH.pack(END - 1) + whole]
    here = Parts()
    for answer in broken:
        with pytest.raises(WorkspacePathError):
            here.assemble(answer, here.held)
        assert here.held == {}
    for seed in range(300):
        dice = random.Random(seed)
        answer = bytearray(whole)
        for _ in range(4):
            answer[dice.randrange(len(answer))] = dice.randrange(256)
        try:
            here.assemble(bytes(answer), {})
        except WorkspacePathError:
            continue


def test_what_changed_while_it_was_sent_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later snapshot has the content of a moment that its name does not stand for; or a host keeps too much."""
    here = Parts()
    here.assemble(sent(b"a" * 512, NO_NAME) + LAST, here.held)
    assert here.held == {}
    monkeypatch.setattr(parts, "HELD_BYTES", 600)
    here.assemble(sent(b"a" * 512, ONE) + sent(b"b" * 512, TWO) + LAST, here.held)
    assert here.held == {ONE: b"a" * 512}
