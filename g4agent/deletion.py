"""Deleting a session, with everything that lies on this host because of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from g4agent.errors import StoreError

if TYPE_CHECKING:
    from g4agent.store import Store


def delete_session(store: Store, session_id: str) -> None:
    """Deletes a session from the store, its keys and values, and the folder that its services keep.

    Pages of a start that other sessions of the store have as well stay. What a session leaves elsewhere (commits,
    patches, payments made) is no part of it.

    Raises:
        SessionNotFoundError: There is no such session.
        SessionBusyError: It is being driven.
        StoreError: Files of it cannot be removed.
    """
    store.leases.acquire(store.session(session_id).id)
    try:
        if store.pages is not None and store.pages.is_dir():
            tokens, shared = store.transcript(session_id), _shared(store, session_id)
            try:
                for entry in entry_points(group="g4agent.forgetters"):
                    entry.load()(store.pages, tokens, shared)
            except OSError as error:
                raise StoreError(
                    f"Keys and values of session {session_id} cannot be removed: {error}; it is not deleted.",
                    hint=f"Make the folder writable, or remove it: {store.pages}",
                ) from error
        store.delete_session(session_id)
    finally:
        store.leases.release(session_id)
    folder = store.session_folder(session_id)
    if folder.exists():
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise StoreError(
                f"Session {session_id} is deleted, but not its folder: {error}.", hint=f"Remove it yourself: {folder}"
            ) from error


def _shared(store: Store, session_id: str) -> int:
    """The longest start of a session's transcript that another one has, too."""
    tokens = store.transcript(session_id)
    others = (store.transcript(other.id) for other in store.list_sessions() if other.id != session_id)
    return max((_common(tokens, other) for other in others), default=0)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
