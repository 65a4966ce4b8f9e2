"""The text of PDF files. Needs the library pypdf: `pip install 'g4agent[files]'`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate_file
from g4agent_files.shaping import MAX_CHARS, clean

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_BYTES = 64 * 1024 * 1024
MAX_PAGES = 20
MAX_PAGE_CHARS = 2 * MAX_CHARS
"""Of the first page in a result, so that an ordinary page is never cut; further ones must fit in what is left."""
PDF_SECONDS = 40.0


@tool(effect="pure", untrusted=True, timeout=PDF_SECONDS)
@answers_refusals
def read_pdf(
    path: str, page: Annotated[int, Field(ge=1)] = 1, count: Annotated[int, Field(ge=1, le=MAX_PAGES)] = 3
) -> dict[str, Any]:
    """Read the text of pages of a PDF file.

    Args:
        path: File.
        page: First page, from 1.
        count: How many pages.
    """
    file = locate_file(path, max_bytes=MAX_BYTES)
    try:
        from pypdf import PdfReader
    except ModuleNotFoundError:
        raise Refusal(
            "PDF files need the library pypdf, which is not installed: pip install 'g4agent[files]'"
        ) from None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refusal(f"{path} needs a password")
        return _pages(reader, path, page, count)
    except Refusal:
        raise
    except Exception as error:  # a damaged or hostile file makes the library raise almost anything
        raise Refusal(f"{path} cannot be read as a PDF: {type(error).__name__}: {str(error)[:200]}") from error


def _pages(reader: PdfReader, path: str, first: int, count: int) -> dict[str, Any]:
    total = len(reader.pages)
    if first > total:
        raise Refusal(f"{path} has {total} pages")
    pages: list[dict[str, Any]] = []
    notes: list[str] = []
    room = MAX_CHARS
    for number in range(first, min(total, first + count - 1) + 1):
        text = clean(reader.pages[number - 1].extract_text()).strip()
        if len(text) > room and pages:
            break
        if len(text) > MAX_PAGE_CHARS:
            notes.append(f"page {number} was cut, it has {len(text)} characters")
        if not text:
            notes.append(f"page {number} has no text: it may be a picture")
        pages.append({"page": number, "text": text[:MAX_PAGE_CHARS]})
        room -= len(text)
    if (last := pages[-1]["page"]) < total:
        notes.append(f"read on with page={last + 1}")
    read: dict[str, Any] = {"pages": pages, "of": total}
    return read | {"note": "; ".join(notes)} if notes else read
