"""What an encoding will cost, before anyone pays for it: texts, tokens, bytes, and hours from a short measured run."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from iadsr.encoders import Encoder
from iadsr.encoding import Recipe, Source, all_texts, distinct
from iadsr.text_encoding import Budget, batches, encoded
from iadsr.texts import Corpus
from iadsr.vector_store import SHARD, Store

TOKENIZED_AT_ONCE = 1024
SAMPLE_SECONDS, PIECES = 10.0, 8  # of measured encoding, at least
EFFICIENCY = 0.5  # of a rented device's dense rate; an assumption, not a measurement


def estimated(corpus: Corpus, recipe: Recipe, source: Source, work: Path, tflops: float | None) -> str:
    """Some lines for a person. Texts that a store in `work` holds cost nothing more.

    Tokenizes everything and encodes a sample of all lengths; no vector is kept.
    """
    texts, numbers = distinct(all_texts(corpus, recipe))
    new = np.flatnonzero(~Store(work, source.identity).holds_texts(texts))
    encoder, budget = source.open(), source.budget()
    lengths, cut = token_counts(encoder, texts)
    row = 2 * encoder.dim
    joint = recipe.settings.prefixes == "joint"
    prefixes = len(np.unique(numbers[len(corpus.titles) :])) if joint else np.count_nonzero(corpus.usable)
    by_size = np.array(sorted(new.tolist(), key=lambda number: (len(texts[number]), texts[number])), dtype=np.int64)
    padded = padded_tokens(lengths[by_size], budget.tokens)
    lines = [
        f"texts            {len(numbers):>15,}   distinct {len(texts):,}, not encoded yet {len(new):,}",
        f"tokens           {int(lengths[numbers].sum()):>15,}   of distinct texts {int(lengths.sum()):,}, "
        f"not encoded yet {int(lengths[new].sum()):,}",
        f"with padding     {padded:>15,}   in batches of at most {budget.tokens:,} tokens",
        f"cut texts        {cut:>15,}   to their newest {recipe.spec.max_tokens:,} tokens",
        f"bytes            {row * len(texts):>15,}   in the store, {encoder.dim} dimensions in float16; meanwhile "
        f"twice that, and {row * (len(corpus.titles) + 1 + prefixes):,} in data/encoded",
    ]
    if not len(new):
        return "\n".join([*lines, "nothing is left to encode"])
    rate = measured_rate(encoder, [texts[number] for number in by_size], lengths[by_size], budget)
    hours = lengths[new].sum() / rate / 3600
    lines.append(f"hours here       {hours:>15,.3f}   at {rate:,.0f} tokens a second on {device_name(encoder.device)}")
    if tflops:
        flops = 2 * parameters(encoder) * rate
        rented = hours * flops / (tflops * 1e12 * EFFICIENCY)
        lines.append(
            f"hours there      {rented:>15,.3f}   with {tflops:g} TFLOP/s, of which this code is taken to reach "
            f"{EFFICIENCY:.0%}; here it does {flops / 1e12:.3g}"
        )
    return "\n".join(lines)


def token_counts(encoder: Encoder, texts: list[str]) -> tuple[np.ndarray, int]:
    """Tokens of each text, and how many texts are cut."""
    lengths, cut = np.empty(len(texts), dtype=np.int64), 0
    for start in range(0, len(texts), TOKENIZED_AT_ONCE):
        some = encoder.tokenize(texts[start : start + TOKENIZED_AT_ONCE])
        lengths[start : start + len(some)] = [len(each.ids) for each in some]
        cut += sum(each.truncated for each in some)
    return lengths, cut


def padded_tokens(lengths: np.ndarray, budget: int) -> int:
    """Places in the batches of all shards, of texts in the order in which they are cut into shards."""
    total = 0
    for start in range(0, len(lengths), SHARD):
        shard = np.sort(lengths[start : start + SHARD]).tolist()
        total += sum((part.stop - part.start) * shard[part.stop - 1] for part in batches(shard, budget))
    return total


def measured_rate(encoder: Encoder, texts: list[str], lengths: np.ndarray, budget: Budget) -> float:
    """Tokens a second. Pieces of a batch's size come from each eighth of all tokens, again and again for a while."""
    ends = lengths.cumsum()
    firsts = np.searchsorted(ends, np.linspace(0, ends[-1], PIECES, endpoint=False), side="right")
    pieces = [
        texts[first : max(first + 1, int(np.searchsorted(ends, ends[first] + budget.tokens)))] for first in firsts
    ]
    encoded(encoder, pieces[0], budget)  # warms up
    tokens, began = 0, time.perf_counter()
    while True:
        for piece in pieces:
            tokens += int(encoded(encoder, piece, budget).tokens.sum())
        if (seconds := time.perf_counter() - began) >= SAMPLE_SECONDS:
            return tokens / seconds


def parameters(encoder: Encoder) -> int:
    """Weights that a token is multiplied with: all but tables of embeddings."""
    model: torch.nn.Module = encoder.model
    tables = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in tables)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
