"""Names and files: what is read is what was written, of this model and these tokens, or it is not read at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from page_samples import ROOT, contents, ref, same

from g4agent_torch.pages.address import Chain, next_address, root_address, segments_in, start_of
from g4agent_torch.pages.page_file import Contents, PageDamaged, Stretch, read_page, write_page

TOKENS = st.lists(st.integers(0, 262_143), max_size=600)


@settings(max_examples=60)
@given(TOKENS, TOKENS)
def test_addresses_are_equal_exactly_where_all_tokens_before_are(a: list[int], b: list[int]) -> None:
    """Equal addresses for unequal prefixes would give a session another one's memory."""
    first, second = Chain(ROOT), Chain(ROOT)
    for segment in range(min(segments_in(len(a)), segments_in(len(b)))):
        end = start_of(segment + 1)
        assert (first.address(segment, a) == second.address(segment, b)) == (a[:end] == b[:end])


@given(st.integers(0, 10_000))
def test_segments_tile_the_sequence(length: int) -> None:
    count = segments_in(length)
    assert start_of(0) == 0 and start_of(1) == 144
    assert (count == 0 or start_of(count) <= length) and length < start_of(count + 1)


def test_a_chain_that_is_cut_goes_on_with_other_tokens() -> None:
    """Thoughts are dropped in the middle of a segment: what follows gets names of its own."""
    old, new = list(range(600)), [*range(300), *range(7, 307)]
    chain = Chain(ROOT)
    kept = [chain.address(i, old) for i in range(segments_in(600))]
    chain.cut(300)
    assert [chain.address(i, new) == kept[i] for i in range(segments_in(600))] == [True, True, False, False]
    assert chain.before(0, new) == ROOT and chain.before(2, new) == kept[1]


@pytest.mark.parametrize(
    "other",
    [
        root_address("another model", "float32", "dense"),
        root_address("a model", "bfloat16", "dense"),
        root_address("a model", "float32", ["4 bits"]),
    ],
)
def test_everything_the_bytes_depend_on_is_in_the_address(other: str) -> None:
    assert next_address(other, range(144)) != next_address(ROOT, range(144))


def test_another_format_has_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of an older g4agent must not be read by the rules of this one."""
    monkeypatch.setattr("g4agent_torch.pages.address.FORMAT", 2)
    assert root_address("a model", "float32", "dense") != ROOT


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.uint8, torch.float32, torch.bfloat16]),
            st.lists(st.integers(0, 5), min_size=1, max_size=4),
            st.integers(0, 262_144),
        ),
        max_size=5,
    )
)
def test_what_is_read_is_what_was_written(shapes: list[tuple[torch.dtype, list[int], int]]) -> None:
    """To the bit: types, shapes, positions, empty tensors and numbers that are none."""
    made = {}
    for index, (kind, shape, position) in enumerate(shapes):
        tensor = torch.randint(0, 256, (*shape, kind.itemsize), dtype=torch.uint8).view(kind).squeeze(-1)
        made[str(index)] = Stretch(tensor, position)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ref().name
        size = write_page(path, Contents(made))
        assert size == path.stat().st_size and path.stat().st_mode & 0o077 == 0
        found = read_page(path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert list(found.stretches) == list(made)
    for a, b in zip(found.stretches.values(), made.values(), strict=True):
        assert (a.tensor.dtype, a.tensor.shape, a.position) == (b.tensor.dtype, b.tensor.shape, b.position)
        assert torch.equal(a.tensor.contiguous().view(-1).view(torch.uint8), b.tensor.view(-1).view(torch.uint8))
        assert a.tensor.numel() == 0 or a.tensor.data_ptr() % 64 == 0, "kernels read aligned rows"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / ref().name
    write_page(path, contents())
    return path


@settings(max_examples=200)
@given(data=st.data())
def test_no_flipped_bit_is_believed(written: Path, data: st.DataObject) -> None:
    raw = bytearray(written.read_bytes())
    at = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[at // 8] ^= 1 << at % 8
    assert not readable(written.name, bytes(raw))


@settings(max_examples=100)
@given(data=st.data())
def test_no_cut_or_zeroed_file_is_believed(written: Path, data: st.DataObject) -> None:
    """What a loss of power leaves: less of the file, or its length without its content."""
    raw = written.read_bytes()
    at = data.draw(st.integers(0, len(raw) - 1))
    assert not readable(written.name, raw[:at])
    zeroed = raw[:at] + bytes(len(raw) - at)
    assert zeroed == raw or not readable(written.name, zeroed)


def test_a_file_under_another_name_is_not_believed(written: Path) -> None:
    """Copied by hand, or mixed up by a file system: its bytes are whole, and not of these tokens."""
    raw = written.read_bytes()
    assert readable(written.name, raw)
    assert not readable(ref(1).name, raw)
    assert not readable(ref(kind="rows").name, raw)


def readable(name: str, raw: bytes) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(raw)
        try:
            return same(read_page(path), contents())
        except PageDamaged:
            return False
