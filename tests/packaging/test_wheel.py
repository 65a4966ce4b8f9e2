"""The wheel: what it holds, and that it works where only it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "g4agent": ROOT / "g4agent",
    "g4agent_torch": ROOT / "runtimes/g4agent_torch",
    "g4agent_box": ROOT / "sandboxes/g4agent_box",
    "g4agent_bubblewrap": ROOT / "sandboxes/g4agent_bubblewrap",
    "g4agent_docker": ROOT / "sandboxes/g4agent_docker",
    "g4agent_coding": ROOT / "tools/g4agent_coding",
    "g4agent_mcp": ROOT / "tools/g4agent_mcp",
    "g4agent_files": ROOT / "tools/g4agent_files",
    "g4agent_python": ROOT / "tools/g4agent_python",
    "g4agent_sql": ROOT / "tools/g4agent_sql",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from this tree without asking an index."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; only its dependencies come from the environment of the tests."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    python = str(home / "bin/python")
    install = ["install", "--no-input", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install], check=True, capture_output=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "lib" / version / "site-packages/dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


def _run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["G4AGENT_HOME"] = str(installed)
    program = [str(installed / "bin" / command[0]), *command[1:]]
    return subprocess.run(program, cwd=installed, env=environment, capture_output=True, encoding="utf-8", timeout=300)


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    """Tests, examples or training in site-packages would collide with their users' own modules."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    metadata = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert {name.partition("/")[0] for name in names} == PACKAGES.keys() | metadata
    assert len(metadata) == 1
    assert f"{metadata.pop()}/licenses/LICENSE" in names


def test_the_wheel_is_complete(wheel: Path) -> None:
    """Every module is in it, and what is not Python: nano's weights and tokenizer, migrations, type markers."""
    expected = {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert expected <= names
    assert {f"g4agent_torch/nano/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")} <= names
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_the_kernel_is_in_the_wheel(wheel: Path) -> None:
    """Compiled where the wheel was built, so that its users need no compiler; the wheel is then for one platform."""
    with ZipFile(wheel) as archive:
        assert "g4agent_torch/turboquant/libg4agent_kv.so" in archive.namelist()
    assert wheel.name.endswith(f"-py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}.whl")


def test_everything_is_imported_from_the_wheel(installed: Path) -> None:
    """Guards the test itself: an editable install that shows through would prove nothing."""
    code = f"import sys, {', '.join(PACKAGES)}; print(*(sys.modules[n].__file__ for n in {sorted(PACKAGES)}))"
    done = _run(installed, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert all(Path(file).is_relative_to(installed) for file in done.stdout.split())


@pytest.mark.parametrize("command", [["--version"], ["models"], ["sessions", "list"]])
def test_commands_work_where_only_the_wheel_is(installed: Path, command: list[str]) -> None:
    """The console script, the migrations and the runtime's catalog are found without the source tree."""
    done = _run(installed, "g4agent", *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_doctor_finds_the_plug_ins_of_the_wheel(installed: Path) -> None:
    """Entry points of runtimes and sandboxes are part of the wheel's metadata."""
    done = _run(installed, "g4agent", "doctor", "--json")
    findings = {finding["subject"]: finding["status"] for finding in json.loads(done.stdout)["findings"]}
    assert findings["runtime torch"] == "ok"
    assert "sandbox bubblewrap" in findings


def test_nano_runs_from_the_wheel(installed: Path) -> None:
    """The packaged model is found, loads and generates."""
    done = _run(installed, "g4agent", "run", "Hello", "--model", "nano", "--max-steps", "1", "--json")
    first, *_, last = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["type"], first["model"], last["type"]) == ("run_started", "nano", "run_finished")
    assert last["usage"]["generated_tokens"] > 0
