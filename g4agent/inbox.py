"""Orders that reach a session while it runs: stop, pause, resume, say.

A thread puts them in, the planner looks for them between tokens, calls and steps.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from g4agent.store.records import Order


class Inbox:
    """Orders that are not obeyed yet. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: list[str] = []
        self.stopping = False
        self.paused = False

    def put(self, orders: Iterable[Order]) -> None:
        """Takes in orders; the later of two that contradict each other counts."""
        with self._lock:
            for order in orders:
                match order.kind:
                    case "stop":
                        self.stopping = True
                    case "pause":
                        self.paused = True
                    case "resume":
                        self.paused = False
                    case "say":
                        self._said.append(order.text)

    def take_said(self) -> list[str]:
        """What is to be said to the model now."""
        with self._lock:
            said, self._said = self._said, []
        return said

    def clear(self) -> None:
        """Forgets what was meant for an earlier run."""
        with self._lock:
            self.stopping = self.paused = False
            self._said = []
