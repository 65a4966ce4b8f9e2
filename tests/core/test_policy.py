"""The policy: each condition decides by itself, the first rule that matches wins, and a file says the same as code."""

from __future__ import annotations

from pathlib import Path

import pytest

from g4agent import tool
from g4agent.errors import ConfigError
from g4agent.events import CallSignals
from g4agent.messages import JsonValue, ToolCall
from g4agent.policy import CallContext, Policy, Rule
from g4agent.policy_file import read_policy
from g4agent.tools import Tool


@tool(effect="once", where="host")
def pay(amount: int, to: str = "", items: list[str] | None = None, address: dict[str, str] | None = None) -> str:
    """Pays."""
    return "paid"


@tool(effect="pure", where="host")
def look(path: str) -> str:
    """Looks."""
    return path


def context(which: Tool = pay, **arguments: JsonValue) -> CallContext:
    return CallContext(ToolCall("s0c0", which.name, arguments or {"amount": 1}), which)


def known(signals: CallSignals | None = None, untrusted: tuple[str, ...] = (), earlier: int = 0) -> CallContext:
    return CallContext(ToolCall("s0c0", "pay", {"amount": 1}), pay, signals, untrusted, earlier)


@pytest.mark.parametrize(
    ("rule", "hit", "miss"),
    [
        (Rule("deny", "p*"), context(pay), context(look, path="x")),
        (Rule("deny", effect="pure"), context(look, path="x"), context(pay)),
        (Rule("deny", arguments={"amount": "> 100"}), context(amount=101), context(amount=100)),
        (Rule("deny", arguments={"amount": "<=1.5"}), context(amount=1), context(amount=2)),
        (Rule("deny", arguments={"to": "*@evil.example"}), context(to="a@evil.example"), context(to="a@good.example")),
        (Rule("deny", arguments={"items": "lamp"}), context(items=["mug", "lamp"]), context(items=["mug"])),
        (Rule("deny", arguments={"address.zip": "90*"}), context(address={"zip": "90210"}), context(amount=1)),
        (Rule("deny", arguments={"amount": "> 0"}), context(amount=1), context(amount=True)),
        (Rule("deny", tainted=True), known(untrusted=("fetch",)), known()),
        (Rule("deny", calls_over=2), known(earlier=2), known(earlier=1)),
        (Rule("deny", tool_probability_below=0.7), known(CallSignals(0.6, 1, 0)), known(CallSignals(0.8, 0.1, 0))),
        (Rule("deny", arguments_probability_below=0.5), known(CallSignals(1, 0.4, 0)), known(CallSignals(0.1, 0.6, 0))),
        (Rule("deny", mask_pressure_above=0.5), known(CallSignals(1, 1, 0.6)), known(CallSignals(0, 0, 0.5))),
        (Rule("deny", tool_probability_below=0.7), known(CallSignals(0, 0, 0)), known(None)),
    ],
)
def test_a_rule_matches_what_it_says_and_nothing_else(rule: Rule, hit: CallContext, miss: CallContext) -> None:
    """A condition that is too wide forbids useful work; one that is too narrow lets through what was forbidden."""
    assert rule.matches(hit) and not rule.matches(miss)


def test_the_first_rule_that_matches_decides() -> None:
    """An exception is written before the rule that it is an exception of."""
    policy = Policy((Rule("allow", "pay", arguments={"amount": "<= 5"}), Rule("ask", "pay", reason="a large sum")))
    assert policy.decide(context(amount=5)).decision == "allow"
    ruling = policy.decide(context(amount=6))
    assert (ruling.decision, ruling.reason) == ("ask", "a large sum")


def test_untrusted_results_make_a_payment_ask() -> None:
    """A web page that talks the model into a payment must meet a person, unless a rule says it may pay."""
    assert Policy().decide(known()).decision == "allow"
    ruling = Policy().decide(known(untrusted=("fetch", "read_mail")))
    assert ruling.decision == "ask" and "fetch, read_mail" in ruling.reason
    assert Policy((Rule("allow", "pay", tainted=True),)).decide(known(untrusted=("fetch",))).decision == "allow"


def test_headless_a_once_call_needs_a_rule() -> None:
    """Nobody watches in CI: what cannot be undone runs only where somebody has written that it may."""
    assert Policy(headless=True).decide(known()).decision == "deny"
    assert Policy(headless=True).decide(context(look, path="x")).decision == "allow"
    assert Policy((Rule("allow", "pay"),), headless=True).decide(known()).decision == "allow"


def test_a_policy_file_says_the_same_as_code(tmp_path: Path) -> None:
    """Operators change files, not code."""
    file = tmp_path / "policy.toml"
    file.write_text(
        'default = "deny"\n[[rule]]\ndecision = "ask"\ntool = "pay"\narguments = { amount = "> 100" }\n'
        'tool_probability_below = 0.7\n[[rule]]\ndecision = "allow"\neffect = "pure"\n'
    )
    expected = (
        Rule("ask", "pay", arguments={"amount": "> 100"}, tool_probability_below=0.7),
        Rule("allow", effect="pure"),
    )
    assert read_policy(file) == Policy(expected, "deny")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule = 5", "rule is one table"),
        ("[rule]\ndecision = 'ask'", "double brackets"),
        ("[[rule]]\ndecision = 'perhaps'", "rule 1: decision"),
        ("[[rule]]\ntool = 'pay'", "decision"),
        ("[[rule]]\ndecision = 'ask'\ntoll = 'pay'", "no 'toll'"),
        ("[[rule]]\ndecision = 'ask'\narguments = { amount = '> much' }", "'> much' compares with no number"),
        ("default = 'sometimes'", "sometimes"),
        ("nonsense = 1", "no 'nonsense'"),
        ("[[", "no TOML"),
    ],
)
def test_a_wrong_policy_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """A rule that was misspelt and passed over would allow what its author meant to forbid."""
    file = tmp_path / "policy.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_policy(file)
    assert said in str(error.value)


def test_a_missing_policy_file_is_an_error(tmp_path: Path) -> None:
    """A run without its policy would be a run without rules."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_policy(tmp_path / "none.toml")
