"""`g4agent run`: one prompt, to its end."""

from __future__ import annotations

from typing import Annotated

import typer

from g4agent.cli import options as o


def run(
    prompt: Annotated[str, typer.Argument(help="What the agent shall do.")],
    agent: o.AgentPath = None,
    model: o.Model = None,
    think: o.Think = None,
    seed: o.Seed = None,
    temperature: o.Temperature = None,
    max_steps: o.MaxSteps = None,
    allow_degraded: o.Degraded = None,
    sandbox: o.SandboxName = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    kv_bits: o.KvBits = None,
    context_length: o.ContextLength = None,
    offline: o.Offline = False,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Run a prompt in a new session.

    The exit code says how the run ended: 0 done, 10 budget used up, 11 too many errors, 12 no answer, 13 context full,
    14 model error, 15 answer cut off, 16 infrastructure (sandbox or store), 130 interrupted, 1 anything else.
    """
    from g4agent.cli.drive import Driver, reported_errors

    async def once(driver: Driver) -> int:
        async with driver.agent.session() as session:
            return (await driver.turn(session, prompt)).exit_code

    with reported_errors(verbose):
        configured = o.AgentOptions(
            agent=agent,
            model=model,
            think=think,
            seed=seed,
            temperature=temperature,
            max_steps=max_steps,
            allow_degraded=allow_degraded,
            sandbox=sandbox,
            device=device,
            dtype=dtype,
            kv_bits=kv_bits,
            context_length=context_length,
            offline=offline,
        ).configure()
        raise typer.Exit(Driver(configured, as_json=as_json, verbose=verbose).run(once))
