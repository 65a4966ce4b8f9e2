"""nano's architecture and its training-time attention.

The model is transformers' own `Gemma4ForCausalLM`, unforked: alternating sliding and full attention (the last layer
full), K=V on the full layers, the two top layers sharing their keys and values, per-layer embeddings, proportional
RoPE, tied embeddings, logit soft-cap. Training swaps in a faster attention function through `AttentionInterface`; the
weights know nothing of it (`tests` compare it with the stock forward).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, Gemma4ForCausalLM, Gemma4TextConfig

BLOCK_ATTENTION = "g4agent_nano_block"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a nano; the defaults are the published model."""

    vocab: int = 2048
    hidden: int = 192
    layers: int = 6
    ffn: int = 384
    heads: int = 4
    local_kv_heads: int = 2
    local_head_dim: int = 32
    global_kv_heads: int = 1
    global_head_dim: int = 64
    shared_layers: int = 2
    ple: int = 16
    window: int = 128

    def __post_init__(self) -> None:
        assert self.layers % 2 == 0 and self.shared_layers <= self.layers - 2
        assert self.heads % self.local_kv_heads == 0 and self.heads % self.global_kv_heads == 0


def config(shape: Shape) -> Gemma4TextConfig:
    """The `Gemma4TextConfig` of a shape: sliding and full layers alternate, the last one is full."""
    return Gemma4TextConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.local_kv_heads,
        head_dim=shape.local_head_dim,
        global_head_dim=shape.global_head_dim,
        num_global_key_value_heads=shape.global_kv_heads,
        attention_k_eq_v=True,
        sliding_window=shape.window,
        layer_types=["sliding_attention", "full_attention"] * (shape.layers // 2),
        vocab_size_per_layer_input=shape.vocab,
        hidden_size_per_layer_input=shape.ple,
        num_kv_shared_layers=shape.shared_layers,
        max_position_embeddings=131_072,
        final_logit_softcapping=30.0,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=[1, 106],
        bos_token_id=2,
    )


def build(shape: Shape, seed: int) -> Gemma4ForCausalLM:
    """A freshly initialised model.

    Three departures from transformers' default initialisation, all because Gemma 4 normalises queries, keys and every
    block's output: embeddings start at unit size after scaling, blocks start as small additions to the residual, and
    the query norm starts at 1.5/sqrt(head_dim), since the architecture itself has no attention scale.
    """
    torch.manual_seed(seed)
    model = Gemma4ForCausalLM(config(shape))
    with torch.no_grad():
        nn.init.normal_(model.model.embed_tokens.weight, std=shape.hidden**-0.5)
        nn.init.normal_(model.model.embed_tokens_per_layer.weight, std=shape.ple**-0.5)
        for layer in model.model.layers:
            layer.self_attn.q_norm.weight.fill_(1.5 * layer.self_attn.head_dim**-0.5)
            for norm in (
                layer.post_attention_layernorm,
                layer.post_feedforward_layernorm,
                layer.post_per_layer_input_norm,
            ):
                norm.weight.fill_(0.5)
    return model


def banded_mask(blocks: int, window: int, device: torch.device) -> Tensor:
    """Bool [blocks, 1, window, 2*window]: which keys of (previous block + own block) each query of a block may see."""
    query = torch.arange(window, device=device)[:, None] + window
    key = torch.arange(2 * window, device=device)[None, :]
    band = (key <= query) & (query - key < window)  # [W, 2W]
    exists = (torch.arange(blocks, device=device) > 0)[:, None, None] | (key >= window)[None]  # [blocks, 1, 2W]
    return (band[None] & exists)[:, None]


def block_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Exact causal attention without a T x T mask: blocks of one window for sliding layers, `is_causal` for full ones.

    query [B, H, T, D], key and value [B, KV, T, D], T a multiple of the window; returns [B, T, H, D].
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    window = kwargs.get("sliding_window")
    batch, heads, length, dim = query.shape
    scale = float(kwargs.get("scaling", 1.0))
    if window is None or length <= window:
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale)
        return out.transpose(1, 2), None
    assert length % window == 0, f"{length} is not a multiple of the window {window}"
    blocks = length // window

    def own(x: Tensor) -> Tensor:  # [B, H, T, D] -> [B, blocks, H, W, D]
        return x.view(batch, heads, blocks, window, dim).transpose(1, 2)

    def with_previous(x: Tensor) -> Tensor:  # -> [B * blocks, H, 2W, D]
        here = own(x)
        before = F.pad(here[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        return torch.cat((before, here), 3).reshape(batch * blocks, heads, 2 * window, dim)

    mask = banded_mask(blocks, window, query.device).repeat(batch, 1, 1, 1)
    out = F.scaled_dot_product_attention(
        own(query).reshape(batch * blocks, heads, window, dim),
        with_previous(key),
        with_previous(value),
        attn_mask=mask,
        scale=scale,
    )
    out = out.view(batch, blocks, heads, window, dim).permute(0, 1, 3, 2, 4)
    return out.reshape(batch, length, heads, dim), None


AttentionInterface.register(BLOCK_ATTENTION, block_attention)
