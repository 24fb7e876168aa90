"""Every decoder that Transformers has, tiny and with random weights: is it sampled exactly?

`python -m benchmarks.families` makes a pair of each kind of model in fp64, draws interleaved
responses and compares them with Algorithm 1 as it is written (`tests/reference.py`), with windows
and chunks that the rows go past. It writes docs/families.md. Two outcomes are right: the tokens are
those of the algorithm, or the engine refuses the model with its reason. Knows no family by name.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from benchmarks.setting import ROOT
from skd.engine.rollout import uniform_noise
from skd.engine.sampling import Interleaving, sample
from skd.engine.settings import Acceptance, Sampling
from skd.errors import UserError
from tests.reference import interleaved
from tests.tiny import SIZE, VOCABULARY, prompts

PAGE = ROOT / "docs" / "families.md"
ROWS, LONGEST, LENGTH = 8, 14, 12
GAMMAS: tuple[int | Literal["auto"], ...] = (1, 3, "auto")
RULE = Acceptance("top_k", 4)
STUDENT, TEACHER = Sampling(temperature=0.8, top_p=0.95), Sampling(temperature=0.7, top_p=0.9)
_SECONDS = 300
# What makes a model tiny, and what it is called in one family or another. A field that a family's
# config lacks is left out.
_TINY: dict[int, tuple[str, ...]] = {
    SIZE: ("vocab_size",),
    16: ("hidden_size", "n_embd", "d_model", "embed_dim", "dim", "hidden_dim"),
    24: ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff", "feed_forward_size"),
    2: (
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        *("num_attention_heads", "n_head", "n_heads", "num_heads"),
        *("encoder_attention_heads", "decoder_attention_heads", "encoder_layers", "decoder_layers"),
        *("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"),
    ),
    1: (
        *("num_key_value_heads", "num_kv_heads", "n_group", "topk_group", "num_shared_experts"),
        *("n_shared_experts", "first_k_dense_replace"),
    ),
    8: (
        *("head_dim", "moe_intermediate_size", "shared_expert_intermediate_size"),
        *("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim", "rotary_dim"),
        *("expert_ffn_hidden_size", "hidden_size_per_layer_input", "qk_rope_head_dim"),
    ),
    4: (
        *("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
        *("mamba_n_heads", "mamba_d_head", "mamba_d_state"),
    ),
    128: ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"),
    # Windows and chunks that rows of LONGEST + LENGTH tokens go past
    5: ("sliding_window", "attention_chunk_size", "window_size", "local_attention_window"),
}
_PLAIN: dict[str, Any] = {
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "initializer_range": 0.6,  # peaked enough that models disagree
    "init_std": 0.6,
    "layer_types": None,
    "rope_scaling": None,
    "no_rope_layers": None,
    "use_cache": True,
    **dict.fromkeys(
        (
            *("attention_dropout", "hidden_dropout", "dropout", "resid_pdrop", "attn_pdrop"),
            *("embd_pdrop", "resid_dropout", "embedding_dropout", "hidden_dropout_prob"),
            *("attention_probs_dropout_prob", "activation_dropout", "layerdrop", "attn_dropout"),
        ),
        0.0,
    ),
}
# Other sizes that are tried where a family's code does not run with those
_VARIANTS: tuple[dict[str, int], ...] = (
    {},
    {"num_key_value_heads": 2},
    {"num_attention_heads": 4, "n_head": 4, "head_dim": 4, "rotary_dim": 4},
)
# Characters of a reason
_WIDE = 112
# A tiny model has no more numbers than this; one that has was not made tiny
_NUMBERS = 3_000_000


@dataclass(frozen=True)
class Found:
    """What came of one kind of model."""

    kind: str
    # exact, refused, not made, differs or crashed
    outcome: str
    words: str = ""


def survey(kind: str) -> Found:
    """kind: as `model_type` in a config.json names it."""
    torch.set_num_threads(1)
    try:
        student, teacher = map(tiny(kind), (1, 2))
    except Exception as error:  # whatever a family's code raises at sizes it was not made for
        return Found(kind, "not made", _words(error))
    rows = prompts(ROWS, longest=LONGEST)
    noise = uniform_noise(ROWS, LENGTH, torch.Generator().manual_seed(0))
    judge = Interleaving(teacher, RULE, TEACHER)
    try:
        made = {}
        for gamma in GAMMAS:
            drawn = sample(student, rows, VOCABULARY, STUDENT, LENGTH, noise, judge, gamma).batch
            ends = zip(drawn.tokens, drawn.prompt_lengths, drawn.lengths, strict=True)
            made[gamma] = [tokens[begin:end].tolist() for tokens, begin, end in ends]
        wanted = [
            interleaved(
                student, teacher, row, VOCABULARY, STUDENT, TEACHER, RULE, LENGTH, noise[:, i]
            ).response
            for i, row in enumerate(rows)
        ]
    except UserError as refusal:
        return Found(kind, "refused", _words(refusal))
    except Exception as error:
        return Found(kind, "crashed", _words(error))
    off = {gamma: sum(map(list.__ne__, given, wanted)) for gamma, given in made.items()}
    if any(off.values()):
        return Found(kind, "differs", f"rows that are not the algorithm's, of {ROWS}: {off}")
    return Found(kind, "exact", "in fp32" if student.dtype == torch.float32 else "")


def tiny(kind: str) -> Callable[[int], PreTrainedModel]:
    """Makes small models of the kind's own code with weights that a seed draws, in fp64.

    The first sizes are taken with which the code runs by itself, and fp32 where it names that.
    """
    for dtype, changes in product((torch.float64, torch.float32), _VARIANTS):
        make = partial(_made, kind, dtype, changes)
        try:
            logits = make(0)(torch.arange(3, 9)[None], use_cache=False).logits
        except Exception as error:
            reason = error
        else:
            if logits.isfinite().all():
                return make
            reason = ValueError("its logits are no numbers")
    raise reason


@torch.no_grad()
def _made(kind: str, dtype: torch.dtype, changes: dict[str, int], seed: int) -> PreTrainedModel:
    family = CONFIG_MAPPING[kind]
    known = family().to_dict()
    asked = {name: size for size, names in _TINY.items() for name in names} | _PLAIN | changes
    config: PretrainedConfig = family(**{k: v for k, v in asked.items() if k in known})
    if config.get_text_config() is not config:
        raise ValueError("its text model is a part of another, and a kind of its own")
    with torch.device("meta"), suppress(NotImplementedError):  # some look at numbers as they begin
        count = AutoModelForCausalLM.from_config(config).num_parameters()
        if count > _NUMBERS:
            raise ValueError(f"{count} numbers: its sizes have names of their own")
    config._attn_implementation = "eager"
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    # Families begin with small or with empty weights, which would all say the same.
    source = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.4, generator=source)
    return model.eval()


def _words(error: BaseException) -> str:
    """What was raised, in a line. Of a refusal what is its own: the reason in brackets."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        text = re.sub(r"; docs/own-models.md .*$", "", text)
        text = re.sub(r"^\w+ cannot be sampled by position \((.*)\)$", r"\1", text)
    else:
        text = f"{type(error).__name__}: {text}"
    return textwrap.shorten(text, _WIDE, placeholder=" …")


def kinds() -> list[str]:
    """All that Transformers has, by the name in config.json."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def page(found: Sequence[Found]) -> str:
    count = Counter(one.outcome for one in found)
    told = {
        "exact": "Sampled exactly",
        "refused": "Refused, with the engine's reason",
        "differs": "Not the algorithm's tokens",
        "crashed": "Ended by an error that is not a refusal",
        "not made": "No tiny model could be made here",
    }
    lines = [
        "# Families of models, tried",
        "",
        f"`python -m benchmarks.families` with Transformers {transformers.__version__}: of "
        f"{len(found)} kinds of causal language models {count['exact']} are sampled exactly, "
        f"{count['refused']} are refused, {count['differs']} differ and {count['crashed']} crash; "
        f"of {count['not made']} no tiny model could be made, which says nothing about them.",
        "",
        "Each is a pair with random weights in fp64 (in fp32 where its code names that), which "
        f"draws {ROWS} interleaved responses of {LENGTH} tokens behind prompts of up to {LONGEST}, "
        "with γ of 1, 3 and `auto`. They are compared with Algorithm 1 as it is written, one row "
        "and one token at a time. Windows and chunks are 5 tokens long. What a family's published "
        "sizes and settings add is not tried here.",
    ]
    for outcome, title in told.items():
        own = [one for one in found if one.outcome == outcome]
        if not own:
            continue
        lines += ["", f"## {title}", ""]
        if outcome == "exact":
            lines.append(", ".join(f"`{one.kind}`{one.words and f' ({one.words})'}" for one in own))
        else:
            lines += ["| Kind | Reason |", "|:--|:--|"]
            lines += [f"| `{one.kind}` | {_cell(one.words)} |" for one in own]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("kinds", nargs="*", help="these alone, and no page is written")
    asked = parser.parse_args(argv).kinds
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    transformers.logging.set_verbosity_error()
    found = []
    # A process for each: what one family's code does to PyTorch, the next does not see
    with multiprocessing.get_context("fork").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        jobs = {kind: pool.apply_async(survey, (kind,)) for kind in asked or kinds()}
        for kind, job in jobs.items():
            try:
                one = job.get(_SECONDS)
            except multiprocessing.TimeoutError:
                one = Found(kind, "crashed", f"no answer after {_SECONDS} s")
            print(f"{one.kind:24} {one.outcome:9} {one.words}", flush=True)
            found.append(one)
    if not asked:
        PAGE.write_text(page(found), encoding="utf-8")
    sys.exit(any(one.outcome in ("differs", "crashed") for one in found))


if __name__ == "__main__":
    main()
