"""A session goes from one store to another as one file, whatever databases these are."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from store_samples import SESSION, call, grown, intent, model_step

from g4agent.errors import SessionNotFoundError, StoreError
from g4agent.image import Image
from g4agent.ports.runtime import SampledToken, TranscriptDelta
from g4agent.store import Generation, StepRecord, Store
from g4agent.store.archive import VERSION
from g4agent.store.records import StepImage
from g4agent.verdict import Outcome, Verdict

GOLDEN = Path(__file__).parent / "golden_archives"
SAMPLED = Generation(64, 8, (SampledToken(48, logprob=-0.5), SampledToken(101, forced=True), SampledToken(50)))

MUG, CUP = (
    StepImage(Image(b"\x89PNG\r\n\x1a\n of a " + name.encode(), name=f"{name}\0.png", tokens=70), place=place)
    for name, place in (("mug", 0), ("cup", 5))
)


def told(store: Store) -> str:
    """A session with something in every table."""
    id = store.create_session(SESSION)
    asked = StepRecord(0, "user", TranscriptDelta(0, (2, 105)), text="\0Two ␀ mugs\nПожалуйста", images=(MUG, CUP))
    store.commit_step(id, asked)
    done = call(1, value={"ключ": [None, 2**70, 0.1, "\0"]}, output="\0 ␀0", repairs=("quote",))
    seen = {"calls": (done,), "workspace": b"one", "images": (StepImage(MUG.image, "s1c0"),)}
    store.commit_step(id, model_step(1, 2, generation=SAMPLED, thoughts="Hm", **seen))
    store.commit_step(id, model_step(2, 6, workspace=b"two" * 1000))
    store.end_turn(id, Verdict(Outcome.AWAITING_APPROVAL, "a call waits"))
    store.record_intents(id, 3, [intent(3), intent(3, 1)], SAMPLED)
    store.questions.answer(store.questions.ask(id, "s3c0", "pay", {"amount": 3}, "why\0"), True, "yes")
    store.questions.ask(id, "s3c1", "pay", {"amount": 3}, "why")
    return id


def everything(store: Store, id: str) -> list[Any]:
    """All that can be read of a session."""
    generations = [store.generation(id, step) for step in range(5)]
    parts = (store.session(id), store.steps(id), store.calls(id), store.questions.of(id))
    return [*parts, store.transcript(id), store.workspace(id), store.images(id), *generations]


def unpacked(data: bytes | bytearray) -> bytes | None:
    """What gzip makes of it, None if nothing."""
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def rewritten(file: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Changes a file's lines and gives it the checksum that fits."""
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()][:-1]
    change(lines)
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    end = json.dumps({"end": len(lines), "sha256": hashlib.sha256(data).hexdigest()}).encode() + b"\n"
    file.write_bytes(gzip.compress(data + end))


@pytest.fixture
def exported(store: Store, tmp_path: Path) -> Path:
    store.export_session(told(store), tmp_path / "session.g4")
    return tmp_path / "session.g4"


def test_a_session_arrives_whole_and_goes_on(place: str, other_place: str, tmp_path: Path) -> None:
    """From SQLite or PostgreSQL to either: what is lost on the way is lost for good."""
    with Store.open(place) as store, Store.open(other_place) as other:
        grown(other, 2)
        id = told(store)
        store.export_session(id, tmp_path / "session.g4")
        assert other.import_session(tmp_path / "session.g4") == id
        assert everything(other, id) == everything(store, id)
        assert other.leases.holder(id) is None
        assert other.workspace(other.fork(id, 1)) == b"one", "snapshots of earlier steps come along"
        other.commit_step(id, model_step(3, 10, calls=(call(3), call(3, 1))))
        assert other.open_calls(id) == [] and len(other.calls(id)) == 3


def test_where_the_id_is_taken_a_new_one_is_given(place: str, tmp_path: Path) -> None:
    """An import must never write over a session; the copy knows under which id its calls were made."""
    with Store.open(place) as store:
        id = told(store)
        before = everything(store, id)
        store.export_session(id, tmp_path / "session.g4")
        copy = store.import_session(tmp_path / "session.g4")
        assert copy != id and everything(store, id) == before
        assert store.transcript(copy) == store.transcript(id) and store.workspace(copy) == store.workspace(id)
        assert {c.made_in for c in store.calls(copy)} == {id}
        assert [q.id for q in store.questions.of(copy)] == [f"{copy}-1", f"{copy}-2"]
        store.delete_session(id)
        assert store.workspace(copy) == b"two" * 1000 and len(store.images(copy)[0]) == 2
        assert store.import_session(tmp_path / "session.g4") == id


def test_any_damage_is_found_and_changes_nothing(place: str, exported: Path) -> None:
    """Every cut and every flipped bit must be told, as a broken history would be found out only in use.

    But for those that say the same: the bits that fill deflate's last byte, or a copy of the same text from elsewhere.
    """
    whole = exported.read_bytes()
    content = gzip.decompress(whole)

    def refused(damaged: bytes) -> None:
        exported.write_bytes(damaged)
        with pytest.raises(StoreError, match=r"damaged(.|\n)*Nothing was imported"):
            store.import_session(exported)

    with Store.open(place) as store:
        before = grown(store, 1)
        for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 8, len(whole) - 1]:
            refused(whole[:length])
        same = 0
        for place_of_flip in range(10, len(whole)):  # the first ten bytes are gzip's header
            damaged = bytearray(whole)
            damaged[place_of_flip] ^= 1 << place_of_flip % 8
            if unpacked(damaged) == content:
                same += 1
            else:
                refused(bytes(damaged))
        assert same < len(whole) // 100
        assert [s.id for s in store.list_sessions()] == [before]


def test_a_file_that_lost_its_end_between_two_lines_is_found(store: Store, exported: Path, path: Path) -> None:
    """Where gzip sees nothing wrong, the end line is missing or does not fit."""
    lines = gzip.decompress(exported.read_bytes()).splitlines(keepends=True)
    for left in ([*lines[:-1]], [*lines[:-2], lines[-1]], [*lines, lines[-1]], []):
        exported.write_bytes(gzip.compress(b"".join(left)))
        with pytest.raises(StoreError, match="is damaged"):
            store.import_session(exported)
    assert len(store.list_sessions()) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[0].update(g4agent_session=VERSION + 1), r"newer g4agent(.|\n)*Upgrade"),
        (lambda lines: lines[0].update(id="../../etc"), "no exported session"),
        (lambda lines: lines[0].pop("id"), "no exported session"),
        (lambda lines: lines[1]["row"].update(data="eJwDAAAAAAE="), "snapshot"),
        (lambda lines: lines[1].update(table="leases"), "unknown kind"),
        (lambda lines: lines[5]["row"].update(extra=1), "other columns"),
        (lambda lines: lines[5]["row"].update(thinking="yes"), "not of type bool"),
        (lambda lines: lines[5]["row"].update(created="yesterday"), "cannot be read"),
        (lambda lines: lines[6]["row"].update(steps=7), "not complete"),
        (lambda lines: lines[6]["row"].update(workspace="0" * 64), "contradicts"),
        (lambda lines: lines.insert(6, lines[5]), "contradicts"),
        (lambda lines: lines[6]["row"].update(steps=2**70), "no store can hold"),
        (lambda lines: lines[5]["row"].update(agent="\ud800"), "no store can hold"),
        (lambda lines: lines[7]["row"]["model_options"].update(device="cuda"), "options are none"),
        (lambda lines: lines[7]["row"]["model_options"].update(kv_bits=[4]), "options are none"),
        (lambda lines: lines[7]["row"].update(model_options=None), "options are none"),
    ],
    ids=[
        *("newer", "path", "no id", "snapshot", "table", "column", "type", "time", "steps", "no snapshot", "twice"),
        *("number", "surrogate", "unknown option", "option", "no options"),
    ],
)
def test_what_fits_its_checksum_is_still_looked_at(
    path: Path, exported: Path, change: Callable[[list[dict[str, Any]]], None], message: str, tmp_path: Path
) -> None:
    """A file by another hand must not put into a store what later breaks it."""
    rewritten(exported, change)
    with Store.open(tmp_path / "other.db") as other:
        with pytest.raises(StoreError, match=message):
            other.import_session(exported)
        assert other.list_sessions() == []


def test_an_export_is_private_and_writes_over_nothing(store: Store, tmp_path: Path) -> None:
    """A session holds what was said and done: for its user's eyes only. A failed export leaves no half file."""
    id, file = told(store), tmp_path / "session.g4"
    store.export_session(id, file)
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(StoreError, match="there already"):
        store.export_session(id, file)
    with pytest.raises(SessionNotFoundError):
        store.export_session("zzzz", tmp_path / "none.g4")
    with pytest.raises(StoreError, match="cannot be written"):
        store.export_session(id, tmp_path / "missing" / "session.g4")
    with pytest.raises(StoreError, match="cannot be read"):
        store.import_session(tmp_path / "none.g4")
    assert {entry.name for entry in tmp_path.iterdir() if "g4" in entry.name} == {"session.g4"}


@pytest.mark.parametrize("golden", sorted(GOLDEN.iterdir()), ids=lambda file: file.stem)
def test_a_golden_file_is_taken_in(golden: Path, place: str) -> None:
    """A file that was put away years ago must still open."""
    with Store.open(place) as store:
        id = store.import_session(golden)
        assert store.session(id).title == "\0Two ␀ mugs" and store.session(id).steps == 3
        assert store.workspace(id) == b"two" * 1000 and store.generation(id, 1) == SAMPLED
        assert [c.result is None for c in store.calls(id)] == [False, True, True]
        images = {0: [MUG, CUP], 1: [StepImage(MUG.image, "s1c0")]}
        assert store.images(id) == ({} if golden.stem == "v1" else images)
        assert store.session(id).model_options == (SESSION.model_options if golden.stem >= "v3" else {})
