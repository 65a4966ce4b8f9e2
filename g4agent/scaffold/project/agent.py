"""The stock keeper: `g4agent run "What is the stock of the lamp?" --agent .`."""

from __future__ import annotations

import json
from pathlib import Path

from g4agent import Agent, Budget, Sampling, tool
from g4agent.policy_file import read_policy

HERE = Path(__file__).parent


@tool(effect="pure", timeout=10)
def check_stock(name: str) -> dict[str, int]:
    """Checks how many pieces of a product are in stock.

    Args:
        name: The product's name.
    """
    stock = json.loads(Path("stock.json").read_text())
    if name not in stock:
        raise ValueError(f"there is no {name}; there are: {', '.join(stock)}")
    return {"value": stock[name]}


@tool(effect="once", timeout=10)
def order_product(name: str, quantity: int) -> dict[str, str]:
    """Orders pieces of a product.

    Args:
        name: The product's name.
        quantity: How many pieces.
    """
    with Path("orders.txt").open("a") as orders:
        orders.write(f"{quantity} {name}\n")
    return {"status": "ordered"}


agent = Agent(
    model="nano",  # shows that all works; for real work: "google/gemma-4-E4B-it"
    name="stock_keeper",
    tools=[check_stock, order_product],  # run in a closed box, in a copy of workspace/
    policy=read_policy(HERE / "policy.toml"),
    workspace=HERE / "workspace",
    sampling=Sampling(temperature=0),
    budget=Budget(steps=10, step_tokens=500),
)
