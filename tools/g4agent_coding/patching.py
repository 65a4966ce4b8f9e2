"""Applying a unified diff to the workspace: all of it, or nothing."""

from __future__ import annotations

from typing import Any

from g4agent.tools import tool
from g4agent.workspace_files import Refusal, answers_refusals, locate
from g4agent_coding.history import remember
from g4agent_coding.private import locked, require_changeable
from g4agent_coding.unified import FilePatch, apply_hunks, read_patch
from g4agent_coding.workspace import read_text, write_text


@tool(effect="once")
@answers_refusals
def apply_patch(patch: str) -> dict[str, Any]:
    """Change files by a unified diff. If one hunk does not fit, nothing is changed.

    Args:
        patch: The diff; new files are from /dev/null, deleted ones to it.
    """
    files = read_patch(patch)
    for path in {path for file in files for path in (file.old, file.new) if path is not None}:
        require_changeable(path)
    remember("apply_patch")
    with locked():
        texts: dict[str, str | None] = {}
        changed = []
        for file in files:
            try:
                changed.append(_plan(file, texts))
            except Refusal as refusal:
                raise Refusal(f"nothing was changed: {refusal}") from refusal
        _write_all(texts)
    return {"changed": changed}


def _plan(file: FilePatch, texts: dict[str, str | None]) -> str:
    """Adds the file's text after the patch to `texts`, None for one that goes; says what happens to it."""
    if file.old is None:
        if _exists(file.name, texts):
            raise Refusal(f"{file.name} is there already, and the patch makes it new")
        before = ""
    else:
        before = _text(file.old, texts)
    after = apply_hunks(before, file)
    if file.new is None and after:
        raise Refusal(f"the patch deletes {file.name}, and does not remove all of its lines")
    if file.old is not None and file.new not in (None, file.old):
        if _exists(file.name, texts):
            raise Refusal(f"{file.old} cannot be renamed: {file.name} is there already")
        texts[file.old] = None
    texts[file.name] = None if file.new is None else after
    if file.new is None:
        return f"{file.name} deleted"
    return file.name if file.old == file.new else f"{file.name} new" if file.old is None else f"{file.name} renamed"


def _text(path: str, texts: dict[str, str | None]) -> str:
    if path not in texts:
        return read_text(path)
    text = texts[path]
    if text is None:
        raise Refusal(f"no file {path}")
    return text


def _exists(path: str, texts: dict[str, str | None]) -> bool:
    return texts[path] is not None if path in texts else locate(path).exists()


def _write_all(texts: dict[str, str | None]) -> None:
    """Writes and deletes; on an error the files are put back as they were."""
    before = {path: locate(path).read_bytes() if locate(path).exists() else None for path in texts}
    try:
        for path, text in texts.items():
            _write(path, text)
    except Refusal as error:
        for path, data in before.items():
            file = locate(path)
            if data is None:
                if file.exists():
                    file.unlink()
            elif not file.exists() or file.read_bytes() != data:
                file.write_bytes(data)
        raise Refusal(f"nothing was changed: {error}") from error


def _write(path: str, text: str | None) -> None:
    file = locate(path)
    try:
        if text is None:
            file.unlink()
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise Refusal(f"cannot change {path}: {error.strerror}") from error
    write_text(path, text)
