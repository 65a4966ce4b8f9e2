"""Gemma 4 models with random weights: the official layer patterns, sharing and ratios, at a size that runs in a test.

Sizes after gemma4 `_VARIANTS` of transformers' convert script; widths are scaled down, the structure is kept: per-layer
embeddings and shared KV layers (E2B, E4B), K=V on global layers (12B, 26B-A4B, 31B), experts (26B-A4B).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForCausalLM,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVisionConfig,
    Gemma4VisionConfig,
    PreTrainedModel,
)

from g4agent.gemma4.tokens import VIDEO

VARIANTS = ("E2B", "E4B", "12B", "26B-A4B", "31B")
VOCABULARY = 420
WINDOW = 16


def pattern(local: int, periods: int) -> list[str]:
    """`local` sliding layers and a full one, `periods` times."""
    return (["sliding_attention"] * local + ["full_attention"]) * periods


COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": WINDOW,
    "final_logit_softcapping": 30.0,
    "max_position_embeddings": 4096,
    "initializer_range": 0.1,
    "eos_token_id": [1, 106],
}
SMALL: dict[str, Any] = {
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "num_attention_heads": 8,
}
LARGE: dict[str, Any] = {"attention_k_eq_v": True, "use_bidirectional_attention": "vision"}
SPECIFIC: dict[str, dict[str, Any]] = {
    "E2B": SMALL
    | {"layer_types": pattern(4, 4), "num_key_value_heads": 1, "num_kv_shared_layers": 10, "use_double_wide_mlp": True},
    "E4B": SMALL | {"layer_types": pattern(5, 3), "num_key_value_heads": 2, "num_kv_shared_layers": 6},
    "12B": LARGE
    | {
        "layer_types": pattern(5, 2),
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 1,
    },
    "26B-A4B": LARGE
    | {
        "layer_types": pattern(5, 2),
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "num_global_key_value_heads": 2,
        "hidden_size_per_layer_input": 0,
        "enable_moe_block": True,
        "num_experts": 16,
        "top_k_experts": 8,
        "moe_intermediate_size": 16,
    },
    "31B": LARGE
    | {
        "layer_types": pattern(5, 2),
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "num_global_key_value_heads": 4,
        "hidden_size_per_layer_input": 0,
    },
}
SPECIFIC["two layers"] = SPECIFIC["31B"] | {"layer_types": pattern(1, 1)}
"""For tests that need many tokens more than they need layers."""

SPECIFIC["wide heads"] = SPECIFIC["31B"] | {"global_head_dim": 128}
"""For the compressed cache, which wants heads of such sizes."""


def text_config(variant: str, **changes: Any) -> Any:
    """The scaled-down text configuration of an official variant."""
    values = COMMON | SPECIFIC[variant] | changes
    kind = Gemma4UnifiedTextConfig if variant == "12B" else Gemma4TextConfig
    return kind(num_hidden_layers=len(values["layer_types"]), **values)


def randomise(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Gives every norm and scalar a weight of its own, so that leaving one out changes the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith(("norm.weight", "layer_scalar")):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return model.eval()


def text_model(variant: str) -> PreTrainedModel:
    """A random text model of an official variant, in float32."""
    torch.manual_seed(0)
    config = text_config(variant)
    kind = Gemma4UnifiedForCausalLM if variant == "12B" else Gemma4ForCausalLM
    return randomise(kind(config))


IMAGE_VOCABULARY = VIDEO + 1
"""So many that the tokens around an image have their official ids."""
SEEING: dict[str, dict[str, Any]] = {
    "E2B": {"layer_types": pattern(4, 2), "num_kv_shared_layers": 5, "vocab_size_per_layer_input": IMAGE_VOCABULARY},
    "E4B": {"layer_types": pattern(5, 2), "num_kv_shared_layers": 6, "vocab_size_per_layer_input": IMAGE_VOCABULARY},
    "12B": {"layer_types": pattern(2, 2)},
    "26B-A4B": {"layer_types": pattern(2, 2)},
    "31B": {"layer_types": pattern(2, 2)},
    "wide heads": {"layer_types": pattern(2, 1)},
}
"""With a window that is shorter than an image in some places and longer in others."""


def seeing_model(variant: str) -> PreTrainedModel:
    """A random model of an official variant whose vocabulary has the tokens of images."""
    return multimodal_model(variant, vocab_size=IMAGE_VOCABULARY, sliding_window=64, **SEEING[variant])


def multimodal_model(variant: str, **changes: Any) -> PreTrainedModel:
    """The same with a tiny vision part, as the official checkpoints are saved."""
    torch.manual_seed(0)
    text = text_config(variant, **changes)
    if variant == "12B":
        unified_vision = Gemma4UnifiedVisionConfig(mm_embed_dim=32, output_proj_dims=32, mm_posemb_size=64)
        audio = Gemma4UnifiedAudioConfig(audio_embed_dim=16)
        whole = Gemma4UnifiedConfig(text_config=text, vision_config=unified_vision, audio_config=audio)
        return randomise(Gemma4UnifiedForConditionalGeneration(whole))
    vision = Gemma4VisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        position_embedding_size=64,
    )
    return randomise(Gemma4ForConditionalGeneration(Gemma4Config(text_config=text, vision_config=vision)))
