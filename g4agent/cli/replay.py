"""What `g4agent sessions replay` says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from g4agent.cli.console import counted, plain, stdout

if TYPE_CHECKING:
    from g4agent.ports.runtime import ChatRuntime, SampledToken, TokenRuntime
    from g4agent.replay import Replay


def tell(replay: Replay, runtime: TokenRuntime | ChatRuntime) -> None:
    """Prints how far a session came out the same and, where it did not, both tokens."""
    amount = f"{counted(replay.steps, 'step')} and {counted(replay.tokens, 'sampled token')}"
    same = f"{amount} came out the same on {replay.model}"
    _line(f"{same}; log probabilities differ by at most {replay.logprob_difference:.3g}", "")
    found = replay.divergence
    if found is None:
        _line(f"✓ session {replay.session_id} is reproduced", "green")
        return
    _line(f"✗ step {found.step}, token {found.index} of the {found.part}:", "bold red")
    _line(f"  expected {_named(found.expected, runtime)}", "")
    _line(f"  got      {_named(found.got, runtime)}", "")
    if found.expected is not None and found.got is not None:
        old, new = found.expected.logprob, found.got.logprob
        if old is not None and new is not None:
            _line(f"  log probability {new - old:+.4f}", "dim")


def _named(token: SampledToken | None, runtime: TokenRuntime | ChatRuntime) -> str:
    from g4agent.ports.runtime import TokenRuntime

    if token is None:
        return "nothing more"
    text = runtime.tokenizer.decode([token.id]) if isinstance(runtime, TokenRuntime) else ""
    logprob = "" if token.logprob is None else f", log probability {token.logprob:.4f}"
    return f"{token.id} {text!r}{', forced' if token.forced else ''}{logprob}"


def _line(text: str, style: str) -> None:
    stdout().print(Text(plain(text), style), soft_wrap=True)
