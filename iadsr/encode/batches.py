"""Texts -> vectors in memory: sorted by length, in batches of up to N tokens, halved where memory is too small.

Each sequence that is computed is one text, or a chain of texts that begin one another (encoders/prefix_sharing.py).
Where prefixes are not encoded (`encode.prefixes: mean`), the mean of item vectors stands for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float16, Int, Int32

from iadsr.device import is_out_of_memory, one_thread_each
from iadsr.encode.encoders import prefix_sharing
from iadsr.encode.encoders.interface import Encoder, Tokens
from iadsr.encode.texts import Corpus
from iadsr.errors import UserError


class Encoded(NamedTuple):
    """The vector of each text, the number of its tokens, and whether its oldest were cut."""

    vectors: Float16[np.ndarray, "texts dim"]
    tokens: Int32[np.ndarray, " texts"]
    truncated: Bool[np.ndarray, " texts"]


@dataclass
class Budget:
    """The most tokens in a batch, padding included; it shrinks when memory does not suffice."""

    tokens: int


def encoded(
    encoder: Encoder,
    texts: Sequence[str],
    budget: Budget,
    tokens: Sequence[Tokens] | None = None,
    advance: Callable[[int], object] = lambda characters: None,
) -> Encoded:
    """Vectors in the order of `texts`; on a GPU no batch is waited for before the last one is under way.

    On a CPU as many batches are computed at once as there are threads, each on one: so the vectors do not depend on
    their number, and beside other programs no thread waits for another.

    Raises UserError naming a text whose vector float16 cannot hold, or that alone is too large for the memory.
    """
    tokens = encoder.tokenize(texts) if tokens is None else tokens
    alone, chains = units(tokens)
    order = np.concatenate([part.texts for part in alone + chains])
    halves, largest = [], []
    computed = _computed_side_by_side if encoder.device.type == "cpu" else _computed
    for batch in chain(
        computed(encoder, texts, tokens, alone, False, budget, advance),
        computed(encoder, texts, tokens, chains, True, budget, advance),
    ):
        halves.append(batch.to(torch.float16))
        largest.append(batch.abs().amax(1))
    vectors = np.empty((len(texts), halves[0].shape[1]), dtype=np.float16)
    vectors[order] = torch.cat(halves).cpu().numpy()
    _check_finite(vectors, order, torch.cat(largest).cpu().numpy(), texts)
    return Encoded(
        vectors,
        np.array([len(each.ids) for each in tokens], dtype=np.int32),
        np.array([each.truncated for each in tokens], dtype=bool),
    )


class Unit(NamedTuple):
    """The numbers of texts that are computed as one sequence, and its tokens."""

    texts: list[int]
    length: int


def units(tokens: Sequence[Tokens]) -> tuple[list[Unit], list[Unit]]:
    """The sequences to compute for these texts: single texts, and chains; the shortest come first in both."""
    alone = [Unit([number], len(each.ids)) for number, each in enumerate(tokens) if each.blocks is None]
    others = [number for number, each in enumerate(tokens) if each.blocks is not None]
    chained = [[others[place] for place in own] for own in prefix_sharing.chains([tokens[n] for n in others])]
    chains = [Unit(own, prefix_sharing.length([tokens[number] for number in own])) for own in chained]
    return sorted(alone, key=lambda unit: unit.length), sorted(chains, key=lambda unit: unit.length)


def _computed(
    encoder: Encoder,
    texts: Sequence[str],
    tokens: Sequence[Tokens],
    parts: Sequence[Unit],
    together: bool,
    budget: Budget,
    advance: Callable[[int], object],
) -> Iterator[torch.Tensor]:
    """The vectors of all texts in the order of `parts`, which are chains if they are to be computed `together`."""
    lengths = [part.length for part in parts]
    start = 0
    while start < len(parts):
        stop = batch_end(lengths, start, budget.tokens)
        batch = [[tokens[number] for number in part.texts] for part in parts[start:stop]]
        vectors = _tried(encoder, batch, together)
        if vectors is None:
            if stop == start + 1:
                raise _too_large(lengths[start], texts[parts[start].texts[-1]])
            budget.tokens = (stop - start) * lengths[stop - 1] // 2
            continue
        yield vectors
        advance(sum(len(texts[number]) for part in parts[start:stop] for number in part.texts))
        start = stop


def _computed_side_by_side(
    encoder: Encoder,
    texts: Sequence[str],
    tokens: Sequence[Tokens],
    parts: Sequence[Unit],
    together: bool,
    budget: Budget,
    advance: Callable[[int], object],
) -> Iterator[torch.Tensor]:
    """What `_computed` gives, from as many threads as torch may use; the longest batches are begun first."""
    cut = list(batches([part.length for part in parts], budget.tokens))
    found: list[list[torch.Tensor]] = [[] for _ in cut]

    def compute(number: int) -> None:
        own, left = parts[cut[number]], Budget(budget.tokens)
        found[number] = list(_computed(encoder, texts, tokens, own, together, left, advance))
        budget.tokens = min(budget.tokens, left.tokens)  # what did not fit once does not again

    one_thread_each(compute, reversed(range(len(cut))), encoder.device)
    yield from chain.from_iterable(found)


def _tried(encoder: Encoder, batch: list[list[Tokens]], together: bool) -> torch.Tensor | None:
    """The batch's vectors; None where memory does not suffice, with what the attempt took freed again."""
    try:
        return encoder.together(batch) if together else encoder.vectors([one for (one,) in batch])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():  # out of the handler, which holds the failed batch's memory
        torch.cuda.empty_cache()
    return None


def _too_large(length: int, text: str) -> UserError:
    return UserError(
        f"no memory for one sequence of {length:,} tokens: {text[:200]!r}; lower max_tokens of the encoder, or use a "
        "device with more memory"
    )


def prefix_means(
    vectors: Float16[np.ndarray, "items dim"], corpus: Corpus, max_length: int, rows: Int[np.ndarray, " some"]
) -> Float16[np.ndarray, "some dim"]:
    """Mean of the vectors of the newest `max_length` items up to each of `rows`, summed in float32, newest first."""
    lengths = np.minimum(corpus.positions[rows] + 1, max_length)
    sums = np.zeros((len(rows), vectors.shape[1]), dtype=np.float32)
    for back in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > back)
        sums[longer] += vectors[corpus.items[rows[longer] - back]]
    return (sums / lengths[:, None]).astype(np.float16)


def batch_end(lengths: Sequence[int], start: int, budget: int) -> int:
    """Where the batch ends that begins at `start` of ascending `lengths`: at most `budget` tokens, or one sequence."""
    stop = start + 1
    while stop < len(lengths) and (stop + 1 - start) * lengths[stop] <= budget:
        stop += 1
    return stop


def batches(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """All batches of ascending `lengths`."""
    start = 0
    while start < len(lengths):
        stop = batch_end(lengths, start, budget)
        yield slice(start, stop)
        start = stop


def places(lengths: Sequence[int], budget: int) -> int:
    """Tokens of all these batches, padding included."""
    return sum((part.stop - part.start) * lengths[part.stop - 1] for part in batches(lengths, budget))


def _check_finite(vectors: np.ndarray, order: np.ndarray, largest: np.ndarray, texts: Sequence[str]) -> None:
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(wrong):
        value = largest[np.flatnonzero(order == wrong[0])[0]]
        raise UserError(
            f"the vector of a text is not finite in float16 (largest value {value:g}): {texts[wrong[0]][:200]!r}; "
            "set encode.dtype to float32, or choose another encoder"
        )
