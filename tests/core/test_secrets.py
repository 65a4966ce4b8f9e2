"""Secrets: where values come from, who is given them, and that every form of them is masked."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from g4agent import Agent, Tool, secret, tool
from g4agent.errors import SecretMissingError, ToolDefinitionError
from g4agent.secrets import MIN_CHARS, Secrets
from g4agent.testing import ScriptedModel, call, calls, say

pytestmark = pytest.mark.anyio

VALUE = "sk-live_51/H+c=é x&'\"\\"
KEY_FILE = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"


@tool(where="host", effect="pure", secrets=["API_KEY"])
def sync_host(fail: bool) -> str:
    """Uses the key on the host."""
    if fail:
        raise RuntimeError(secret("API_KEY"))
    return secret("API_KEY")


@tool(where="host", effect="pure", secrets=["OTHER_KEY"])
async def async_host() -> str:
    """Uses its own key, and asks for another tool's."""
    with pytest.raises(SecretMissingError, match="API_KEY"):
        secret("API_KEY")
    return secret("OTHER_KEY")


def agent(*tools: Tool, **settings: object) -> Agent:
    script = [calls(call("sync_host", fail=False), call("async_host"), call("sync_host", fail=True)), say("Done.")]
    return Agent(model=ScriptedModel(script), tools=tools, store=False, **settings)  # type: ignore[arg-type]


async def test_host_tools_are_given_theirs() -> None:
    """A tool on the host, sync or async, lacks its secret or has another tool's, or a result holds a value."""
    result = await agent(sync_host, async_host, secrets={"API_KEY": VALUE, "OTHER_KEY": VALUE[::-1]}).run("Go")
    first, second, third = result.results
    assert (first.value, second.value) == ("[secret API_KEY]", "[secret OTHER_KEY]")
    assert third.error is not None and third.error.message == "RuntimeError: [secret API_KEY]"
    assert third.error.detail is not None and VALUE not in third.error.detail


async def test_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping, a function or the environment is not asked, or names are not looked up by the names that tools use."""
    asked: list[str] = []

    def look_up(name: str) -> str:
        asked.append(name)
        return f"value of {name}"

    assert (await agent(sync_host, async_host, secrets=look_up).run("Go")).results[0].value == "[secret API_KEY]"
    assert asked == ["API_KEY", "OTHER_KEY"]
    monkeypatch.setenv("API_KEY", VALUE)
    monkeypatch.setenv("OTHER_KEY", VALUE)
    assert (await agent(sync_host, async_host).run("Go")).results[0].value == "[secret API_KEY]"
    assert secret("API_KEY") == VALUE, "outside a run a tool's function can be tried with the environment"


@pytest.mark.parametrize("source", [None, {}, {"API_KEY": ""}, {"API_KEY": "short"}, {"API_KEY": "nul\0nul"}])
async def test_a_missing_secret_stops_the_run_before_it_starts(source: dict[str, str] | None) -> None:
    """A run fails in its middle for what could be known before, or goes on with an empty key."""
    scripted = agent(sync_host, secrets=source)
    with pytest.raises(SecretMissingError, match="API_KEY"):
        await scripted.run("Go")
    assert isinstance(scripted.model, ScriptedModel) and scripted.model.prompts == []


def test_names() -> None:
    """A name that cannot be a variable's is taken."""
    for name in ("", "A-B", "1A", "A=B"):
        with pytest.raises(ToolDefinitionError):
            tool(secrets=[name], where="host")(test_names)


@pytest.mark.parametrize("value", [VALUE, KEY_FILE, "123456", "  padded  ", "a.*b|c(d"])
def test_every_form_is_masked(value: str) -> None:
    """A tool's own quoting or coding brings a value past the mask."""
    secrets = Secrets(["KEY"], {"KEY": value})
    data = value.encode()
    coded = [
        value,
        value.strip(),
        data.hex(),
        data.hex().upper(),
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
    ]
    coded += [
        re.sub("%..", lambda found: found[0].lower(), quote(value, safe="")),
        json.dumps(value),
        repr(value),
        repr([value]),
    ]
    coded += [base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode().rstrip("=")]
    for text in coded:
        masked = secrets.mask(f"before {text} after")
        assert text not in masked and "[secret KEY]" in masked and masked.endswith(" after")
    document = {"a": [value, {value: value}], "n": 1.5, "none": None}
    assert secrets.mask_json(document) == {
        "a": ["[secret KEY]", {"[secret KEY]": "[secret KEY]"}],
        "n": 1.5,
        "none": None,
    }
    assert value not in repr(secrets)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ann:pa%2Fss%20word@db/shop",
        "redis://:pa%2Fss%20word@db",
        "postgresql://db/shop?password=pa/ss+word",
    ],
)
def test_the_password_of_an_address(address: str) -> None:
    """A server's message or a driver's error shows the password without the address around it."""
    secrets = Secrets(["DATABASE"], {"DATABASE": address})
    assert (
        secrets.mask("bad password pa/ss word, pa%2Fss%20word") == "bad password [secret DATABASE], [secret DATABASE]"
    )
    assert secrets.mask("host db, database shop, user ann") == "host db, database shop, user ann"


@pytest.mark.parametrize("value", ["https://[::1:secret@x", "a://b:cd@host/path", "no address: at@all"])
def test_a_value_that_only_looks_like_an_address(value: str) -> None:
    """A strange value is an error, or the short word in it is masked in every text."""
    assert Secrets(["KEY"], {"KEY": value}).mask(f"cd {value}") == "cd [secret KEY]"


def test_parts_of_a_key_file() -> None:
    """A key of several lines, printed line by line, passes."""
    secrets = Secrets(["KEY"], {"KEY": KEY_FILE})
    masked = secrets.mask("\n".join("  | " + line for line in KEY_FILE.splitlines()))
    assert not any(line in masked for line in KEY_FILE.splitlines())


@given(st.binary(max_size=8), st.text(st.characters(codec="utf-8"), min_size=12, max_size=40), st.binary(max_size=8))
def test_base64_around_a_value(before: bytes, value: str, after: bytes) -> None:
    """A value inside a longer text that is coded as a whole (Basic authentication) passes."""
    if len(value.strip()) < MIN_CHARS or "\0" in value:
        return
    secrets = Secrets(["KEY"], {"KEY": value})
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        assert "[secret KEY]" in secrets.mask(encode(before + value.encode() + after).decode())


def test_numbers_and_other_texts() -> None:
    """A number that is a secret passes, or what is none is changed."""
    secrets = Secrets(["PIN"], {"PIN": "482913"})
    assert secrets.mask_json({"pin": 482913, "other": 482914, "flag": True}) == {
        "pin": "[secret PIN]",
        "other": 482914,
        "flag": True,
    }
    assert Secrets().mask("text") == "text"
