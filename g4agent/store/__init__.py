"""Sessions on disk: what was asked, every token, every call and its result, and the workspace.

Importing this package loads no database code; `Store` does, on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from g4agent.store.records import (
    CallRecord,
    Generation,
    NewSession,
    Question,
    SessionSummary,
    StepRecord,
    StoredCall,
    StoredSession,
    StoredStep,
)

if TYPE_CHECKING:
    from g4agent.store.store import Store

__all__ = [
    "CallRecord",
    "Generation",
    "NewSession",
    "Question",
    "SessionSummary",
    "StepRecord",
    "Store",
    "StoredCall",
    "StoredSession",
    "StoredStep",
]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from g4agent.store.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
