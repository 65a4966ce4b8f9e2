"""Which sessions wait on disk where the keys and values of all do not fit into memory together."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from g4agent_torch.engine import TorchEngine


class Residents:
    """The engines whose caches are in memory, least recently used first.

    Args:
        limit: Bytes for all of them; None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._engines: WeakKeyDictionary[TorchEngine, None] = WeakKeyDictionary()
        self._order = threading.Lock()
        """Held while engines of several event loops, each in a thread of its own, change or read their order."""

    def use(self, engine: TorchEngine) -> None:
        """Notes that an engine works."""
        with self._order:
            self._engines.pop(engine, None)
            self._engines[engine] = None

    def make_room(self, engine: TorchEngine, *, only_idle: bool = False) -> int:
        """Puts others on disk as long as all together take too much; those that can't be put there stay.

        Args:
            engine: What stays in any case.
            only_idle: Leave those that generate, too: they come back with their next token, and would put this one on
                disk again for each of theirs.

        Returns:
            The bytes that are still too many.
        """
        if self._limit is None:
            return 0
        with self._order:
            engines = list(self._engines)
        excess = sum(each.held_bytes for each in engines) - self._limit
        for other in engines:
            if excess <= 0:
                break
            if other is not engine and not (only_idle and other.generating):
                excess -= other.put_on_disk()
        return max(0, excess)
