"""The language model of a Gemma 4 checkpoint, as a function from token ids and a cache to logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from g4agent_torch.attention import PACKED_SDPA, masks
from g4agent_torch.kv import KVCache


class Decoder:
    """Embedding, layers and output head. Vision and audio towers of the checkpoint are let go.

    transformers' own text model runs unforked; only what its outer classes do per token on the way (placeholder search,
    mask building) is left out.

    Args:
        model: A loaded Gemma 4, text-only or multimodal.
        attention: Name of the attention function to run with.
        device: Where to run it.
    """

    def __init__(self, model: PreTrainedModel, attention: str, device: torch.device) -> None:
        self._text: Any = model.get_decoder()
        self._head: nn.Module = model.get_output_embeddings()
        self._text.set_attn_implementation(attention)
        parameters = inspect.signature(self._text.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"  # before transformers 5.24
        self._full_masks = attention == PACKED_SDPA  # others are causal by themselves
        parts = nn.ModuleList([self._text, self._head]).to(device)
        self.device = device
        self.text_model: PreTrainedModel = self._text
        self.config = self._text.config
        self.vocab_size: int = self.config.vocab_size
        self.parameters = sum(parameter.numel() for parameter in parts.parameters())

    def forward(self, ids: Sequence[int], kv: KVCache, *, want_logits: bool) -> Tensor | None:
        """Computes keys and values of `ids` into `kv`, and the logits after the last one if wanted.

        Returns:
            Float32 [vocabulary], or None.
        """
        past, device = kv.length, self.device
        hidden = self._text(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.arange(past, past + len(ids), device=device)[None],
            attention_mask=masks(past, len(ids), self.config.sliding_window, device, full=self._full_masks),
            use_cache=True,
            logits_to_keep=1,  # the layers that share keys and values need no more
            **{self._cache_argument: kv.layers},
        ).last_hidden_state
        if not want_logits:
            return None
        logits: Tensor = self._head(hidden[0, -1])
        if (cap := self.config.final_logit_softcapping) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits.float()
