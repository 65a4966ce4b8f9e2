"""Other compressed KV caches on PyPI, one layer each, as transformers would call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from torch import Tensor


def turboquant_layer(bits: int) -> Any:
    if not hasattr(numpy, "trapz"):  # turboquant 0.2.0 is older than numpy 2.4
        numpy.trapz = numpy.trapezoid  # type: ignore[attr-defined]
    from turboquant.cache import TurboQuantLayer  # type: ignore[import-untyped]

    return TurboQuantLayer(bits=bits)


def tiny_turboquant_layer(bits: int) -> Any:
    from tiny_turboquant.cache import TinyKVLayer  # type: ignore[import-untyped]

    return TinyKVLayer(key_bits=bits, value_bits=bits)


PEERS: dict[str, Callable[[int], Any]] = {"turboquant": turboquant_layer, "tiny-turboquant": tiny_turboquant_layer}


def storage_bytes(*holders: object) -> int:
    """Bytes of all tensors that objects hold in their attributes, each storage once and as a whole."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(holders)}
    return sum(storages.values())


def _tensors(thing: object) -> Iterator[Tensor]:
    if isinstance(thing, Tensor) and hasattr(thing, "__tensor_flatten__"):  # quanto's: a shell around others
        yield from _tensors([getattr(thing, name) for name in thing.__tensor_flatten__()[0]])
    elif isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from _tensors(item)
    elif isinstance(thing, dict):
        yield from _tensors(list(thing.values()))
    elif hasattr(thing, "__dict__") and not isinstance(thing, type):
        yield from _tensors([value for name, value in vars(thing).items() if name != "format"])
    elif hasattr(thing, "__slots__"):
        yield from _tensors([getattr(thing, name) for name in thing.__slots__])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
