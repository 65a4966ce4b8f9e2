"""The language model of a Gemma 4 checkpoint, as a function from token ids and a cache to logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from g4agent.gemma4.tokens import is_soft
from g4agent_torch.attention import PACKED_SDPA, masks
from g4agent_torch.kv import KVCache
from g4agent_torch.many_tokens import multiplies_slowly, widened
from g4agent_torch.one_token import pass_of, reads_faster_alone
from g4agent_torch.output_head import ScreenedHead


class Decoder:
    """Embedding, layers and output head. The audio tower of the checkpoint is let go; its vision part is `Vision`.

    transformers' own text model runs unforked; only what its outer classes do per token on the way (placeholder search,
    mask building) is left out.

    Args:
        model: A loaded Gemma 4, text-only or multimodal.
        attention: Name of the attention function to run with.
        device: Where to run it.
        head_bits: One of `HEAD_BITS` that `output_head.check` has let pass.
    """

    def __init__(self, model: PreTrainedModel, attention: str, device: torch.device, head_bits: str = "16") -> None:
        self._text: Any = model.get_decoder()
        self._head: Any = model.get_output_embeddings()
        self._text.set_attn_implementation(attention)
        parameters = inspect.signature(self._text.forward).parameters
        self._cache_argument = "cache" if "cache" in parameters else "past_key_values"  # before transformers 5.24
        self._full_masks = attention == PACKED_SDPA  # others are causal by themselves
        parts = nn.ModuleList([self._text, self._head]).to(device)
        self.device = device
        self.text_model: PreTrainedModel = self._text
        self.config = self._text.config
        self.vocab_size: int = self.config.vocab_size
        self._sees_ahead = getattr(self.config, "use_bidirectional_attention", None) == "vision"
        """Whether the tokens of an image see those behind them, in sliding layers."""
        self._one_token_kernel = reads_faster_alone(device, self._text.dtype)
        self._widens = multiplies_slowly(device, self._text.dtype)
        self.parameters = sum(parameter.numel() for parameter in parts.parameters())
        if head_bits == "4":
            self._head = ScreenedHead(self._head.weight)

    def forward(
        self, ids: Sequence[int], kv: KVCache, *, want_logits: bool, images: Sequence[tuple[int, Tensor]] = ()
    ) -> Tensor | None:
        """Computes keys and values of `ids` into `kv`, and the logits after the last one if wanted.

        Args:
            ids: Tokens, soft ones among them only where `images` has their vectors.
            kv: The cache.
            want_logits: Whether to compute logits.
            images: Where whole images begin among the ids, each with its vectors [tokens, hidden].

        Returns:
            Float32 [vocabulary], or None.
        """
        with pass_of(len(ids)) if self._one_token_kernel else widened(self._widens):
            return self._forward(ids, kv, want_logits, images)

    def _forward(
        self, ids: Sequence[int], kv: KVCache, want_logits: bool, images: Sequence[tuple[int, Tensor]]
    ) -> Tensor | None:
        past, device = kv.length, self.device
        blocks = [(start, start + len(vectors)) for start, vectors in images] if self._sees_ahead else []
        hidden = self._text(
            **(self._embedded(ids, images) if images else {"input_ids": torch.tensor([ids], device=device)}),
            position_ids=torch.arange(past, past + len(ids), device=device)[None],
            attention_mask=masks(
                past, len(ids), self.config.sliding_window, device, full=self._full_masks, blocks=blocks
            ),
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

    def _embedded(self, ids: Sequence[int], images: Sequence[tuple[int, Tensor]]) -> dict[str, Tensor]:
        """What goes into the layers where there are images: at their places the padding token's per-layer embeddings,
        and their vectors in the place of its own."""
        plain = torch.tensor([[self.config.pad_token_id if is_soft(id) else id for id in ids]], device=self.device)
        embeddings: Tensor = self._text.embed_tokens(plain)
        inputs = {"inputs_embeds": embeddings}
        if getattr(self.config, "hidden_size_per_layer_input", 0):
            inputs["per_layer_inputs"] = self._text.get_per_layer_inputs(plain, None)
        for start, vectors in images:
            embeddings[0, start : start + len(vectors)] = vectors.to(embeddings)
        return inputs
