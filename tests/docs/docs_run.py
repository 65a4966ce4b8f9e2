"""Runs the blocks of one page, top to bottom, in a folder and a virtual environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import threading
import tomllib
import venv
from pathlib import Path

import yaml
from docs_page import Block, printed_ids

from g4agent.headless.batch import read_tasks
from g4agent.policy_file import read_policy
from g4agent_mcp import read_servers

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 120
END = "\x1eend of block "
INTERPRETER = f"""
import json, sys, traceback
__file__ = "page.py"
_blocks = sys.stdin
sys.stdin = open("/dev/null")
for _line in _blocks:
    _code = 0
    try:
        exec(compile(json.loads(_line), __file__, "exec"))
    except SystemExit as _exit:
        _code = int(_exit.code or 0)
    except BaseException:
        traceback.print_exc()
        _code = 1
    print({END!r} + str(_code), flush=True)
"""
"""Runs each line, a JSON text of Python, in one namespace, which is that of the script page.py."""


class PageRun:
    """A reader who does what the page says.

    Args:
        folder: An empty folder, where the reader sits.
    """

    def __init__(self, folder: Path) -> None:
        self._home = folder
        self._at = folder / "work"
        self._at.mkdir()
        (folder / "g4agent").symlink_to(ROOT)  # a reader's checkout
        self._code = 0
        self._environment = environment(folder)
        self._python: subprocess.Popen[str] | None = None
        self._script = ""
        self._ids: dict[str, str] = {}

    def close(self) -> None:
        """Ends the page's interpreter."""
        if self._python is not None:
            self._python.communicate(timeout=TIMEOUT)

    def run(self, block: Block) -> None:
        """Runs or reads one block. Raises AssertionError where it fails, or does not do what the page says."""
        if block.file is not None:
            file = self._at / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        match block.language:
            case "python" if block.file is not None:
                compile(block.text, block.file, "exec")
            case "python":
                self._compare(block, self._run_python(block.text))
            case "console":
                self._run_console(block)
            case "sh":
                self._compare(block, self._run_shell(f"set -eo pipefail\n{block.text}", 0))
            case "toml" | "json" | "yaml":
                read_data(block, self._home)
            case language:
                raise AssertionError(f"nobody knows how to run {language!r}: name a language, see docs_page.py")

    def _run_python(self, source: str) -> str:
        self._script += source
        (self._at / "page.py").write_text(self._script)  # where a box finds the page's tools
        if self._python is None:
            with (self._home / "errors").open("w") as errors:
                self._python = subprocess.Popen(
                    [self._home / "venv/bin/python", "-c", INTERPRETER],
                    cwd=self._at,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
        process = self._python
        assert process.stdin is not None and process.stdout is not None
        deadline = threading.Timer(TIMEOUT, process.kill)
        deadline.start()
        print(json.dumps(source), file=process.stdin, flush=True)
        printed = ""
        for line in process.stdout:
            printed += line
            if END in line:
                break
        deadline.cancel()
        printed, _, code = printed.partition(END)
        assert code.strip() == "0", printed + (self._home / "errors").read_text()
        return printed

    def _run_console(self, block: Block) -> None:
        commands = block.commands
        for number, (command, said) in enumerate(commands):
            following = commands[number + 1][0] if number + 1 < len(commands) else ""
            for shown, own in self._ids.items():  # where the page has its session's id, a reader types the own one
                command = command.replace(shown, own)
            printed = self._run_shell(command, None if following == "echo $?\n" else 0)
            if said:
                ids = printed_ids(said, printed)
                assert ids is not None, f"$ {command}prints\n{printed}\nand not\n{said}"
                self._ids |= ids

    def _run_shell(self, script: str, code: int | None) -> str:
        """What a script prints. `cd` and the exit code last for the next one, as in a shell."""
        left = self._home / "left"
        whole = f"(exit {self._code})\n{script}\ncode=$?; pwd > '{left}'; exit $code"
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", whole],
            cwd=self._at,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
        )
        self._code = done.returncode
        assert code is None or self._code == code, f"exit code {self._code}\n{done.stdout}"
        self._at = Path(left.read_text().strip())
        return done.stdout

    def _compare(self, block: Block, printed: str) -> None:
        if block.output is not None:
            assert printed_ids(block.output, printed) is not None, f"prints\n{printed}\nand not\n{block.output}"


def read_data(block: Block, home: Path) -> None:
    """Reads toml, json or yaml by the part of g4agent that it is for."""
    file = home / "data"
    file.write_text(block.text)
    if block.language == "toml":
        if tomllib.loads(block.text).keys() & {"rule", "default"}:
            read_policy(file)
    elif block.language == "json":
        if '"mcpServers"' in block.text:
            read_servers(file)
        elif '"prompt"' in block.text:
            read_tasks(file)
        else:
            json.loads(block.text)
    else:
        for step in yaml.safe_load(block.text):
            if step["uses"].startswith("OWNER/g4agent@"):
                inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
                assert step["with"].keys() <= inputs.keys()


def environment(home: Path) -> dict[str, str]:
    """A virtual environment in which g4agent is installed and a page may install more, without an index."""
    folder = home / "venv"
    venv.create(folder, with_pip=False)
    site = folder / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = folder / "bin/python"
    for name, command in {"g4agent": "-m g4agent", "pytest": "-m pytest", "pip": "-m pip"}.items():
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {python} {command} "$@"\n')
        (folder / "bin" / name).chmod(0o755)
    own = ("PYTHONPATH", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS")
    kept = {name: value for name, value in os.environ.items() if name not in own}
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    paths = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "G4AGENT_HOME": str(home), "HOME": str(home)}
    paths["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # the compiled kernel
    return {**kept, **pip, **paths, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
