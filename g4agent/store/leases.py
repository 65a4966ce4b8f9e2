"""Leases: one process at a time drives a session.

A lease names its owner and runs out unless it is renewed. It is taken over when it ran out, and at once where the owner
was a process of this host that is gone. It also fences: a process that lost its lease, because it was frozen for a
while, can commit nothing more to the session, so no tool of it starts on a history that has moved on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, insert

from g4agent.errors import SessionBusyError, StoreError
from g4agent.store import statements
from g4agent.store.database import Database
from g4agent.store.records import Lease
from g4agent.store.tables import LEASES

if TYPE_CHECKING:
    from g4agent.inbox import Inbox
    from g4agent.store.people import Orders

SECONDS = 30.0
"""How long a lease lasts without a renewal. Owners renew it three times as often."""


LISTEN_SECONDS = 0.25
"""How often a running session looks for orders."""


def this_host() -> str:
    """Names the set of processes among which a process id means something: the machine's boot and its pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    namespace = Path("/proc/self/ns/pid")
    if not boot.exists() or not namespace.exists():
        return f"{os.uname().nodename} (no /proc)"
    return f"{os.uname().nodename} {boot.read_text().strip()} {namespace.readlink()}"


def process_start(pid: int) -> str | None:
    """When a process of this host started, in kernel ticks since boot; None where it is gone or has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Leases:
    """The leases of a store.

    Args:
        database: Where they lie.
        owner: Names this store object among all that are open anywhere.
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._host = this_host()

    def acquire(self, session_id: str) -> None:
        """Takes the lease, over from a dead owner if need be. Raises SessionBusyError while someone has it."""
        with self._database.writing() as db:
            self.acquire_within(db, session_id)

    def acquire_within(self, db: Connection, session_id: str) -> None:
        """`acquire` as a part of a transaction that is under way."""
        now = self._database.now(db)
        row = db.execute(statements.LEASE, {"p_session": session_id}).mappings().one_or_none()
        if row is not None:
            lease = Lease(row["owner"], row["host"], row["pid"], row["process_start"], row["expires"])
            if not self._is_over(lease, now):
                raise _busy(session_id, lease, now)
            db.execute(delete(LEASES).where(LEASES.c.session_id == session_id))
        mine = {"session_id": session_id, "owner": self._owner, "host": self._host, "pid": os.getpid()}
        started = process_start(os.getpid()) or ""
        db.execute(insert(LEASES), {**mine, "process_start": started, "expires": now + SECONDS})

    def fence(self, db: Connection, session_id: str) -> None:
        """Raises SessionBusyError, in a transaction that would commit to the session, where somebody else drives it."""
        row = db.execute(statements.LEASE, {"p_session": session_id}).mappings().one_or_none()
        if row is not None and row["owner"] != self._owner:
            raise SessionBusyError(
                f"Session {session_id} was taken over by process {row['pid']}.",
                hint="Nothing of this step was committed. Resume the session when that process is done with it.",
            )

    def renew(self, session_id: str) -> bool:
        """Puts off the lease's end. False where it was lost to another process."""
        with self._database.writing() as db:
            expires = self._database.now(db) + SECONDS
            values = {"p_session": session_id, "p_owner": self._owner, "p_expires": expires}
            return bool(db.execute(statements.RENEW_LEASE, values).rowcount)

    def release(self, session_id: str) -> None:
        """Gives the lease back. Harmless where it was lost."""
        with self._database.writing() as db:
            db.execute(statements.DROP_LEASE, {"p_session": session_id, "p_owner": self._owner})

    def holder(self, session_id: str) -> Lease | None:
        """Who drives the session now; None if nobody does."""
        with self._database.writing() as db:
            now = self._database.now(db)
            row = db.execute(statements.LEASE, {"p_session": session_id}).mappings().one_or_none()
        if row is None:
            return None
        lease = Lease(row["owner"], row["host"], row["pid"], row["process_start"], row["expires"])
        return None if self._is_over(lease, now) else lease

    def _is_over(self, lease: Lease, now: float) -> bool:
        if lease.expires <= now:
            return True
        return lease.host == self._host and process_start(lease.pid) != lease.process_start


def _busy(session_id: str, lease: Lease, now: float) -> SessionBusyError:
    host = lease.host.split(" ")[0]
    return SessionBusyError(
        f"Session {session_id} is being driven by process {lease.pid} on {host}.",
        hint=f"Stop it with `g4agent ctl {session_id} stop`. If that host is gone, try again in "
        f"{max(1, round(lease.expires - now))} s.",
    )


class Heartbeat:
    """Renews a lease and fetches orders from a thread of its own, whatever the session is computing. Started at once.

    Args:
        leases: Where the lease lies.
        orders: Where the orders lie.
        session_id: The session.
        inbox: Where the orders go.
    """

    def __init__(self, leases: Leases, orders: Orders, session_id: str, inbox: Inbox) -> None:
        self._leases = leases
        self._orders = orders
        self._session_id = session_id
        self._inbox = inbox
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{session_id}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._stopped.wait(LISTEN_SECONDS):
            with contextlib.suppress(StoreError):  # tried again at the next beat; the fence guards what is committed
                self._inbox.put(self._orders.take(self._session_id))
                if time.monotonic() - renewed > SECONDS / 3:
                    if not self._leases.renew(self._session_id):
                        return
                    renewed = time.monotonic()

    def stop(self) -> None:
        """Ends the thread and gives the lease back."""
        self._stopped.set()
        self._thread.join()
        self._leases.release(self._session_id)
