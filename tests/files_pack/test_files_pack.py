"""Reading documents: what is shown, what is left out, and what strangers' files cannot do."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4agent import Agent
from g4agent.messages import JsonValue
from g4agent.testing import ScriptedModel, call, say
from g4agent.tools import to_json
from g4agent_files import tools
from g4agent_files.json_files import SHOWN_CHARS, read_json
from g4agent_files.listing import MAX_LISTED, list_documents
from g4agent_files.pdf import read_pdf
from g4agent_files.shaping import MAX_CHARS
from g4agent_files.tables import count_csv, read_csv
from g4agent_files.text import read_text

PEOPLE = 'name,age,city\nAnn,31,Rome\n"Bob ""the"" Old",9,"Oslo, Norway"\nCy,100,Rome\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """An empty workspace with something secret beside it."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "workspace"
    folder.mkdir()
    with chdir(folder):
        yield folder


def pdf(*pages: str) -> bytes:
    """A PDF file with one line of text per page, as a plain printer would write it."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
        page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"{page} /Contents {len(objects)} 0 R >>")
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n"
    return out + f"{end}<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF\n".encode()


def test_the_pack_only_reads_and_says_whose_words_it_gives() -> None:
    """Crash recovery relies on the effects, policies on the mark."""
    assert [(tool.name, tool.effect, tool.where, tool.untrusted) for tool in tools()] == [
        (name, "pure", "sandbox", True)
        for name in ("list_documents", "read_text", "read_csv", "count_csv", "read_json", "read_pdf")
    ]


@pytest.mark.anyio
async def test_an_agent_reads_every_kind_of_document_in_the_sandbox(tmp_path: Path) -> None:
    """The libraries are there in the closed box, and the arguments pass the schema."""
    (tmp_path / "notes.txt").write_text("one\ntwo\n")
    (tmp_path / "people.csv").write_text(PEOPLE)
    (tmp_path / "order.json").write_text('{"lines": [{"sku": "A1"}]}')
    (tmp_path / "bill.pdf").write_bytes(pdf("Total 42 EUR"))
    model = ScriptedModel(
        [
            call("list_documents"),
            call("read_text", path="notes.txt", start=2),
            call("read_csv", path="people.csv", columns=["name"], where=["age >= 30", "city = Rome"]),
            call("count_csv", path="people.csv", by="city"),
            call("read_json", path="order.json", pointer="/lines/0/sku"),
            call("read_pdf", path="bill.pdf"),
            call("read_text", path="../../etc/passwd"),
            say("42"),
        ]
    )
    result = await Agent(model=model, tools=tools(), workspace=tmp_path, store=False).run("x")
    listed, *others = [r.value for r in result.results]
    assert isinstance(listed, dict) and isinstance(listed["files"], list)
    assert {"path": "notes.txt", "bytes": 8} in listed["files"] and len(listed["files"]) == 4
    assert others == [
        {"text": "two", "lines": "2-2 of 2"},
        {"columns": ["name"], "rows": [["Ann"], ["Cy"]], "of": 2},
        {"rows": 3, "counts": {"Rome": 2, "Oslo, Norway": 1}},
        {"value": "A1"},
        {"pages": [{"page": 1, "text": "Total 42 EUR"}], "of": 1},
        {"error": "../../etc/passwd is outside the workspace"},
    ]


@pytest.mark.parametrize(
    "path", ["../secret.txt", "/etc/passwd", "link", "up/secret.txt", ".env", "pipe", "nul\0l", "."]
)
def test_no_tool_reads_what_it_may_not(workspace: Path, path: str) -> None:
    """Outside, through a link, a secret, and a pipe that would hang the call."""
    (workspace / "link").symlink_to("../secret.txt")
    (workspace / "up").symlink_to("..")
    (workspace / ".env").write_text("KEY=secret")
    os.mkfifo(workspace / "pipe")
    for read in (read_text, read_csv, count_csv, read_json, read_pdf):
        answer = read(path)
        assert list(answer) == ["error"] and "secret" not in answer["error"].replace(path, "").replace("a secret", "")
    assert list_documents("..") == {"error": ".. is outside the workspace"}


def test_a_listing_is_cut_and_leaves_secrets_out(workspace: Path) -> None:
    """A cut that is not mentioned would make the model believe that a file does not exist."""
    for number in range(MAX_LISTED + 1):
        (workspace / f"{number:04}.txt").touch()
    (workspace / "0000.pem").touch()
    (workspace / os.fsdecode(b"\xff.txt")).touch()  # a name that is no text must not break the result
    listing = list_documents()
    assert len(listing["files"]) == MAX_LISTED and "only the first" in listing["note"]
    assert not any(file["path"].endswith(".pem") for file in listing["files"])
    to_json("list_documents", listing)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_is_read_in_its_encoding(workspace: Path, encoding: str) -> None:
    """Files come from everywhere; a wrong guess gives the model rubbish."""
    (workspace / "t.txt").write_bytes("Größe\r\n12 €\r\n".encode(encoding))
    assert read_text("t.txt") == {"text": "Größe\n12 €", "lines": "1-2 of 2"}


def test_a_long_text_is_read_on_where_it_ended(workspace: Path) -> None:
    """Nothing may be lost between two parts, and no part may fill the context."""
    lines = [f"line {number} {'x' * 90}" for number in range(1, 301)]
    (workspace / "long.txt").write_text("\n".join(lines))
    got: list[str] = []
    while len(got) < len(lines):
        part = read_text("long.txt", len(got) + 1, 500)
        assert len(part["text"]) <= MAX_CHARS
        got += part["text"].split("\n")
        assert ("note" in part) == (len(got) < len(lines))
    assert got == lines
    assert read_text("long.txt", 301) == {"error": "long.txt has 300 lines"}


def test_a_huge_line_is_cut_without_being_held(workspace: Path) -> None:
    """One line of a hundred megabytes is no reason to run out of memory, nor are the lines behind it lost."""
    with (workspace / "huge.txt").open("w") as stream:
        for _ in range(100):
            stream.write("x" * 1_000_000)
        stream.write("\nend\n")
    read = read_text("huge.txt")
    assert read["lines"] == "1-2 of 2" and read["text"].endswith("… [cut, 100000001 characters]\nend")
    assert "line of more than" in read_csv("huge.txt")["error"] and "too large" in read_json("huge.txt")["error"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(workspace: Path, delimiter: str) -> None:
    """Numbers with a decimal comma and commas in quotes must not be taken for one."""
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows([["a", "b, c"], ["1,5", "x; y"], ["2,5", "z"]])
    (workspace / "t.csv").write_text(stream.getvalue())
    assert read_csv("t.csv") == {"columns": ["a", "b, c"], "rows": [["1,5", "x; y"], ["2,5", "z"]], "of": 2}
    assert read_csv("t.csv", where=["b, c = z"])["rows"] == [["2,5", "z"]]


@given(rows=st.lists(st.lists(st.text(alphabet="ab,;\"\n\r ü'\t|", max_size=6), min_size=2, max_size=2), max_size=6))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    """Odd quoting, line ends in cells and other delimiters in cells do not move a value to another place."""
    with chdir(tmp_path_factory.mktemp("w")):
        with Path("t.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([["first", "second"]] * 9 + rows)
        read = read_csv("t.csv", count=200)
        assert read["rows"][8:] == rows and read["of"] == 8 + len(rows)


@given(data=st.binary(max_size=60) | st.text(alphabet='a,;"\n\r\t\0[{:1é\ufeff', max_size=40).map(str.encode))
def test_any_bytes_get_an_answer(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """What a stranger calls a document may be anything; no tool may fail on it, nor give what is no JSON."""
    with chdir(tmp_path_factory.mktemp("w")):
        Path("d.jsonl").write_bytes(data)
        for read in (read_text, read_csv, count_csv, read_json):
            to_json("read", read("d.jsonl"))


def test_a_messy_table_is_read_and_its_mess_is_told(workspace: Path) -> None:
    """Nameless and equal columns, short and long rows, a quote that is never closed."""
    (workspace / "t.csv").write_text("id,,id\n1,2,3\n4\n\n5,6,7,8\n")
    read = read_csv("t.csv")
    assert read["columns"] == ["id", "column 2", "id (2)"] and read["rows"] == [
        ["1", "2", "3"],
        ["4", "", ""],
        ["5", "6", "7"],
    ]
    assert "2 rows had more or fewer cells" in read["note"]
    (workspace / "open.csv").write_text('a,b\n"1,2\n' + "3,4\n" * 400_000)
    assert "field larger than" in read_csv("open.csv")["error"]
    (workspace / "empty.csv").write_text("\n\n")
    assert read_csv("empty.csv") == {"error": "empty.csv is empty"}


def test_a_wrong_filter_or_column_is_answered_with_what_there_is(workspace: Path) -> None:
    """The model can only ask better if it is told how."""
    (workspace / "p.csv").write_text(PEOPLE)
    assert read_csv("p.csv", ["nam"])["error"] == "no column nam; columns: name, age, city"
    assert "columns: name, age, city; signs: ==" in read_csv("p.csv", where=["size > 3"])["error"]
    assert read_csv("p.csv", ["NAME"], ["city contains oslo"])["rows"] == [['Bob "the" Old']]
    assert count_csv("p.csv", where=["age < 50"]) == {"rows": 2}  # as numbers: "9" comes after "50" as text
    assert count_csv("p.csv", where=["city != 'Rome'"]) == {"rows": 1}
    assert read_csv("p.csv", start=4)["note"] == "only 3 rows fit"


def test_rows_are_read_on_where_they_ended(workspace: Path) -> None:
    """A cap on characters ends a part before its count is reached; the next one must begin right there."""
    (workspace / "t.csv").write_text("n,text\n" + "".join(f"{number},{'x' * 300}\n" for number in range(200)))
    got: list[str] = []
    while len(got) < 200:
        part = read_csv("t.csv", start=len(got) + 1, count=200)
        assert len(json.dumps(part)) < 2 * MAX_CHARS
        got += [row[0] for row in part["rows"]]
    assert got == [str(number) for number in range(200)]
    counted = count_csv("t.csv", "n")
    assert len(counted["counts"]) == 50 and counted["note"] == "150 rarer values are left out, in 150 rows"


VALUES: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(value=VALUES, key=st.text())
def test_every_part_of_a_document_is_within_reach(
    tmp_path_factory: pytest.TempPathFactory, value: JsonValue, key: str
) -> None:
    """Whatever a key is called, its pointer finds it; and the answer is always JSON and small."""
    with chdir(tmp_path_factory.mktemp("w")):
        Path("d.json").write_text(json.dumps([{key: value}]), encoding="utf-8")
        pointer = "/0/" + key.replace("~", "~0").replace("/", "~1")
        read = read_json("d.json", pointer)
        assert len(json.dumps(to_json("read_json", read), ensure_ascii=False)) <= SHOWN_CHARS + 300
        assert "note" in read or read == {"value": value}


def test_a_large_document_is_shortened_and_a_wrong_pointer_is_answered_with_the_keys(workspace: Path) -> None:
    """The outline has to be enough to ask for the part that matters."""
    (workspace / "d.json").write_text(
        json.dumps({"orders": [{"id": n, "text": "x" * 500} for n in range(5000)], "a/b": 1})
    )
    outline = read_json("d.json")
    assert len(json.dumps(outline)) < SHOWN_CHARS + 300 and "shortened" in outline["note"]
    assert outline["value"]["a/b"] == 1 and outline["value"]["orders"][-1].endswith("more items]")
    assert read_json("d.json", "/orders/4999/id") == {"value": 4999}
    assert read_json("d.json", "/x")["error"] == "no key x at the top; keys: orders, a/b"
    assert read_json("d.json", "/orders/5000")["error"] == "no item 5000 at /orders: a list of 5000, counted from 0"
    assert "begins with a slash" in read_json("d.json", "orders")["error"]
    (workspace / "l.jsonl").write_text('{"n": 1}\n\n{"n": NaN}\n')
    assert read_json("l.jsonl") == {"value": [{"n": 1}, {"n": "NaN"}]}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":', "1" * 5000, '"\\ud800"', "1e999", "\x00", "", "1" * 4000, '{"\\ud800": 1}']
)
def test_hostile_json_gets_an_answer(workspace: Path, text: str) -> None:
    """Deep nesting, huge numbers, half characters: an answer that can be sent on, never a crash."""
    (workspace / "d.json").write_text(text)
    to_json("read_json", read_json("d.json"))


def test_pages_of_a_pdf_are_read(workspace: Path) -> None:
    """Further pages are named, a page without text is not taken for an empty one, a wrong page is refused."""
    (workspace / "d.pdf").write_bytes(pdf("First page", "", "Third page"))
    read = read_pdf("d.pdf", count=2)
    assert read["pages"] == [{"page": 1, "text": "First page"}, {"page": 2, "text": ""}] and read["of"] == 3
    assert read["note"] == "page 2 has no text: it may be a picture; read on with page=3"
    assert read_pdf("d.pdf", 3) == {"pages": [{"page": 3, "text": "Third page"}], "of": 3}
    assert read_pdf("d.pdf", 4) == {"error": "d.pdf has 3 pages"}


def test_a_pdf_with_a_password_says_so(workspace: Path) -> None:
    """The library's own message would be about an algorithm."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("Secret"))))
    writer.encrypt("word", algorithm="RC4-128")
    writer.write(workspace / "locked.pdf")
    assert read_pdf("locked.pdf") == {"error": "locked.pdf needs a password"}


@given(cut=st.integers(0, 900), byte=st.binary(min_size=1, max_size=3))
def test_a_damaged_pdf_gets_an_answer(tmp_path_factory: pytest.TempPathFactory, cut: int, byte: bytes) -> None:
    """Half files and flipped bytes are common; the model must be able to go on."""
    whole = pdf("First page", "Second page")
    with chdir(tmp_path_factory.mktemp("w")):
        Path("d.pdf").write_bytes(whole[:cut])
        to_json("read_pdf", read_pdf("d.pdf"))
        Path("d.pdf").write_bytes(whole[:cut] + byte + whole[cut + len(byte) :])
        to_json("read_pdf", read_pdf("d.pdf"))
