"""A limit on the memory of keys and values: how long a session can be, and which sessions wait on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from g4agent_torch.turboquant.cache import SINKS, TAIL_PAGES
from g4agent_torch.turboquant.formats import LayerFormat
from g4agent_torch.turboquant.layout import PAGE_TOKENS

if TYPE_CHECKING:
    from g4agent_torch.engine import TorchEngine


def fitting_tokens(text_model: PreTrainedModel, formats: dict[int, LayerFormat], limit: int) -> int:
    """The longest session whose keys and values fit into `limit` bytes; 0 if not even its windows do.

    Args:
        text_model: The decoder of a Gemma 4.
        formats: Of the layers that are compressed, by index; empty where none is.
        limit: Bytes.
    """
    config: Any = text_model.config
    fixed, per_token = 0.0, 0.0
    layers: Any = text_model.layers
    for index, (kind, layer) in enumerate(zip(config.layer_types, layers, strict=True)):
        attention = layer.self_attn
        if getattr(attention, "is_kv_shared_layer", False):
            continue
        row = 2 * attention.k_proj.out_features * attention.k_proj.weight.element_size()
        if kind == "sliding_attention":
            fixed += config.sliding_window * row
        elif index in formats:
            fixed += (SINKS + (TAIL_PAGES + 1) * PAGE_TOKENS) * row
            per_token += formats[index].page_bytes / PAGE_TOKENS
        else:
            per_token += row
    return max(0, int((limit - fixed) / per_token))


class Residents:
    """The engines whose caches are in memory, least recently used first.

    Args:
        limit: Bytes for all of them; None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._engines: WeakKeyDictionary[TorchEngine, None] = WeakKeyDictionary()

    def use(self, engine: TorchEngine) -> None:
        """Notes that an engine works."""
        self._engines.pop(engine, None)
        self._engines[engine] = None

    def make_room(self, engine: TorchEngine) -> None:
        """Puts others on disk as long as all together take too much; those that can't be put there stay."""
        if self._limit is None:
            return
        engines = list(self._engines)
        excess = sum(each.held_bytes for each in engines) - self._limit
        for other in engines:
            if excess <= 0:
                return
            if other is not engine:
                excess -= other.put_on_disk()
