"""Finding a checkpoint, checking that it is a whole Gemma 4, and naming it by its content. No torch in here."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

from g4agent.errors import ModelLoadError
from g4agent_torch.catalog import MODELS

Progress: TypeAlias = Callable[[str], None]

MODEL_TYPES: Final = frozenset({"gemma4", "gemma4_text", "gemma4_unified", "gemma4_unified_text"})
"""`model_type` of what can be run: Gemma4ForCausalLM, Gemma4ForConditionalGeneration and their Unified sisters."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILES = ("*.json", "*.safetensors")
_SAMPLE = 256
_VOLATILE_KEYS = frozenset({"transformers_version", "_name_or_path"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder whose files are there and fit together."""

    name: str
    folder: Path
    config: dict[str, Any]
    """The parsed `config.json`."""
    shards: tuple[Path, ...]
    """The safetensors files, sorted by name."""

    @property
    def weight_bytes(self) -> int:
        return sum(shard.stat().st_size for shard in self.shards)

    def fingerprint(self) -> str:
        """Names configuration, tokenizer and weights by content, in 32 hexadecimal digits.

        SHA-256 over the configuration without its volatile keys, the whole tokenizer, and of each shard the header,
        the size, and 256 bytes from the start and the middle of every tensor. So it reads a few hundred kilobytes where
        hashing the weights would read gigabytes; changing a tensor only between the samples goes unseen.
        """
        digest = hashlib.sha256()
        lasting = {key: value for key, value in self.config.items() if key not in _VOLATILE_KEYS}
        digest.update(json.dumps(lasting, sort_keys=True).encode())
        digest.update((self.folder / "tokenizer.json").read_bytes())
        for shard in self.shards:
            header, start = read_header(shard)
            digest.update(json.dumps([shard.name, shard.stat().st_size, header], sort_keys=True).encode())
            with shard.open("rb") as file:
                for _, (begin, end) in sorted(_offsets(header).items()):
                    for position in (begin, (begin + end) // 2):
                        file.seek(start + position)
                        digest.update(file.read(min(_SAMPLE, end - position)))
        return digest.hexdigest()[:32]


def open_checkpoint(model: str, *, offline: bool, progress: Progress) -> Checkpoint:
    """Finds `model` (nano, a folder, or a hub id, which is downloaded if need be) and checks its files.

    Raises:
        ModelLoadError: It is not there, cannot be had, or is incomplete, damaged or not a Gemma 4.
    """
    if model == "nano":
        name, folder = model, Path(str(resources.files("g4agent_torch"))) / "nano"
    elif Path(model).expanduser().is_dir():
        folder = Path(model).expanduser().resolve()
        name = folder.name
    elif _HUB_ID.fullmatch(model):
        name, folder = model, _download(model, offline=offline, progress=progress)
    else:
        raise ModelLoadError(
            f"There is no folder {model!r}.",
            hint="Name a checkpoint folder, a hub id such as google/gemma-4-E4B-it, or nano.",
        )
    hint = f"Get it whole: hf download {model}" if name == model != "nano" else "Copy or download the checkpoint again."
    config = _read_config(folder, hint)
    if not (folder / "tokenizer.json").is_file():
        raise ModelLoadError(f"{folder} has no tokenizer.json.", hint=hint)
    shards = _find_shards(folder, hint)
    for shard in shards:
        read_header(shard)
    return Checkpoint(name, folder, config, shards)


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the offset of its data. Checks that the file is as long as it says.

    Format: https://huggingface.co/docs/safetensors (8 bytes little-endian length, JSON, data).
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        try:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size:
                raise ValueError("its header is longer than the file")
            header: dict[str, Any] = json.loads(stream.read(length))
            expected = 8 + length + max((end for _, end in _offsets(header).values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise ModelLoadError(
                f"{file} is not a safetensors file ({error}).", hint="Download the checkpoint again."
            ) from error
    if size != expected:
        raise ModelLoadError(
            f"{file} has {size:,} bytes where its header announces {expected:,}.",
            hint="The copy or download was cut short: download the checkpoint again.",
        )
    return header, 8 + length


def _offsets(header: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {name: tuple(tensor["data_offsets"]) for name, tensor in header.items() if name != "__metadata__"}


def _read_config(folder: Path, hint: str) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelLoadError(f"{folder} is not a checkpoint: it has no config.json.", hint=hint)
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = config["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(f"{file} is not a model configuration ({error!r}).", hint=hint) from error
    if kind not in MODEL_TYPES:
        classes = ", ".join(config.get("architectures") or ()) or "no class named"
        raise ModelLoadError(
            f"{folder} holds a {kind} model ({classes}); this runtime runs Gemma 4 only.",
            hint=f"Supported: {', '.join(model.name for model in MODELS)}, and what is tuned from them.",
        )
    return config


def _find_shards(folder: Path, hint: str) -> tuple[Path, ...]:
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"{index} is not an index of weights ({error!r}).", hint=hint) from error
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ModelLoadError(
                f"{folder} lacks {len(missing)} of {len(names)} weight files: {missing[0]}…", hint=hint
            )
        return tuple(folder / name for name in names)
    if single.is_file():
        return (single,)
    raise ModelLoadError(f"{folder} has no weights: neither {single.name} nor {index.name}.", hint=hint)


def _download(repository: str, *, offline: bool, progress: Progress) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    offline = offline or constants.HF_HUB_OFFLINE
    command = f"hf download {repository}"
    if not offline:
        progress(f"{repository}: looking for new files on the hub")
    try:
        return Path(snapshot_download(repository, allow_patterns=list(_HUB_FILES), local_files_only=offline))
    except GatedRepoError as error:
        message = f"{repository} is only for those who accepted its terms."
        hint = f"Accept them at https://huggingface.co/{repository}, then: hf auth login && {command}"
        raise ModelLoadError(message, hint=hint) from error
    except RepositoryNotFoundError as error:
        message = f"There is neither a folder {repository!r} nor a model of that name on the hub."
        hint = "Check the spelling; for a private model: hf auth login. `g4agent models` lists the official ones."
        raise ModelLoadError(message, hint=hint) from error
    except LocalEntryNotFoundError as error:
        reason = "and working offline was asked for" if offline else "and the hub cannot be reached"
        message = f"{repository} is not in the local Hugging Face cache, {reason}."
        hint = f"Where there is a network: {command}. A copy in any folder will do; --model nano needs nothing."
        raise ModelLoadError(message, hint=hint) from error
    except Exception as error:  # the client's other faults have no base in common: HTTP, proxy, disk, Xet
        message = f"{repository} could not be downloaded: {error}"
        raise ModelLoadError(message, hint=f"Try again: {command}. Or use --model nano.") from error
