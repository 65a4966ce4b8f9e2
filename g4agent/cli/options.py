"""Options that several commands share, and the agent that they describe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from g4agent.errors import ConfigError
from g4agent.ports.sandbox import LimitName

if TYPE_CHECKING:
    from g4agent.agent import Agent

AgentPath = Annotated[
    str | None,
    typer.Option("--agent", "-a", metavar="PATH", help="Folder with agent.py, Python file, or module:attribute."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="nano, a Hugging Face id, or a checkpoint folder; [runtime:]model."),
]
Think = Annotated[bool | None, typer.Option("--think/--no-think", help="Let the model think before it acts.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of sampling and of the agent's example data.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="0 always takes the likeliest token.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Model steps before the run is stopped.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Tokens, read and written, before the run is stopped.")]
MaxThoughts = Annotated[
    int | None, typer.Option("--max-thoughts", min=0, help="Tokens of thinking; then the run goes on without.")
]
MaxSeconds = Annotated[float | None, typer.Option(min=0.001, help="Seconds before the run is stopped.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="TOML file of rules, in the place of the agent's own.")
]
Changes = Annotated[
    str | None,
    typer.Option(metavar="HOW", help="What becomes of its changes: ask, apply, discard, patch=FILE, branch=NAME."),
]
ToolChoice = Annotated[
    str | None, typer.Option("--tool-choice", help="auto, required, none, or the tool that must be called first.")
]
Masked = Annotated[
    bool | None, typer.Option("--mask/--no-mask", help="Hold the model to the tools' schemas while it writes a call.")
]
Degraded = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-degraded", metavar="LIMIT", help="Run though this host cannot enforce LIMIT (memory, cpu, ...)."
    ),
]
SandboxName = Annotated[str | None, typer.Option("--sandbox", help="Where tools run: bubblewrap, docker.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str | None, typer.Option(help="auto, float32, bfloat16.")]
ContextLength = Annotated[
    int | None, typer.Option("--context", "--context-length", min=256, help="Tokens that a session may have.")
]
KvBits = Annotated[
    str | None,
    typer.Option("--kv-bits", help="16, 4, 3.5 or 2.5: bits per number of the KV cache; 3.5,11=4: layer 11 has 4."),
]
KvSlidingBits = Annotated[
    str | None, typer.Option("--kv-sliding-bits", help="16 or 8: bits per number of the sliding layers' windows.")
]
HeadBits = Annotated[
    str | None,
    typer.Option("--head-bits", help="16, or 4 with AVX-512: bits per weight that find the likely tokens."),
]
KvMemory = Annotated[
    float | None,
    typer.Option("--kv-memory", metavar="GB", min=0.001, max=1e6, help="Memory that keys and values may take."),
]
KvDisk = Annotated[
    float | None,
    typer.Option("--kv-disk", metavar="GB", min=0, max=1e6, help="Disk that their pages may take; 0 keeps none."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never ask the model hub.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show everything, and tracebacks of errors.")]
LogFile = Annotated[
    Path | None,
    typer.Option("--log", metavar="FILE", help="Append JSON lines of what was done, without what was said."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per event on standard output.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What the command line changes in an agent; None leaves it as it is."""

    agent: str | None = None
    model: str | None = None
    think: bool | None = None
    seed: int | None = None
    temperature: float | None = None
    max_steps: int | None = None
    max_tokens: int | None = None
    max_thoughts: int | None = None
    max_seconds: float | None = None
    policy: Path | None = None
    tool_choice: str | None = None
    masked: bool | None = None
    allow_degraded: list[str] | None = None
    sandbox: str | None = None
    device: str | None = None
    dtype: str | None = None
    context_length: int | None = None
    kv_bits: str | None = None
    kv_sliding_bits: str | None = None
    head_bits: str | None = None
    kv_memory: float | None = None
    """GB."""
    kv_disk: float | None = None
    """GB."""
    offline: bool = False
    log: Path | None = None

    def configure(self) -> Agent:
        """The agent at `--agent`, or one without tools, with the options applied, and the log begun.

        Its name becomes the reference under which `sessions resume` finds it again. Raises ConfigError.
        """
        from g4agent.agent import Agent
        from g4agent.policy_file import read_policy
        from g4agent.registry import load_agent
        from g4agent.run_log import log_to_file

        if self.log is not None:
            log_to_file(self.log)
        agent = Agent() if self.agent is None else load_agent(self.agent)
        changes: dict[str, Any] = {
            "sampling": changed(agent.sampling, seed=self.seed, temperature=self.temperature),
            "budget": changed(
                agent.budget,
                steps=self.max_steps,
                tokens=self.max_tokens,
                thought_tokens=self.max_thoughts,
                wall_seconds=self.max_seconds,
            ),
            "calls": changed(agent.calls, choice=self.tool_choice, masked=self.masked),
        }
        if self.agent is not None:
            path = Path(self.agent)
            changes["name"] = str(path.resolve()) if path.exists() else self.agent
        if self.model is not None:
            changes["model"] = self.model
        if self.think is not None:
            changes["thinking"] = self.think
        if self.policy is not None:
            changes["policy"] = read_policy(self.policy)
        if self.sandbox is not None:
            changes["sandbox"] = self.sandbox
        if self.allow_degraded:
            changes["allow_degraded"] = agent.allow_degraded | _limit_names(self.allow_degraded)
        if options := self._model_options():
            changes["model_options"] = {**agent.model_options, **options}
        return agent.replace(**changes)

    def _model_options(self) -> dict[str, Any]:
        names = ("device", "dtype", "context_length", "kv_bits", "kv_sliding_bits", "head_bits")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        for name in ("kv_memory", "kv_disk"):
            if (gigabytes := getattr(self, name)) is not None:
                given[name] = int(gigabytes * 1e9)
        return given | ({"offline": True} if self.offline else {})


def changed(settings: Any, **changes: Any) -> Any:
    """A copy of the frozen settings with every change that is not None."""
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def _limit_names(names: list[str]) -> frozenset[LimitName]:
    known: dict[str, LimitName] = {name: name for name in get_args(LimitName)}
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no limit called {name!r}", hint=f"The limits are: {', '.join(known)}.")
    return frozenset(known[name] for name in names)
