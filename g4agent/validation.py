"""Checks a call's arguments against the tool's full schema, then against its Python types."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from g4agent.errors import InvalidArguments, ToolDefinitionError
from g4agent.messages import JsonValue
from g4agent.schema_merge import resolve
from g4agent.schema_words import kind_name, rules, short_json

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator
    from jsonschema import ValidationError as SchemaError

_LONGEST_VALUE = 60
_MOST_PROBLEMS = 3
ARGUMENT_NAME = re.compile(r"""[^\s,:=(){}\[\]"']+""")
"""What a key of a native call can be."""
_PYTHON_FORMATS = ("date-time", "time", "duration")
"""Formats that pydantic reads more widely than RFC 3339 does: a `datetime` may lack a time zone."""


class ArgumentValidator:
    """Validates the arguments of one tool. The jsonschema validator is built at the first call and kept.

    Args:
        schema: JSON Schema 2020-12 of the arguments object.
        adapter: Converts JSON arguments to Python values; None leaves them as they are.
        signature: Ends every error message, so that the model can mend its call.
    """

    def __init__(self, schema: Mapping[str, JsonValue], adapter: TypeAdapter[Any] | None, signature: str) -> None:
        self._schema = schema
        self._adapter = adapter
        self._signature = signature
        self._validator: Draft202012Validator | None = None

    def bind(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments, converted by the adapter where there is one.

        Raises:
            InvalidArguments: Says where, what was expected, what came instead, and the signature.
        """
        if not isinstance(arguments, Mapping):
            raise self._invalid([f"expected named arguments, got {_short(arguments)}"])
        given = dict(arguments)
        if self._validator is None:
            self._validator = _build(self._schema, lenient=self._adapter is not None)
        if problems := sorted(self._validator.iter_errors(given), key=lambda e: [str(part) for part in e.path]):
            raise self._invalid(text for problem in problems for text in _explain(problem))
        try:
            text = json.dumps(given, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self._invalid([f"expected JSON: {error}"]) from None
        if self._adapter is None:
            return given
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            raise self._invalid(f"{_path(d['loc'])}{d['msg']}" for d in details) from None

    def _invalid(self, problems: Iterable[str]) -> InvalidArguments:
        found = list(dict.fromkeys(problems))
        more = [f"and {len(found) - _MOST_PROBLEMS} more"] if len(found) > _MOST_PROBLEMS else []
        return InvalidArguments(f"{'; '.join(found[:_MOST_PROBLEMS] + more)}. Expected: {self._signature}")


def check_schema(name: str, schema: Mapping[str, JsonValue]) -> None:
    """Raises ToolDefinitionError unless `schema`, of the tool called `name`, is JSON Schema 2020-12 for an object."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ToolDefinitionError(
            f"the parameters of {name} are not JSON Schema: {_path(error.absolute_path)}{error.message[:200]}",
            hint="See https://json-schema.org/draft/2020-12, or give a pydantic model.",
        ) from error
    if schema.get("type") != "object":
        raise ToolDefinitionError(
            f"the parameters of {name} have the type {schema.get('type')!r}",
            hint='A call has named arguments: use {"type": "object", "properties": {...}}.',
        )


def check_usable(name: str, schema: Mapping[str, Any]) -> None:
    """Raises ToolDefinitionError for what would fail at every call: a `pattern` that Python cannot read, a `$ref` that
    leads nowhere or out of the schema (nothing is ever fetched), or a name that no call can spell."""
    for argument in _argument_names(schema):
        if not ARGUMENT_NAME.fullmatch(argument):
            raise ToolDefinitionError(
                f"{name} has an argument {argument!r}, which the native syntax cannot spell",
                hint="Leave out spaces, brackets, quotes, and the characters , : and =.",
            )
    for key, value in _strings(schema):
        if key == "pattern":
            try:
                re.compile(value)
            except re.error as error:
                raise ToolDefinitionError(
                    f"{name} has the pattern {value!r}, which Python cannot read: {error}",
                    hint="Use the syntax that Python's `re` and pydantic's Rust expressions share.",
                ) from error
        elif key == "$ref":
            try:
                resolve(schema, value)
            except LookupError as error:
                raise ToolDefinitionError(
                    f"the parameters of {name} refer to {value}, which is not in their schema",
                    hint="Put the definition under $defs and refer to it as #/$defs/Name.",
                ) from error


def _strings(schema: Any) -> Iterator[tuple[str, str]]:
    """Every keyword whose value is text, at any depth, with that text."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if isinstance(value, str):
                yield key, value
            elif key not in ("default", "const", "enum", "examples"):
                yield from _strings(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _strings(each)


def _argument_names(schema: Any) -> Iterator[str]:
    """Every name of a property that a schema declares or requires, at any depth."""
    if isinstance(schema, Mapping):
        properties, required = schema.get("properties"), schema.get("required")
        yield from properties if isinstance(properties, Mapping) else ()
        yield from required if isinstance(required, list) else ()
        for key, value in schema.items():
            if key == "properties" and isinstance(value, Mapping):
                for each in value.values():
                    yield from _argument_names(each)
            elif key not in ("default", "const", "enum", "examples", "required"):
                yield from _argument_names(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _argument_names(each)


def _build(schema: Mapping[str, JsonValue], *, lenient: bool) -> Draft202012Validator:
    """The validator, with the formats that jsonschema and four small packages know: dates and times, email, hostname,
    IP addresses, URI, UUID, regex. Its extra for all of them builds a grammar at import, for a second.

    `lenient` leaves to pydantic those formats on which it is the authority.
    """
    from jsonschema import Draft202012Validator, FormatChecker  # 100 ms: only a first call pays for it
    from referencing import Registry

    known = Draft202012Validator.FORMAT_CHECKER.checkers
    checker = FormatChecker(())
    checker.checkers = {k: v for k, v in known.items() if not (lenient and k in _PYTHON_FORMATS)}
    return Draft202012Validator(schema, format_checker=checker, registry=Registry())  # an empty one fetches nothing


def _explain(error: SchemaError) -> Iterator[str]:
    """One problem in the words a model needs: `quantity: expected at least 1, got 0`."""
    path = _path(error.absolute_path)
    expected: Any = error.validator_value
    got: Any = error.instance
    schema = error.schema
    if error.validator == "required":
        yield from (f"{path}{name} is missing" for name in expected if name not in got)
    elif error.validator == "additionalProperties" and expected is False:
        known = list(schema.get("properties", {})) if isinstance(schema, Mapping) else []
        for name in (n for n in got if n not in known):
            close = difflib.get_close_matches(name, known, 1)
            yield f"{path}unknown argument {name!r}{f', did you mean {close[0]!r}?' if close else ''}"
    elif error.validator == "type":
        kinds = expected if isinstance(expected, list) else [expected]
        yield f"{path}expected {' or '.join(map(kind_name, kinds))}, got {_short(got)}"
    elif error.validator in ("enum", "const"):
        values = expected if error.validator == "enum" else [expected]
        yield f"{path}expected {' or '.join(map(short_json, values))}, got {_short(got)}"
    elif error.validator in ("anyOf", "oneOf") and error.context:
        closest = max(error.context, key=lambda e: len(e.path))
        if closest.path:
            yield from _explain(closest)
        else:
            wanted = dict.fromkeys(text for each in error.context for text in _explain(each))
            yield _union(path, list(wanted), got)
    else:
        rule = {str(error.validator): expected}
        words = ", ".join(text for kind in _KINDS_WITH_RULES for text in rules(rule, kind))
        yield f"{path}expected {words}, got {_short(got)}" if words else f"{path}{error.message[:200]}"


_KINDS_WITH_RULES = ("integer", "string", "array", "object")


def _union(path: str, problems: list[str], got: Any) -> str:
    starts, end = f"{path}expected ", f", got {_short(got)}"
    wanted = [p.removeprefix(starts).removesuffix(end) for p in problems if p.startswith(starts)]
    return f"{path}expected {' or '.join(dict.fromkeys(wanted)) or 'another form'}{end}"


def _path(parts: Iterable[str | int]) -> str:
    """`items[0].sku: `, or nothing for the arguments as a whole."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return f"{text.removeprefix('.')}: " if text else ""


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
