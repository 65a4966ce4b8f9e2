"""Every code block of every page and of the README is run, and every command in an overview exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import typer.core
import typer.main
from docs_page import overview_commands, pages, printed_ids, read_blocks
from docs_run import ROOT, PageRun

from g4agent.cli.app import app
from g4agent.errors import ConfigError

PAGES = [page.relative_to(ROOT).as_posix() for page in pages(ROOT)]
NOT_RUN = {"docs/quickstart.md": ["downloads 15 GB of weights"]}
"""By page, why blocks of it are not run: all of them, and no other."""
Readings = dict[str, Future[None]]


def read(page: str, folder: Path) -> None:
    """Does what a page says, in an empty folder."""
    reader = PageRun(folder)
    try:
        for block in read_blocks((ROOT / page).read_text()):
            if block.not_run is None:
                try:
                    reader.run(block)
                except AssertionError as problem:
                    raise AssertionError(f"{page}, line {block.line}: {problem}") from None
    finally:
        reader.close()


@pytest.fixture(scope="module")
def readings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readings]:
    """The pages that were asked for, two at a time: most of it is waiting for interpreters to start."""
    wanted = [item for item in request.session.items if isinstance(item, pytest.Function) and "reading" in item.name]
    chosen = [page for page in PAGES if any(f"[{page}]" in item.name for item in wanted)]
    with ThreadPoolExecutor(2) as pool:
        yield {page: pool.submit(read, page, tmp_path_factory.mktemp("reader")) for page in chosen}


@pytest.mark.parametrize("page", PAGES)
def test_reading_a_page_and_doing_what_it_says(page: str, readings: Readings) -> None:
    """What a reader copies must work, in the order in which it is read, with nano and a real box."""
    readings[page].result()


def test_what_is_not_run_is_listed_here() -> None:
    """A block that is left out silently rots."""
    left_out = {page: [b.not_run for b in read_blocks((ROOT / page).read_text()) if b.not_run] for page in PAGES}
    assert {page: reasons for page, reasons in left_out.items() if reasons} == NOT_RUN


@pytest.mark.parametrize(
    "page",
    [
        "```console\n$ echo one\ntwo\n```\n",
        "```console\n$ false\n```\n",
        "```sh\nfalse\ntrue\n```\n",
        "```python\nprint(1)\n```\n\n```text\n2\n```\n",
        "```python\nname = 1\n```\n\n```python\nassert name == 2\n```\n",
        '```toml\ndefault = "maybe"\n```\n',
        '```json\n{"id": "lamp", "prompt": ""}\n```\n',
        "```yaml\n- uses: OWNER/g4agent@main\n  with:\n    unknown: 1\n```\n",
        "```\nno language\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_red(page: str, tmp_path: Path) -> None:
    """A runner that lets everything pass would prove nothing."""
    reader = PageRun(tmp_path)
    try:
        with pytest.raises((AssertionError, ConfigError)):
            for block in read_blocks(page):
                reader.run(block)
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_overviews_take_their_options(page: str) -> None:
    """An option that was renamed must not live on in a page."""
    root = typer.main.get_command(app)
    for line in overview_commands((ROOT / page).read_text()):
        command, words = root, shlex.split(line.replace("…", "x"), comments=True)
        while isinstance(command, typer.core.TyperGroup):
            assert words[0] in command.commands or words[0].startswith("-"), f"{page}: g4agent {line}"
            if words[0].startswith("-"):
                break
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.match(r"-{1,2}[a-z]", word)}
        assert used <= known | {"--help", "-h"}, f"{page}: g4agent {line}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    """A page that was renamed leaves dead ends."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", (ROOT / page).read_text())
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("done · 0.1 s · session 1m874t9fjjp9\n", "done · 12.5 s · session 2a000t9fjjp0\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a …\n", "a b c\n", True),
        ("a\n", "a\nb\n", False),
        ("the answer is 4\n", "the answer is 5\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_only_times_and_ids_may_differ(said: str, printed: str, same: bool) -> None:
    """A comparison that lets everything pass would prove nothing."""
    assert (printed_ids(said, printed) is not None) is same
