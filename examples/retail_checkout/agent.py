"""The shop's assistant: `g4agent run --agent examples/retail_checkout "…"`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from g4agent import Agent
from retail_checkout.payments import Ledger, payment_service
from retail_checkout.seed import new_shop, rebuild_ledger
from retail_checkout.tools import TOOLS

POLICY = """\
You serve customers of a shop. First find the customer by email, or by name and zip. Search for products before you \
add them to the cart. Order only what was asked for. Ship to the customer's address unless told another. \
Pending orders can be cancelled, delivered orders returned. If something fails, say why."""


def workspace(seed: int) -> dict[str, bytes]:
    """A new session's shop."""
    return {"shop.db": new_shop(seed).connection.serialize()}


@asynccontextmanager
async def payments(folder: Path, seed: int) -> AsyncIterator[dict[str, Path]]:
    """The session's payment provider, outside the sandbox. It knows the payments of the shop's past orders."""
    ledger = Ledger(folder / "payments.db")
    try:
        rebuild_ledger(new_shop(seed).connection, ledger)
        async with payment_service(ledger) as sockets:
            yield sockets
    finally:
        ledger.close()


agent = Agent(name="retail_checkout", system=POLICY, tools=TOOLS, workspace=workspace, services=[payments])
