"""The shop's payment provider: a ledger outside the sandbox, reached over a unix socket.

Every movement has a key chosen by the caller. The same key never moves money twice: a repeat gets the first receipt
again, so a caller that died before it noted the receipt can simply ask once more.

Wire format, one JSON document per line each way:

    → {"op": "charge", "amount": 1250, "source": "card-c1004-4821", "key": "cart-7"}
    → {"op": "refund", "payment_id": "P3f09ab12cd", "amount": 1250, "key": "cancel-W10234"}
    ← {"id": "P3f09ab12cd", "amount": 1250}
    ← {"error": "declined", "message": "card declined"}        error: declined | refused
"""

from __future__ import annotations

import hashlib
import json
import socket
import socketserver
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

BOX_SOCKET = "/run/payments.sock"
"""Where the sandbox shows the service's socket."""

MAX_LINE = 4096
"""Longest request in bytes; anything longer ends the connection."""

DECLINED_PREFIX = "declined"
"""A source that begins like this is always declined: the test cards of this provider."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, source TEXT NOT NULL, amount INTEGER NOT NULL CHECK (amount > 0)
);
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, charge_id TEXT NOT NULL REFERENCES charges (id),
    amount INTEGER NOT NULL CHECK (amount > 0)
);
"""


class PaymentError(Exception):
    """The provider refused: a key used for something else, an unknown payment, more refunded than charged."""


class PaymentDeclinedError(PaymentError):
    """The card's bank said no. Nothing was charged; the key may be used again."""


class PaymentsUnavailableError(PaymentError):
    """No answer came, so the money may or may not have moved. Ask again with the same key."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A charge or a refund that stands in the ledger; `amount` is in cents."""

    id: str
    amount: int


class Payments(Protocol):
    """What the shop needs of a payment provider. Amounts are in cents; both operations are idempotent by `key`."""

    def charge(self, amount: int, source: str, key: str) -> Receipt:
        """Takes money from a card token or gift card number. Raises PaymentError."""
        ...

    def refund(self, payment_id: str, amount: int, key: str) -> Receipt:
        """Gives back part or all of a charge. Raises PaymentError."""
        ...


class Ledger:
    """The provider itself, on a SQLite file or `:memory:`. Safe to use from several threads."""

    def __init__(self, path: Path | str = ":memory:") -> None:
        self._lock = threading.Lock()
        self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.connection.executescript(SCHEMA)

    def charge(self, amount: int, source: str, key: str) -> Receipt:
        """See `Payments.charge`."""
        with self._transaction():
            known = self.connection.execute("SELECT id, amount, source FROM charges WHERE key = ?", [key]).fetchone()
            if known is not None:
                if known[1:] != (amount, source):
                    raise PaymentError(f"key {key} belongs to another charge")
                return Receipt(known[0], amount)
            if source.startswith(DECLINED_PREFIX):
                raise PaymentDeclinedError("card declined")
            if amount <= 0:
                raise PaymentError("the amount must be positive")
            charge_id = _receipt_id("P", key)
            self.connection.execute("INSERT INTO charges VALUES (?, ?, ?, ?)", [charge_id, key, source, amount])
            return Receipt(charge_id, amount)

    def refund(self, payment_id: str, amount: int, key: str) -> Receipt:
        """See `Payments.refund`."""
        with self._transaction():
            known = self.connection.execute("SELECT id, amount, charge_id FROM refunds WHERE key = ?", [key]).fetchone()
            if known is not None:
                if known[1:] != (amount, payment_id):
                    raise PaymentError(f"key {key} belongs to another refund")
                return Receipt(known[0], amount)
            charged = self.connection.execute("SELECT amount FROM charges WHERE id = ?", [payment_id]).fetchone()
            if charged is None:
                raise PaymentError(f"unknown payment {payment_id}")
            (refunded,) = self.connection.execute(
                "SELECT COALESCE(SUM(amount), 0) FROM refunds WHERE charge_id = ?", [payment_id]
            ).fetchone()
            if not 0 < amount <= charged[0] - refunded:
                raise PaymentError(f"cannot refund {amount} of {charged[0] - refunded} cents")
            refund_id = _receipt_id("R", key)
            self.connection.execute("INSERT INTO refunds VALUES (?, ?, ?, ?)", [refund_id, key, payment_id, amount])
            return Receipt(refund_id, amount)

    def close(self) -> None:
        """Closes the database."""
        self.connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, self.connection:
            self.connection.execute("BEGIN IMMEDIATE")
            yield


class SocketPayments:
    """Client of a `serve`d ledger; one connection per operation."""

    def __init__(self, path: Path | str, timeout: float = 10.0) -> None:
        self._path = str(path)
        self._timeout = timeout

    def charge(self, amount: int, source: str, key: str) -> Receipt:
        """See `Payments.charge`."""
        return self._ask({"op": "charge", "amount": amount, "source": source, "key": key})

    def refund(self, payment_id: str, amount: int, key: str) -> Receipt:
        """See `Payments.refund`."""
        return self._ask({"op": "refund", "payment_id": payment_id, "amount": amount, "key": key})

    def _ask(self, request: dict[str, Any]) -> Receipt:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(self._path)
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline(MAX_LINE)
            answer = json.loads(line)
        except (OSError, ValueError) as error:
            raise PaymentsUnavailableError(f"no answer from the payment service: {error}") from error
        match answer:
            case {"id": str(receipt_id), "amount": int(amount)}:
                return Receipt(receipt_id, amount)
            case {"error": "declined", "message": str(message)}:
                raise PaymentDeclinedError(message)
            case _:
                raise PaymentError(str(answer.get("message", answer)))


@contextmanager
def serve(ledger: Ledger, socket_path: Path) -> Iterator[None]:
    """Answers on a unix socket, in threads of this process, until the block ends."""

    class Handler(socketserver.StreamRequestHandler):
        timeout = 10.0

        def handle(self) -> None:
            while (line := self.rfile.readline(MAX_LINE)).endswith(b"\n"):
                self.wfile.write(json.dumps(_answer(ledger, line)).encode() + b"\n")

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(str(socket_path), Handler) as server:
        socket_path.chmod(0o666)  # the sandbox connects as a user of its own; the private folder keeps others out
        thread = threading.Thread(target=server.serve_forever, args=[0.02], name="payments")
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            socket_path.unlink(missing_ok=True)


@asynccontextmanager
async def payment_service(ledger: Ledger) -> AsyncIterator[dict[str, Path]]:
    """Serves a ledger to a sandbox while a session is open: path in the box → socket on the host.

    The socket gets a short path of its own, because a unix socket's path may have no more than 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="payments-") as folder, serve(ledger, Path(folder) / "socket"):
        yield {BOX_SOCKET: Path(folder) / "socket"}


def _answer(ledger: Ledger, line: bytes) -> dict[str, Any]:
    try:
        match json.loads(line):
            case {"op": "charge", "amount": int(amount), "source": str(source), "key": str(key)}:
                receipt = ledger.charge(amount, source, key)
            case {"op": "refund", "payment_id": str(payment_id), "amount": int(amount), "key": str(key)}:
                receipt = ledger.refund(payment_id, amount, key)
            case _:
                return {"error": "refused", "message": "not a charge or refund"}
    except PaymentDeclinedError as error:
        return {"error": "declined", "message": str(error)}
    except (PaymentError, ValueError, OverflowError) as error:  # text or numbers that SQLite cannot hold, too
        return {"error": "refused", "message": str(error)}
    return {"id": receipt.id, "amount": receipt.amount}


def _receipt_id(prefix: str, key: str) -> str:
    """The same key has the same id in every ledger, so that a ledger can be rebuilt from the shop's own records."""
    return prefix + hashlib.sha256(key.encode()).hexdigest()[:10]
