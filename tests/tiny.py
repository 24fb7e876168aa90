"""Tiny randomly initialised models and random prompts for the tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from skd.engine.sequences import Vocabulary

SIZE = 31
VOCABULARY = Vocabulary(size=SIZE, eos=(1, 2), pad=0, forbidden=(0,))
_SHAPE = {
    "vocab_size": SIZE,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "initializer_range": 0.6,  # peaked enough that models disagree
}


def _gemma3_with_images(**text: object) -> Gemma3Config:
    """Gemma 3 from 4B on: the decoder's config is a part of another."""
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    sizes = {"num_attention_heads": 1, "image_size": 8, "patch_size": 4}
    ids = {"eos_token_id": text["eos_token_id"], "pad_token_id": text["pad_token_id"]}
    return Gemma3Config(
        text_config=text, vision_config={**vision, **sizes}, mm_tokens_per_image=4, **ids
    )


FAMILIES: dict[str, tuple[Callable[..., PretrainedConfig], dict[str, object]]] = {
    # What most tests build: of one layer, where the other families have two.
    "llama": (LlamaConfig, {"num_hidden_layers": 1}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 8}),
    "mistral_sliding": (MistralConfig, {"sliding_window": 5}),
    "phi3_sliding": (Phi3Config, {"sliding_window": 5}),
    "gemma2": (
        Gemma2Config,
        {"head_dim": 8, "sliding_window": 5, "final_logit_softcapping": 3.0},
    ),
    "gemma3": (Gemma3TextConfig, {"head_dim": 8, "sliding_window": 5}),
    "gemma3_with_images": (_gemma3_with_images, {"head_dim": 8, "sliding_window": 5}),
    "smollm3": (SmolLM3Config, {"no_rope_layers": [1, 0]}),
    "llama4_chunked": (
        Llama4TextConfig,
        {
            "head_dim": 8,
            "attention_chunk_size": 5,
            "no_rope_layers": [1, 0],
            "intermediate_size_mlp": 24,
            "num_local_experts": 2,
        },
    ),
    # Like OPT-350m: states that are narrower than the layers.
    "opt_projected": (
        OPTConfig,
        {"word_embed_proj_dim": 8, "ffn_dim": 24, "do_layer_norm_before": False, "init_std": 0.6},
    ),
    "gpt2": (GPT2Config, {"n_positions": 128}),
    "gpt_neox": (GPTNeoXConfig, {}),
    "falcon": (FalconConfig, {}),
    "mixtral": (MixtralConfig, {"num_local_experts": 4}),
    "qwen2_moe": (
        Qwen2MoeConfig,
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_moe": (
        Qwen3MoeConfig,
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8},
    ),
    "gpt_oss": (
        GptOssConfig,
        {"num_local_experts": 4, "head_dim": 8, "sliding_window": 5, "rope_scaling": None},
    ),
}


def build(
    family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object
) -> PreTrainedModel:
    kind, extra = FAMILIES[family]
    torch.manual_seed(seed)
    config = kind(**{**_SHAPE, **extra, **changes})
    # Eager attention exists for all families, soft-capped ones included.
    config._attn_implementation = "eager"
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).to(dtype).eval()


def prompts(count: int, seed: int = 0, longest: int = 9) -> list[tuple[int, ...]]:
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=source).tolist()
    return [tuple(torch.randint(3, SIZE, (n,), generator=source).tolist()) for n in lengths]
