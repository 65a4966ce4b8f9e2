"""The payment ledger and its service on a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from retail_checkout.payments import (
    BOX_SOCKET,
    MAX_LINE,
    Ledger,
    PaymentDeclinedError,
    PaymentError,
    Payments,
    PaymentsUnavailableError,
    SocketPayments,
    payment_service,
    serve,
)

Both = tuple[Payments, Ledger]


@pytest.fixture(params=["ledger", "socket"])
def payments(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Both]:
    """The ledger itself, and the same behind its socket: they must not differ."""
    ledger = Ledger(tmp_path / "payments.db")
    if request.param == "ledger":
        yield ledger, ledger
    else:
        with serve(ledger, tmp_path / "s"):
            yield SocketPayments(tmp_path / "s"), ledger
    ledger.close()


def movements(ledger: Ledger, table: str) -> list[int]:
    return [amount for (amount,) in ledger.connection.execute(f"SELECT amount FROM {table}")]


def test_a_key_moves_money_once(payments: Both) -> None:
    """A repeat after a lost answer must get the first receipt, not a second charge or refund."""
    client, ledger = payments
    charge = client.charge(1250, "card-1", "cart-1")
    assert client.charge(1250, "card-1", "cart-1") == charge
    refund = client.refund(charge.id, 250, "return-1")
    assert client.refund(charge.id, 250, "return-1") == refund
    assert (movements(ledger, "charges"), movements(ledger, "refunds")) == ([1250], [250])


def test_a_key_stands_for_one_movement_only(payments: Both) -> None:
    """The same key with another amount is a mistake of the caller; answering it would hide the mistake."""
    client, ledger = payments
    charge = client.charge(1250, "card-1", "cart-1")
    client.refund(charge.id, 250, "return-1")
    with pytest.raises(PaymentError, match="another charge"):
        client.charge(1300, "card-1", "cart-1")
    with pytest.raises(PaymentError, match="another refund"):
        client.refund(charge.id, 300, "return-1")
    assert movements(ledger, "charges") == [1250]


def test_a_declined_card_is_told_apart_and_its_key_stays_free(payments: Both) -> None:
    """The shop gives back what it reserved only on a clear no; and the customer may pay with another card."""
    client, _ = payments
    with pytest.raises(PaymentDeclinedError, match="card declined"):
        client.charge(100, "declined-1", "cart-1")
    assert client.charge(100, "card-1", "cart-1").amount == 100


def test_no_more_is_refunded_than_was_charged(payments: Both) -> None:
    """Without this cap a bug in the shop would pay customers for nothing."""
    client, _ = payments
    charge = client.charge(1000, "card-1", "cart-1")
    client.refund(charge.id, 700, "a")
    for amount in (301, 0, -5):
        with pytest.raises(PaymentError, match=f"cannot refund {amount} of 300 cents"):
            client.refund(charge.id, amount, f"b{amount}")
    with pytest.raises(PaymentError, match="unknown payment"):
        client.refund("P0", 1, "c")
    with pytest.raises(PaymentError, match="positive"):
        client.charge(0, "card-1", "cart-2")


def test_clients_at_once_are_charged_once_per_key(tmp_path: Path) -> None:
    """Two processes that finish the same cart race for its key."""
    ledger = Ledger(tmp_path / "payments.db")
    with serve(ledger, tmp_path / "s"), ThreadPoolExecutor(8) as pool:
        client = SocketPayments(tmp_path / "s")
        receipts = list(pool.map(lambda i: client.charge(100 + i % 10, "card-1", f"cart-{i % 10}"), range(80)))
    assert len({receipt.id for receipt in receipts}) == 10
    assert sorted(movements(ledger, "charges")) == list(range(100, 110))


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[]\n",
        b'{"op": "charge"}\n',
        b'{"op": "charge", "amount": "1", "source": "c", "key": "k"}\n',
        b'{"op": "charge", "amount": 100000000000000000000, "source": "c", "key": "k"}\n',
        b"\xff\n",
    ],
)
def test_the_service_survives_any_line(tmp_path: Path, line: bytes) -> None:
    """Code in the sandbox can write what it likes to the socket; other sessions' calls must still be answered."""
    with serve(Ledger(), tmp_path / "s"), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / "s"))
        raw.sendall(line)
        assert json.loads(raw.recv(4096))["error"] == "refused"
        assert SocketPayments(tmp_path / "s").charge(1, "card-1", "k").amount == 1


def test_an_endless_line_is_cut_off(tmp_path: Path) -> None:
    """A client that never ends its line must not fill the service's memory."""
    with serve(Ledger(), tmp_path / "s"), socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(tmp_path / "s"))
        raw.sendall(b"x" * MAX_LINE)
        assert raw.recv(1) == b""


def test_a_service_that_is_gone_is_unavailable_not_a_refusal(tmp_path: Path) -> None:
    """Nobody knows whether the money moved: the caller must keep its reservation and ask again."""
    ledger = Ledger()
    with serve(ledger, tmp_path / "s"):
        pass
    with pytest.raises(PaymentsUnavailableError):
        SocketPayments(tmp_path / "s").charge(1, "card-1", "k")


@pytest.mark.anyio
async def test_the_service_offers_its_socket_to_the_box() -> None:
    """The sandbox mounts what the service yields; the socket must be there, and be gone afterwards."""
    async with payment_service(Ledger()) as sockets:
        assert set(sockets) == {BOX_SOCKET}
        assert SocketPayments(sockets[BOX_SOCKET]).charge(5, "card-1", "k").amount == 5
    assert not sockets[BOX_SOCKET].exists()
