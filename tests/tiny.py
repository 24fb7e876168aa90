"""Tiny randomly initialised models and random prompts for the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    M2M100Config,
    MarianConfig,
    MBartConfig,
    MistralConfig,
    MixtralConfig,
    MT5Config,
    OPTConfig,
    PegasusConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
    T5Config,
    UMT5Config,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from pipelines.runs.machine import Machine
from pipelines.settings.runtime import Runtime
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
_BART_SHAPE: dict[str, object] = {
    "vocab_size": SIZE,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 128,
    "dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "init_std": 0.6,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
    "scale_embedding": False,
}
_T5_SHAPE: dict[str, object] = {
    "vocab_size": SIZE,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "initializer_factor": 1.6,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,  # padding, as published ones have it
}
# A decoder's start token is joined by a forced one where published models of the family have it.
ENCODER_DECODERS: dict[str, tuple[Callable[..., PretrainedConfig], dict[str, object]]] = {
    "t5": (T5Config, _T5_SHAPE),
    "mt5": (MT5Config, {**_T5_SHAPE, "tie_word_embeddings": False}),
    "umt5": (UMT5Config, _T5_SHAPE),
    "m2m100": (M2M100Config, {**_BART_SHAPE, "forced_bos_token_id": 5, "decoder_layerdrop": 0.0}),
    "marian": (MarianConfig, {**_BART_SHAPE, "decoder_start_token_id": 0}),
    "bart": (BartConfig, {**_BART_SHAPE, "forced_bos_token_id": 3}),
    "mbart": (MBartConfig, {**_BART_SHAPE, "scale_embedding": True}),
    "pegasus": (PegasusConfig, {**_BART_SHAPE, "decoder_start_token_id": 0}),
}


def build(
    family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64, **changes: object
) -> PreTrainedModel:
    torch.manual_seed(seed)
    if family in ENCODER_DECODERS:
        kind, shape = ENCODER_DECODERS[family]
        mapping, config = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, kind(**{**shape, **changes})
    else:
        kind, extra = FAMILIES[family]
        mapping, config = MODEL_FOR_CAUSAL_LM_MAPPING, kind(**{**_SHAPE, **extra, **changes})
    # Eager attention exists for all families, soft-capped ones included.
    config._attn_implementation = "eager"
    return mapping[type(config)](config).to(dtype).eval()


def prompts(count: int, seed: int = 0, longest: int = 9) -> list[tuple[int, ...]]:
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=source).tolist()
    return [tuple(torch.randint(3, SIZE, (n,), generator=source).tolist()) for n in lengths]


def machine_in(folder: Path, device: Any = "cpu", **runtime: Any) -> Machine:
    """A machine with its scratch in `folder`: one place for jobs, no bars."""
    values = {"workers": 1, "progress": False, "scratch": str(folder / "scratch"), **runtime}
    return Machine(torch.device(device), Runtime(device=device, **values), decoding_batch=4)
