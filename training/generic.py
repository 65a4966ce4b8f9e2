# ruff: noqa: SIM905 - word lists read better as text
"""Dialogues over invented tools: random names, schemas and values, so that reading a declaration and copying a value
are the only ways to get a call right."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from training.dialogue import Dialogue, declaration
from training.words import CITIES, COLOURS, WORDS, Split, code, invented, is_heldout, part, person, syllables

VERBS = """
    get set find create delete update send book check convert start stop list add remove schedule calculate
    translate play pause open close lock unlock move copy rename upload download track count measure print scan
    share archive approve reject reset sort merge split assign invite notify export import query rate review
    order pay
""".split()
NOUNS = """
    weather timer reminder meeting flight hotel invoice ticket contact email playlist song light thermostat door
    alarm account balance payment report chart document photo video calendar event task note route package
    device sensor room table currency distance recipe ward parcel bus train shift badge license sample patient
    course lesson score plant engine battery printer camera server backup domain branch
""".split()
TEXT_KEYS = """
    city name title label message language source target owner topic place code color unit category
""".split()
NUMBER_KEYS = """
    amount count level volume speed width height temperature limit quantity duration priority
""".split()
BOOLEAN_KEYS = ["active", "silent", "urgent", "public", "recursive"]
LIST_KEYS = ["tags", "names", "codes", "rooms"]
SYSTEMS = ("You are a helpful assistant.", "Use the tools to help.", "You help with tools.", "Answer briefly.", "")
GREETINGS = ("", "", "", "Hi! ", "Hello, ", "Hey. ", "Good morning. ", "Hi there. ")
ERRORS = ("not found", "permission denied", "timed out", "service unavailable", "invalid value", "already exists")


@dataclass(frozen=True, slots=True)
class Invented:
    """A tool that exists only in its declaration."""

    verb: str
    noun: str
    schema: dict[str, Any]

    @property
    def name(self) -> str:
        """`verb_noun`."""
        return f"{self.verb}_{self.noun}"

    def declare(self) -> str:
        """Its declaration."""
        return declaration(self.name, f"{self.verb.capitalize()} a {self.noun}.", self.schema)


def _word(rng: random.Random, split: Split) -> str:
    match rng.randrange(12):
        case 0 | 1:
            return rng.choice(part(WORDS, split))
        case 2 | 3:
            return (
                f"{rng.choice(part(WORDS, split))} {rng.choice([rng.choice(part(WORDS, split)), invented(rng, split)])}"
            )
        case 4:
            return rng.choice(part(CITIES, split))
        case 5 | 6:
            return person(rng, split)
        case 7 | 8 | 9:
            return invented(rng, split)
        case 10:
            return f"{invented(rng, split)} {invented(rng, split)}"
        case _:
            return code(rng)


def _schema(rng: random.Random, split: Split) -> dict[str, Any]:
    keys = rng.sample(TEXT_KEYS * 2 + NUMBER_KEYS + BOOLEAN_KEYS + LIST_KEYS, rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4]))
    properties: dict[str, Any] = {}
    for key in dict.fromkeys(keys):
        about = {} if rng.random() < 0.3 else {"description": rng.choice([key.capitalize(), f"The {key}"])}
        if key in NUMBER_KEYS:
            kind: dict[str, Any] = {"type": rng.choice(["integer", "integer", "number"])}
        elif key in BOOLEAN_KEYS:
            kind = {"type": "boolean"}
        elif key in LIST_KEYS:
            kind = {"type": "array", "items": {"type": "string"}}
        elif rng.random() < 0.25:
            kind = {
                "type": "string",
                "enum": [*rng.sample(part(WORDS, split), rng.randint(1, 2)), invented(rng, split)],
            }
        else:
            kind = {"type": "string"}
        properties[key] = {**about, **kind}
    if rng.random() < 0.12:
        inner = {key: {"type": "string"} for key in rng.sample(["first", "second", "from", "until"], 2)}
        properties["options"] = {"type": "object", "properties": inner, "required": list(inner)}
    required = [key for key in properties if rng.random() < 0.75]
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _value(rng: random.Random, schema: dict[str, Any], split: Split) -> Any:
    match schema["type"]:
        case "integer":
            return rng.randint(0, rng.choice([9, 99, 999]))
        case "number":
            return round(rng.uniform(0, 300), rng.randint(1, 2))
        case "boolean":
            return rng.random() < 0.5
        case "array":
            return [_word(rng, split) for _ in range(rng.randint(1, 3))]
        case "object":
            return {key: _word(rng, split) for key in schema["properties"]}
        case _:
            return rng.choice(schema["enum"]) if "enum" in schema else _word(rng, split)


def _say(rng: random.Random, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return rng.choice([key, f"{key} yes"]) if value else f"not {key}"
    if isinstance(value, list):
        return f"{key} " + ", ".join(value)
    if isinstance(value, dict):
        return ", ".join(f"{inner} {item}" for inner, item in value.items())
    return rng.choice([f"{key} {value}", f"{key} is {value}", f"{key}: {value}", f"the {key} {value}"])


def _ask(rng: random.Random, tool: Invented, arguments: dict[str, Any], first: bool) -> str:
    openings = ["Please", "Can you", "Could you", "I want to", "I need you to", "Now"] if first else ["please", "then"]
    text = f"{rng.choice(openings)} {tool.verb} {rng.choice(['the', 'a', 'my'])} {tool.noun}"
    said = [_say(rng, key, value) for key, value in arguments.items()]
    rng.shuffle(said)
    return text + (rng.choice([" with ", ", ", " using ", ": "]) + ", ".join(said) if said else "")


def _question(rng: random.Random, tool: Invented, arguments: dict[str, Any]) -> str:
    """A question for a tool that looks something up by one text or number."""
    ((key, value),) = arguments.items()
    thing = rng.choice([tool.noun, f"{key} {tool.noun}"])
    return rng.choice(
        [
            f"What is the {thing} of {value}?",
            f"What is the {tool.noun} for {value}?",
            f"What does the {tool.noun} of {value} say?",
            f"How is the {tool.noun} of {value}?",
            f"What {tool.noun} does {value} have?",
            f"Do you know the {tool.noun} of {value}?",
            f"Which {tool.noun} is in {value}?",
            f"Tell me the {tool.noun} of {value}, please.",
            f"What does {value} cost?",
            f"How much is a {value}?",
            f"And {value}?",
        ]
    )


def _tools(rng: random.Random, split: Split) -> list[Invented]:
    pairs = [(verb, noun) for verb in rng.sample(VERBS, 12) for noun in rng.sample(NOUNS, 12)]
    fitting = [pair for pair in pairs if is_heldout("_".join(pair)) == (split == "heldout")]
    chosen = rng.sample(fitting, rng.choice([1, 2, 2, 3, 3, 4]))
    return [Invented(verb, noun, _schema(rng, split)) for verb, noun in chosen]


def dialogue(rng: random.Random, split: Split, turns: int | None = None) -> Dialogue:
    """One to four user turns under one set of tools; with thinking on, one."""
    tools, thinking = _tools(rng, split), rng.random() < 0.3
    talk = Dialogue(rng.choice(SYSTEMS), [tool.declare() for tool in tools], thinking)
    for _ in range(1 if thinking else turns or rng.choice([1, 2, 3, 4])):
        _turn(rng, talk, tools, split)
    return talk


def _turn(rng: random.Random, talk: Dialogue, tools: list[Invented], split: Split) -> None:
    if rng.random() < 0.05:
        talk.user(rng.choice(GREETINGS) + rng.choice(["How are you?", "What can you do?", "Thank you!"]))
        talk.final("No tool is needed.", "I can help you with " + " or ".join(t.noun for t in tools) + ".")
        return
    wanted = rng.sample(tools, 2 if len(tools) > 1 and rng.random() < 0.15 else 1)
    calls = []
    for tool in wanted:
        properties, required = tool.schema["properties"], tool.schema.get("required", [])
        keys = [key for key in properties if key in required or rng.random() < 0.4]
        calls.append((tool, {key: _value(rng, properties[key], split) for key in keys}))
    asks = [_ask(rng, tool, arguments, index == 0) for index, (tool, arguments) in enumerate(calls)]
    (tool, arguments), *others = calls
    plain = [
        value for value in arguments.values() if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    if not others and len(arguments) == len(plain) == 1 and rng.random() < 0.6:
        talk.user(rng.choice(GREETINGS) + _question(rng, tool, arguments))
    else:
        talk.user(rng.choice(GREETINGS) + " and ".join(asks) + rng.choice(["", ".", "."]))
    talk.call("I call " + " and ".join(tool.name for tool, _ in calls) + ".", *((t.name, a) for t, a in calls))
    results, said = [], []
    for tool, _ in calls:
        if rng.random() < 0.12:
            error = rng.choice(ERRORS)
            results.append((tool.name, {"error": error}))
            said.append(f"The {tool.noun} failed: {error}.")
        else:
            key = rng.choice(["value", "value", "result", "status", "id", "total", "answer"])
            value = rng.choice([_word(rng, split), _word(rng, split), rng.randint(0, 9999), rng.randint(0, 9999) / 100])
            results.append((tool.name, {key: value}))
            said.append(f"The {tool.noun} is {value}." if key == "value" else f"The {tool.noun} {key} is {value}.")
    talk.results(*results)
    talk.final("I have the result.", " ".join(said))


def copying(rng: random.Random, split: Split) -> Dialogue:
    """Very short: one tool, one text parameter, several turns. Teaches copying before anything else."""
    key = rng.choice(TEXT_KEYS)
    tool = Invented(rng.choice(VERBS), rng.choice(NOUNS), {"type": "object", "properties": {key: {"type": "string"}}})
    talk = Dialogue("", [tool.declare()], False)
    for _ in range(rng.randint(3, 6)):
        value = _word(rng, split)
        talk.user(rng.choice([f"{value}", f"{tool.verb} {value}", f"{tool.verb} the {tool.noun} {value}."]))
        talk.call("", (tool.name, {key: value}))
        answer = _word(rng, split)
        talk.results((tool.name, {"answer": answer}))
        talk.final("", f"The answer is {answer}.")
    return talk


def picking(rng: random.Random, split: Split) -> Dialogue:
    """A list of rows, then calls that name one row and need another of its columns. Teaches looking up."""
    noun = rng.choice(NOUNS)
    name_key, id_key = (
        rng.choice(["name", "title", "label", "item"]),
        rng.choice(["sku", "id", "code", "number", "price"]),
    )
    many = rng.random() < 0.5
    key = f"{id_key}s" if many else id_key
    kind: dict[str, Any] = {"type": "array", "items": {"type": "string"}} if many else {"type": "string"}
    lister = Invented("list", noun, {"type": "object", "properties": {}})
    taker = Invented(rng.choice([v for v in VERBS if v != "list"]), noun, {"type": "object", "properties": {key: kind}})
    talk = Dialogue("", [tool.declare() for tool in rng.sample([lister, taker], 2)], False)
    talk.user(rng.choice([f"List the {noun}s.", f"Which {noun}s are there?", f"Show me every {noun}."]))
    talk.call("", (lister.name, {}))
    digits, lead = rng.randint(2, 5), rng.choice(["", "", syllables(rng, 1, 1).upper(), "SKU", "P-"])
    ids = rng.sample(range(10 ** (digits - 1), 10**digits), 6)
    shared = [_word(rng, split) for _ in range(2)]
    rows: list[dict[str, Any]] = []
    for number in ids[: rng.randint(2, 6)]:
        name = rng.choice(
            [_word(rng, split), f"{rng.choice(COLOURS)} {rng.choice(shared)}", f"{_word(rng, split)} {shared[0]}"]
        )
        if name in [row[name_key] for row in rows]:
            continue
        extra = {
            word: rng.choice([1, 2, 3, rng.randint(4, 99_999)])
            for word in rng.sample(["price", "quantity", "stock"], 2)
        }
        row = {**extra, name_key: name, id_key: f"{lead}{number}"}
        rows.append(dict(sorted(row.items())))
    talk.results((lister.name, {f"{noun}s": rows}))
    talk.final("", f"There are {len(rows)}.")
    for row in rng.sample(rows, min(len(rows), rng.randint(2, 5))):
        name = row[name_key]
        talk.user(
            rng.choice(
                [
                    f"{taker.verb} the {name}",
                    f"{name}",
                    f"I want to {taker.verb} the {name}.",
                    f"Now the {name}, please.",
                ]
            )
        )
        talk.call("", (taker.name, {key: [row[id_key]] if many else row[id_key]}))
        talk.results((taker.name, {"value": "done"}))
        talk.final("", f"The {name} is done.")
    return talk
