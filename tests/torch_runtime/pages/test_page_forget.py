"""Of a deleted session's files those go that are no other's."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent.gemma4.soft_tokens import image_block
from g4agent.gemma4.tokens import Control
from g4agent.image import ImageKey
from g4agent_torch.pages.address import Chain, named, next_address, segments_in, start_of
from g4agent_torch.pages.forget import forget
from g4agent_torch.pages.page_store import Ref, opened
from g4agent_torch.pages.quota import clean_up

ROOT = "0" * 64


def ids(picture: str) -> list[int]:
    """Text, an image that lies across the end of a segment, text."""
    block = [each.id for each in image_block(ImageKey(picture * 64, 70), 70) if isinstance(each, Control)]
    before = start_of(2) - 30
    return [*range(before), *block, *range(600)]


def save(folder: Path, tokens: list[int]) -> set[str]:
    """Files, empty ones, as a keeper names them: whole segments and the part behind them."""
    chain, names = Chain(ROOT), set[str]()
    for segment in range(segments_in(len(tokens)) + 1):
        start, end = start_of(segment), min(start_of(segment + 1), len(tokens))
        before = chain.before(segment, tokens)
        ref = Ref("rows", before, end - start, next_address(before, named(tokens, start, end)))
        (folder / before[:2]).mkdir(exist_ok=True)
        (folder / before[:2] / ref.name).touch()
        names.add(ref.name)
    return names


@pytest.mark.parametrize("own", [0, 1])
def test_what_others_share_stays(tmp_path: Path, own: int) -> None:
    """Pages behind, or cut off within, an image outlive their session; or the start that another has goes with it."""
    sequences = [ids("a"), ids("b")]
    saved = [save(tmp_path, tokens) for tokens in sequences]
    shared = next(at for at, (a, b) in enumerate(zip(*sequences, strict=True)) if a != b)
    assert saved[0] & saved[1] and saved[0] - saved[1]
    forget(tmp_path, sequences[own], shared)
    assert {path.name for path in tmp_path.glob("??/*")} == saved[1 - own]


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Finder and NFS put files of their own into any folder: with one there, no session could be deleted any more."""
    tokens = ids("a")
    for name in save(tmp_path, tokens):
        strange = [tmp_path / name[:2] / each for each in (".DS_Store", ".nfs000000012", f"{name[:64]}-copy.rows")]
        for path in strange:
            path.write_text("strange")
    assert opened(tmp_path).rows_behind(name[:64]) != []
    forget(tmp_path, tokens, 0)
    clean_up(tmp_path, 0)
    assert {path.name.rpartition("-")[2] for path in tmp_path.glob("??/*")} == {
        ".DS_Store",
        ".nfs000000012",
        "copy.rows",
    }
