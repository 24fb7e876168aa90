"""`python -m skd.generate MODEL`: what a model answers to a prompt, shown while it is made.

With `--draft` a student drafts for its teacher; the answer stays the teacher's own, token for
token. The answer goes to the standard output, what it took to the standard error. Trains nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextStreamer

from skd.decoding.speculative import Decoded, speculate
from skd.engine.positions import reach, text_config
from skd.engine.rollout import Rows, uniform_noise
from skd.engine.seeding import generator
from skd.engine.sequences import Vocabulary
from skd.engine.settings import Sampling
from skd.engine.sources import decoder_start
from skd.errors import UserError, printable
from skd.models.encoding import encode_prompts, require_known
from skd.models.folders import held_in
from skd.models.loading import load_model, load_tokenizer
from skd.models.pairs import check_kinds, check_pair, check_starts, common_vocabulary


@dataclass(frozen=True)
class Speaker:
    """A model that answers, alone or with a draft."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    # None: it decodes alone
    draft: PreTrainedModel | None
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Answered:
    decoded: Decoded
    # The prompt's reading included
    seconds: float


def speaker(folder: Path, draft_folder: Path | None, device: torch.device) -> Speaker:
    """Load the models. Raises `UserError` for a pair that does not share its tokens."""
    tokenizer = load_tokenizer(folder)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    folders = [folder] if draft_folder is None else [folder, draft_folder]
    models = [load_model(place, device, dtype, weights=held_in(place)) for place in folders]
    if draft_folder is not None:
        check_pair(tokenizer, load_tokenizer(draft_folder), template_mismatch="teacher")
        check_kinds(*(model.config.is_encoder_decoder for model in models))
        check_starts(*map(decoder_start, models))
    model, *drafts = models
    draft = drafts[0] if drafts else None
    return Speaker(tokenizer, model, draft, common_vocabulary(tokenizer, *models))


def answer(speaker: Speaker, prompt: str, sampling: Sampling, length: int, seed: int) -> Answered:
    """Write the answer to the standard output, word by word as it is made.

    length: tokens at most.
    """
    start = decoder_start(speaker.model)
    (ids,) = encode_prompts([prompt], "{source}", speaker.tokenizer, start)
    require_known(ids, speaker.vocabulary, speaker.tokenizer, "the prompt")
    for model in filter(None, (speaker.model, speaker.draft)):
        _check_length(model, len(ids), length)
    shown = len(ids)
    streamer = TextStreamer(speaker.tokenizer, skip_special_tokens=True)

    def show(rows: Rows) -> None:
        nonlocal shown
        known = int(rows.known[0])
        streamer.put(rows.tokens[0, shown:known].cpu())
        shown = known

    began = time.perf_counter()
    decoded = speculate(
        speaker.draft,
        speaker.model,
        [ids],
        speaker.vocabulary,
        sampling,
        length,
        uniform_noise(1, length, generator(seed, "generate")),
        grown=show,
    )
    streamer.end()
    return Answered(decoded, time.perf_counter() - began)


def _check_length(model: PreTrainedModel, prompt: int, length: int) -> None:
    limit = getattr(text_config(model), "max_position_embeddings", None)
    if limit is not None and reach(prompt, length, len(decoder_start(model))) > limit:
        raise UserError(
            f"the prompt's {prompt} tokens and the answer's {length} are over the {limit} "
            f"positions of {type(model).__name__}; lower --max-tokens or shorten the prompt"
        )


def summary(answered: Answered) -> str:
    """`57 tokens in 2.1 s, 27.1 a second; 61 % of 90 drafted tokens accepted, …`."""
    decoded, seconds = answered.decoded, answered.seconds
    tokens = decoded.rollout.batch.response_tokens
    words = f"{tokens} tokens in {seconds:.1f} s, {tokens / seconds:.1f} a second"
    if not bool(decoded.rollout.stopped[0]):
        words += ", cut at --max-tokens"
    if drafted := decoded.drafts.drafted:
        words += (
            f"; {100 * decoded.drafts.kept / drafted:.0f} % of {drafted} drafted tokens accepted, "
            f"{decoded.acceptance_length:.1f} tokens per pass of the teacher"
        )
    return words


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m skd.generate", description=__doc__)
    parser.add_argument("model", type=Path, help="a model's folder, such as models/best/TASK")
    parser.add_argument("prompt", nargs="*", help="answered one by one; none: the standard input")
    parser.add_argument("--draft", type=Path, help="the folder of a student that drafts for it")
    parser.add_argument("--temperature", type=float, default=0.0, help="0, the default: greedy")
    parser.add_argument("--top-p", type=float, default=1.0, help="of the nucleus; default: 1")
    parser.add_argument("--max-tokens", type=int, default=256, help="per answer; default: 256")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling; default: 0")
    parser.add_argument("--device", help="default: the first accelerator, or else the CPU")
    given = parser.parse_intermixed_args(argv)
    if given.temperature < 0 or not 0 < given.top_p <= 1 or given.max_tokens < 1:
        parser.error("expected --temperature from 0, --top-p in (0, 1] and --max-tokens from 1")
    return given


def _standard_input() -> str:
    prompt = sys.stdin.read().strip()
    if not prompt:
        raise UserError("there is no prompt, neither as an argument nor on the standard input")
    return prompt


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments(argv)
    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    ready = speaker(given.model, given.draft, torch.device(device))
    sampling = Sampling(given.temperature, given.top_p)
    for prompt in given.prompt or [_standard_input()]:
        answered = answer(ready, prompt, sampling, given.max_tokens, given.seed)
        print(summary(answered), file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
