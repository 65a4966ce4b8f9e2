"""Compressing snapshots by sections: nothing is lost, and what did not change costs next to nothing."""

from __future__ import annotations

import io
import random
import tarfile
import zlib

import pytest

from g4agent.store import deflate
from g4agent.store.deflate import Deflater


def archive(contents: dict[str, bytes]) -> bytes:
    """A tar archive as a box makes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1.5
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def sources(number: int) -> dict[str, bytes]:
    dice = random.Random(1)
    return {f"src/{i:04}.py": bytes(dice.choices(b"abcde \n", k=dice.randrange(100, 8000))) for i in range(number)}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive at all",
        b"\0" * 5000,
        b"x" * 512,
        archive({}),
        archive({"a": b"1"}),
        archive({"ü" * 200: b"1"}),
    ],
    ids=["empty", "text", "zeros", "one block", "no member", "one member", "long name"],
)
def test_any_bytes_come_back(data: bytes) -> None:
    """A workspace that no box made, or an odd one, is stored as something else."""
    assert zlib.decompress(Deflater().compress(data)) == data


def test_broken_archives_come_back() -> None:
    """A hostile box's archive, with sizes that lie, makes the store fail or lose bytes."""
    whole = archive(sources(60))
    for seed in range(200):
        dice = random.Random(seed)
        data = bytearray(whole[: dice.randrange(len(whole))])
        for _ in range(20):
            data[dice.randrange(len(data))] = dice.randrange(256) if data else 0
        assert zlib.decompress(Deflater().compress(bytes(data))) == data


def test_only_what_changed_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that changes, adds or removes one of 2,000 files costs as much as the first one."""
    contents = sources(2000)
    deflater = Deflater()

    made: list[int] = []
    real = zlib.compressobj
    monkeypatch.setattr(deflate.zlib, "compressobj", lambda *options: made.append(1) or real(*options))
    data = archive(contents)
    assert len(deflater.compress(data)) < 1.05 * len(zlib.compress(data, 1))
    assert 60 < len(made) < 400
    for change in ({"src/0777.py": b"new"}, {"src/0000a.py": b"added in front"}, {}):
        made.clear()
        contents = {**contents, **change}
        if not change:
            del contents["src/1000.py"]
        data = archive(dict(sorted(contents.items())))
        assert zlib.decompress(deflater.compress(data)) == data
        assert len(made) <= 2


def test_what_is_held_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that serves many sessions grows without end."""
    monkeypatch.setattr(deflate, "HELD_BYTES", 10_000)
    deflater = Deflater()
    for number in range(50):
        deflater.compress(random.Random(number).randbytes(3000))
    assert len(deflater._known) <= 3
