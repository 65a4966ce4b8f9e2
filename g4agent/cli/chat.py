"""`g4agent chat`: several user turns in one session."""

from __future__ import annotations

from typing import Annotated

import typer

from g4agent.cli import options as o
from g4agent.errors import ConfigError


def chat(
    agent: o.AgentPath = None,
    model: o.Model = None,
    session: Annotated[
        str | None, typer.Option("--session", "-s", metavar="ID", help="Go on with a stored session.")
    ] = None,
    think: o.Think = None,
    seed: o.Seed = None,
    temperature: o.Temperature = None,
    max_steps: o.MaxSteps = None,
    allow_degraded: o.Degraded = None,
    sandbox: o.SandboxName = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    kv_bits: o.KvBits = None,
    kv_sliding_bits: o.KvSlidingBits = None,
    head_bits: o.HeadBits = None,
    kv_memory: o.KvMemory = None,
    kv_disk: o.KvDisk = None,
    context_length: o.ContextLength = None,
    offline: o.Offline = False,
    log: o.LogFile = None,
    as_json: o.AsJson = False,
    verbose: o.Verbose = False,
) -> None:
    """Talk with an agent: a prompt per line, `/quit` or the end of the input to leave.

    The exit code is that of the first turn that did not end well.
    """
    from g4agent.cli.drive import Driver, ask, reported_errors
    from g4agent.cli.sessions import stored_agent

    async def loop(driver: Driver) -> int:
        code = 0
        async with driver.agent.session(session) as opened:
            while (prompt := await ask("> ")) is not None and prompt.strip() != "/quit":
                if prompt.strip():
                    verdict = await driver.turn(opened, prompt)
                    code = code or verdict.exit_code
        return code

    with reported_errors(verbose):
        if session is not None and (think, seed, temperature) != (None, None, None):
            raise ConfigError(
                "a stored session keeps its own thinking, seed and temperature",
                hint="Leave out --think, --seed and --temperature, or start a new session.",
            )
        chosen = o.AgentOptions(
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
            kv_sliding_bits=kv_sliding_bits,
            head_bits=head_bits,
            kv_memory=kv_memory,
            kv_disk=kv_disk,
            context_length=context_length,
            offline=offline,
            log=log,
        )
        configured = chosen.configure() if session is None else stored_agent(session, chosen)
        raise typer.Exit(Driver(configured, as_json=as_json, verbose=verbose).run(loop))
