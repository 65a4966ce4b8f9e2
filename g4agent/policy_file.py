"""A policy as a TOML file.

default = "ask"

[[rule]]
decision = "deny"
tool = "delete_*"

[[rule]]
decision = "ask"
tool = "pay"
arguments = { amount = "> 100" }
reason = "it is a large sum"
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from g4agent.errors import ConfigError
from g4agent.policy import Decision, Policy, Rule

_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)
_DEFAULT: TypeAdapter[Decision] = TypeAdapter(Decision)
_CONDITIONS = tuple(field.name for field in fields(Rule))


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file: `default`, and `[[rule]]` tables whose keys are the fields of `Rule`.

    Raises ConfigError where the file is missing, is no TOML, or says something that no rule can mean.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the policy {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the policy {path} is no TOML: {error}") from error
    _require_known(document, ("default", "rule"), str(path))
    tables = document.get("rule", [])
    if not isinstance(tables, list):
        raise ConfigError(f"{path}: rule is one table", hint="Write [[rule]], with double brackets, for each rule.")
    rules = tuple(_rule(table, f"{path}, rule {number}") for number, table in enumerate(tables, 1))
    try:
        return Policy(rules, _DEFAULT.validate_python(document.get("default", "allow")))
    except ValidationError as error:
        raise ConfigError(f"{path}: default is {document['default']!r}", hint="Use allow, ask or deny.") from error


def _rule(table: dict[str, object], place: str) -> Rule:
    _require_known(table, _CONDITIONS, place)
    try:
        return _RULE.validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "rule"
        raise ConfigError(f"{place}: {name}: {first['msg']}", hint="docs/policies.md has every condition.") from error


def _require_known(table: dict[str, object], known: tuple[str, ...], place: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"{place}: there is no {name!r}", hint=f"Known are: {', '.join(known)}.")
