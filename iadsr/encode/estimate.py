"""What an encoding will cost, before anyone pays for it: texts, tokens, bytes, and hours from a short measured run."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from iadsr.encode.batches import Budget, encoded, places, units
from iadsr.encode.cache import SHARD, ordered
from iadsr.encode.encoders.interface import Encoder
from iadsr.encode.fill import LazyEncoder, all_texts, distinct, store_of
from iadsr.encode.recipe import Recipe
from iadsr.encode.texts import Corpus

SAMPLE_SECONDS, PIECES = 10.0, 8  # of measured encoding, at least
EFFICIENCY = 0.5  # of a rented device's dense rate; an assumption, not a measurement


def estimated(corpus: Corpus, recipe: Recipe, lazy: LazyEncoder, work: Path, tflops: float | None) -> str:
    """The costs in a few lines for a person. Texts that a store in `work` holds cost nothing more.

    It tokenizes everything and encodes a sample of all lengths; no vector is kept.
    """
    texts, numbers = distinct(all_texts(corpus, recipe))
    store = store_of(work, lazy.identity)
    held = store.holds_texts(texts)
    new = ordered(texts, np.flatnonzero(~held).tolist(), store.alphabetical)
    encoder, budget = lazy.open(), lazy.budget()
    lengths = np.zeros(len(texts), dtype=np.int64)
    lengths[new], new_cut, padded = counted(encoder, [texts[number] for number in new], budget.tokens)
    lengths[held], held_cut, _ = counted(encoder, [texts[number] for number in np.flatnonzero(held)], budget.tokens)
    row = 2 * encoder.dim
    means = np.count_nonzero(corpus.usable) if recipe.prefixes == "mean" else 0
    prefixes = len(np.unique(numbers[len(corpus.titles) :])) + means
    together = ", a history's prefixes computed together" if recipe.sharing_separator else ""
    lines = [
        f"texts            {len(numbers):>15,}   distinct {len(texts):,}, not encoded yet {len(new):,}"
        f"{recipe.why_no_prefixes}",
        f"tokens           {int(lengths[numbers].sum()):>15,}   of distinct texts {int(lengths.sum()):,}, "
        f"not encoded yet {int(lengths[new].sum()):,}",
        f"with padding     {padded:>15,}   in batches of at most {budget.tokens:,} tokens{together}",
        f"cut texts        {new_cut + held_cut:>15,}   to their newest {recipe.spec.max_tokens:,} tokens",
        f"bytes            {row * len(texts):>15,}   in the store, {encoder.dim} dimensions in float16; meanwhile "
        f"twice that, and {row * (len(corpus.titles) + 1 + prefixes):,} in data/encoded",
    ]
    if not new:
        return "\n".join([*lines, "nothing is left to encode"])
    rate = measured_rate(encoder, [texts[number] for number in new], lengths[new], budget, whole_shards=bool(together))
    hours = lengths[new].sum() / rate / 3600
    lines.append(f"hours here       {hours:>15,.3f}   at {rate:,.0f} tokens a second on {device_name(encoder.device)}")
    if tflops:
        flops = 2 * parameters(encoder) * rate * padded / lengths[new].sum()
        rented = hours * flops / (tflops * 1e12 * EFFICIENCY)
        lines.append(
            f"hours there      {rented:>15,.3f}   with {tflops:g} TFLOP/s, of which this code is taken to reach "
            f"{EFFICIENCY:.0%}; here it does {flops / 1e12:.3g}"
        )
    return "\n".join(lines)


def counted(encoder: Encoder, texts: list[str], budget: int) -> tuple[np.ndarray, int, int]:
    """For texts in the order of their shards: the tokens of each, how many are cut, and the places of all batches."""
    lengths, cut, total = np.empty(len(texts), dtype=np.int64), 0, 0
    for start in range(0, len(texts), SHARD):
        shard = encoder.tokenize(texts[start : start + SHARD])
        lengths[start : start + len(shard)] = [len(each.ids) for each in shard]
        cut += sum(each.truncated for each in shard)
        total += sum(places([unit.length for unit in kind], budget) for kind in units(shard))
    return lengths, cut, total


def measured_rate(encoder: Encoder, texts: list[str], lengths: np.ndarray, budget: Budget, whole_shards: bool) -> float:
    """Tokens a second, measured on pieces from each eighth of all tokens, again and again for a while.

    A piece is a batch or, where texts are computed together, a whole shard, which holds many texts of one history.
    """
    ends = lengths.cumsum()
    firsts = np.searchsorted(ends, np.linspace(0, ends[-1], PIECES, endpoint=False), side="right")
    if whole_shards:
        pieces = [texts[at : at + SHARD] for at in np.unique(firsts // SHARD * SHARD)]
    else:
        stops = np.searchsorted(ends, ends[firsts] + budget.tokens)
        pieces = [texts[first : max(first + 1, stop)] for first, stop in zip(firsts, stops, strict=True)]
    encoded(encoder, pieces[0], budget)  # warms up
    sample = [text for piece in pieces for text in piece]
    tokens, began = 0, time.perf_counter()
    while True:
        tokens += int(encoded(encoder, sample, budget).tokens.sum())
        if (seconds := time.perf_counter() - began) >= SAMPLE_SECONDS:
            return tokens / seconds


def parameters(encoder: Encoder) -> int:
    """The number of weights that a token is multiplied with: all but tables of embeddings."""
    model: torch.nn.Module = encoder.model
    tables = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    return sum(weight.numel() for weight in model.parameters() if id(weight) not in tables)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
