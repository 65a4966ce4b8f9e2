"""What `load` takes, and what it says where it cannot."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from native_tokenizer import write_tokenizer
from tiny_models import VARIANTS, multimodal_model, text_model
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedModel

from g4agent.errors import ConfigError, ModelLoadError, RuntimeUnavailableError
from g4agent.ports.runtime import GenerateRequest, Sampling, TokenEngine, TokenRuntime
from g4agent_torch import load
from g4agent_torch.checkpoint import open_checkpoint

Checkpoints = Callable[[str], Path]
PROMPT = list(range(120, 150))


@pytest.fixture
def broken(checkpoint: Checkpoints, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be damaged."""
    return Path(shutil.copytree(checkpoint("E2B"), tmp_path / "gemma"))


def failure(model: str | Path, **options: object) -> str:
    with pytest.raises(ModelLoadError) as caught:
        load(str(model), **options)  # type: ignore[arg-type]
    assert caught.value.hint
    return str(caught.value)


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


async def first_token(runtime: TokenRuntime) -> tuple[int, float | None]:
    engine = await runtime.open_engine()
    await engine.append(PROMPT)
    (token,) = [t async for t in engine.generate(GenerateRequest(1, Sampling(temperature=0)))]
    return token.id, token.logprob


@pytest.mark.anyio
@pytest.mark.parametrize(("variant", "multimodal"), [("E2B", True), ("12B", True), ("12B", False), ("31B", False)])
async def test_every_class_of_checkpoint_is_loaded(variant: str, multimodal: bool, tmp_path: Path) -> None:
    """The official checkpoints are multimodal classes; tuned ones are often saved as text models. Both must run."""
    model: PreTrainedModel = (multimodal_model if multimodal else text_model)(variant)
    model.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    runtime = load(str(tmp_path))
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)
    token, logprob = await first_token(runtime)
    assert token == int(expected.argmax())
    assert logprob == pytest.approx(float(expected.max()), abs=1e-2)


@pytest.mark.anyio
async def test_the_runtime_is_what_the_core_expects(runtime: Callable[..., TokenRuntime]) -> None:
    """The core knows a runtime only by these protocols."""
    assert isinstance(runtime("E2B"), TokenRuntime)
    assert isinstance(await runtime("E2B").open_engine(), TokenEngine)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_variant_follows_the_architecture(variant: str, runtime: Callable[..., TokenRuntime]) -> None:
    """With the wrong one, thinking is switched off by a cue that the model was not trained with."""
    info = runtime(variant).info
    assert info.variant == ("small" if variant in {"E2B", "E4B"} else "large")
    assert (info.device, info.dtype, info.context_length) == ("cpu", "float32", 4096)
    assert info.parameters == sum(p.numel() for p in text_model(variant).parameters())


@pytest.mark.anyio
async def test_bfloat16_on_a_cpu_when_asked_for(checkpoint: Checkpoints) -> None:
    """Large models on a CPU run in bfloat16: every layer has to take it."""
    runtime = load(str(checkpoint("26B-A4B")), dtype="bfloat16", device="cpu")
    assert runtime.info.dtype == "bfloat16"
    _, logprob = await first_token(runtime)
    assert logprob is not None and logprob <= 0


def test_the_fingerprint_changes_with_the_content_only(checkpoint: Checkpoints, tmp_path: Path) -> None:
    """Stored tokens and pages are matched by it: a copy is the same model, another weight or token is not."""

    def fingerprint(folder: Path) -> str:
        return open_checkpoint(str(folder), offline=True, progress=print).fingerprint()

    original = checkpoint("E2B")
    copy = Path(shutil.copytree(original, tmp_path / "another-name"))
    edit(copy / "config.json", transformers_version="9.9")
    assert fingerprint(copy) == fingerprint(original)

    edit(copy / "config.json", sliding_window=32)
    assert fingerprint(copy) != fingerprint(original)

    shutil.copy(original / "config.json", copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-4:] = bytes(4)  # in a tensor of a few bytes
    (copy / "model.safetensors").write_bytes(weights)
    assert fingerprint(copy) != fingerprint(original)

    shutil.copy(original / "model.safetensors", copy)
    tokenizer = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(tokenizer + " ")
    assert fingerprint(copy) != fingerprint(original)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    """A mistyped path must not end in a search on the hub."""
    assert "no folder" in failure(tmp_path / "nothing")


def test_an_empty_folder_is_not_a_checkpoint(tmp_path: Path) -> None:
    """The error names the file that is missing."""
    assert "config.json" in failure(tmp_path)


def test_a_broken_configuration_is_reported(broken: Path) -> None:
    """A truncated download shows first in the small files."""
    (broken / "config.json").write_text('{"model_type": "gemma4_te')
    assert "not a model configuration" in failure(broken)


def test_missing_weights_are_reported(broken: Path) -> None:
    """A folder fetched without its large files is common."""
    (broken / "model.safetensors").unlink()
    assert "no weights" in failure(broken)


def test_a_missing_tokenizer_is_reported(broken: Path) -> None:
    """Weights alone are of no use."""
    (broken / "tokenizer.json").unlink()
    assert "tokenizer.json" in failure(broken)


def test_missing_shards_are_named(broken: Path) -> None:
    """An interrupted download leaves some of the shards."""
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    (broken / "model.safetensors").rename(broken / "model-00001-of-00002.safetensors")
    message = failure(broken)
    assert "lacks 1 of 2" in message and "00002-of-00002" in message


@pytest.mark.parametrize("keep", [0, 5, 300, -100])
def test_truncated_weights_are_found_before_they_are_used(broken: Path, keep: int) -> None:
    """A short file must be named as such: in memory it would be a crash or noise."""
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:keep])
    assert "model.safetensors" in failure(broken)


def test_weights_of_another_configuration_are_refused(checkpoint: Checkpoints, broken: Path, tmp_path: Path) -> None:
    """Absent tensors would be filled with random numbers, with nothing but a warning."""
    edit(broken / "config.json", intermediate_size=40)
    assert "cannot load" in failure(broken)
    incomplete = Path(shutil.copytree(checkpoint("E4B"), tmp_path / "incomplete"))
    edit(incomplete / "config.json", num_kv_shared_layers=0)
    assert "lacks 18 weights" in failure(incomplete)


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    """The format and its ids are Gemma 4's: a Gemma 3 would run and talk nonsense."""
    config = Gemma3TextConfig(
        vocab_size=420, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8
    )
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    message = failure(tmp_path)
    assert "gemma3_text" in message and "gemma-4-E4B-it" in message


def test_a_tokenizer_with_other_ids_is_refused(broken: Path) -> None:
    """With control tokens elsewhere every prompt would be wrong."""
    text = (broken / "tokenizer.json").read_text()
    (broken / "tokenizer.json").write_text(text.replace("<|tool_call>", "<|gone|>"))
    assert "<|tool_call> (48)" in failure(broken)
    (broken / "tokenizer.json").write_text("{}")
    assert "cannot be read" in failure(broken)


def test_a_hub_id_without_a_network_says_how_to_get_it(tmp_path: Path) -> None:
    """Offline is where this fails most, and where a traceback helps least."""
    message = failure("google/gemma-4-no-such-model", offline=True)
    assert "hf download google/gemma-4-no-such-model" in message and "nano" in message


def test_options_that_cannot_be_are_refused(checkpoint: Checkpoints) -> None:
    """Each names what there is instead."""
    folder = str(checkpoint("E2B"))
    for options in ({"dtype": "int3"}, {"device": "abacus"}, {"context_length": 0}, {"context_length": 4097}):
        with pytest.raises(ConfigError):
            load(folder, **options)  # type: ignore[arg-type]
    with pytest.raises(RuntimeUnavailableError):
        load(folder, device="cuda:77")


def test_progress_is_told_line_by_line(checkpoint: Checkpoints, capfd: pytest.CaptureFixture[str]) -> None:
    """A pipe gets no bars; a small model gets no words at all."""
    load(str(checkpoint("E2B")))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("package", ["torch", "transformers", "tokenizers"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(package: str) -> None:
    """Without the extra, the user gets one line to type, not an ImportError."""
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "import g4agent_torch, g4agent_torch.catalog\n"
        "assert 'transformers' not in sys.modules or sys.modules['transformers'] is None\n"
        "from g4agent.errors import RuntimeUnavailableError\n"
        "try: g4agent_torch.load('nano')\n"
        "except RuntimeUnavailableError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert package in done.stdout and "pip install 'g4agent[torch]'" in done.stdout
