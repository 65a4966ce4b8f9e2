"""`g4agent approve` and `g4agent ctl`: answers and orders to sessions of other processes."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from g4agent.cli import options as o


def approve(
    question: Annotated[str | None, typer.Argument(metavar="ID", help="The question. Without it: a list.")] = None,
    deny: Annotated[bool, typer.Option("--deny", help="Answer no.")] = False,
    comment: Annotated[str, typer.Option("--comment", "-c", help="Told to the model where the answer is no.")] = "",
    verbose: o.Verbose = False,
) -> None:
    """Answer a call that waits for a person, or list those that wait. Then resume its session."""
    from rich.text import Text

    from g4agent.cli.console import arguments, one_line, plain, stdout, table
    from g4agent.cli.drive import reported_errors
    from g4agent.cli.sessions import age
    from g4agent.store import Store

    with reported_errors(verbose), Store.open() as store:
        if question is None:
            rows = [
                (q.id, age(q.created), f"{one_line(q.name)}({arguments(q.arguments, 80)})", one_line(q.reason, 80))
                for q in store.questions.open()
            ]
            stdout().print(table("question", "age", "call", "reason", rows=rows, right=frozenset({"age"})))
            return
        answered = store.questions.answer(question, approved=not deny, comment=comment)
        said = "denied" if deny else "approved"
        call = f"{answered.name}({arguments(answered.arguments, 80)})"
        stdout().print(Text(plain(f"{said}: {call}")), soft_wrap=True)
        stdout().print(Text(f"  go on with: g4agent sessions resume {answered.session_id}", "dim"), soft_wrap=True)


def ctl(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Id of a running session, or its beginning.")],
    order: Annotated[str, typer.Argument(metavar="ORDER", help="stop, pause, resume or say.")],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to say.")] = None,
    verbose: o.Verbose = False,
) -> None:
    """Stop, pause or steer a session that runs in another process."""
    from typing import get_args

    from g4agent.cli.drive import reported_errors
    from g4agent.errors import ConfigError
    from g4agent.store import Store
    from g4agent.store.records import OrderKind

    with reported_errors(verbose), Store.open() as store:
        if order not in get_args(OrderKind):
            raise ConfigError(f"there is no order {order!r}", hint=f"Orders are {', '.join(get_args(OrderKind))}.")
        if (text is not None) != (order == "say"):
            raise ConfigError("say needs a text, and no other order has one", hint='g4agent ctl ID say "…"')
        id = store.session(session).id
        holder = store.leases.holder(id)
        if holder is None:
            raise ConfigError(
                f"session {id} is not running, so nobody would obey", hint=f"g4agent sessions resume {id}"
            )
        store.orders.give(id, cast(OrderKind, order), text or "")
        typer.echo(f"{order}: told to process {holder.pid}")
