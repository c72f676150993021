"""Full ranking: the rank of each user's held-out item among the whole catalogue, and HR@k and NDCG@k from ranks.

Ties are resolved by the expected rank: an item that k others tie with ranks k/2 below the best place among them. A
constant score then ranks every item in the middle, so it gains nothing. A score that is NaN ranks below all others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.device import one_thread_each
from iadsr.models.recommender import Recommender
from iadsr.schemas import TEST
from iadsr.sequences.windows import Feed, Sequences, history_windows, shortest_first


@dataclass(frozen=True)
class Ranks:
    """Expected rank (1 is best) of each user's target, over all items and over all but those seen before."""

    targets: Int[np.ndarray, " users"]
    unfiltered: Float[np.ndarray, " users"]
    filtered: Float[np.ndarray, " users"]


ENCODED = 512  # users that are encoded at once
FEWEST = 32  # users that are counted at once, so that a large item table is not read for each
CPU_SCORES, GPU_SCORES = 2**20, 2**27  # counted at once: what stays in a CPU's cache; a few per cent of a GPU


def rank_targets(model: Recommender, feed: Feed, split: str, max_length: int) -> Ranks:
    """Rank the item held out by `split` for every user, from the newest `max_length` items of the history before it."""
    sequences = feed.sequences
    targets, seen, table = sequences.targets(split), SeenItems(sequences, split), model.item_table()[1:]
    size = max(FEWEST, (CPU_SCORES if table.device.type == "cpu" else GPU_SCORES) // len(table))
    unfiltered, filtered = torch.empty(2, sequences.users, device=table.device)
    windows = history_windows(sequences, split, max_length)

    @torch.no_grad()
    def rank(encoded: Int[Tensor, " users"]) -> None:
        batch = feed.batch(windows[encoded])
        parts = zip(*(each.split(size) for each in (encoded, model.states(batch), batch.items)), strict=True)
        for users, states, items in parts:
            scores = model.scores(states, table, items).nan_to_num_(float("-inf"), float("inf"), float("-inf"))
            own = scores.gather(1, targets[users, None] - 1)
            columns, counts = seen.of(users)
            of_seen = scores.gather(1, columns)
            above, tied = _count(torch.gt, scores, own), _count(torch.eq, scores, own) - 1
            unfiltered[users] = expected_rank(above, tied)
            above, tied = above - ((of_seen > own) & counts).sum(1), tied - ((of_seen == own) & counts).sum(1)
            filtered[users] = expected_rank(above, tied)

    one_thread_each(rank, shortest_first(windows, ENCODED), table.device)
    return Ranks(targets.cpu().numpy(), *(ranks.cpu().double().numpy() for ranks in (unfiltered, filtered)))


def _count(compare: Callable[..., Tensor], scores: Tensor, own: Tensor) -> Float[Tensor, " users"]:
    """How many of each row's scores compare so with its own; exact, and half of it too, below 2^23 items.

    Written as numbers of the scores' type, comparisons are summed 10 times as fast as booleans.
    """
    return compare(scores, own, out=torch.empty_like(scores)).sum(1)


def expected_rank(above: Float[Tensor, " users"], tied: Float[Tensor, " users"]) -> Float[Tensor, " users"]:
    """Rank of an item with `above` items strictly above it and `tied` others at its score."""
    return 1 + above + tied / 2


class SeenItems:
    """The distinct items of each user's history before the target of `split`, without the target itself."""

    def __init__(self, sequences: Sequences, split: str) -> None:
        self.begins, self.ends = sequences.offsets[:-1], sequences.history_ends(split)
        self.items = sequences.items
        owner = torch.repeat_interleave(
            torch.arange(sequences.users, device=self.items.device), sequences.offsets.diff()
        )
        rows = torch.arange(len(self.items), device=self.items.device)
        self.counts = first_occurrences(owner, self.items) & (rows < self.ends[owner])
        self.counts &= self.items != sequences.targets(split)[owner]

    def of(self, users: Int[Tensor, " users"]) -> tuple[Int[Tensor, "users seen"], Bool[Tensor, "users seen"]]:
        """Columns of the score matrix, padded, and which of them count."""
        begins, lengths = self.begins[users], (self.ends - self.begins)[users]
        offsets = torch.arange(int(lengths.max()), device=begins.device)
        rows = begins[:, None] + torch.minimum(offsets, lengths[:, None] - 1)
        return self.items[rows] - 1, self.counts[rows] & (offsets < lengths[:, None])


def first_occurrences(users: Int[Tensor, " rows"], items: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
    """True at the first row of every (user, item)."""
    keys = users * (int(items.max()) + 1) + items
    order = torch.argsort(keys, stable=True)
    fresh = torch.ones_like(keys, dtype=torch.bool)
    fresh[order[1:]] = keys[order[1:]] != keys[order[:-1]]
    return fresh


def hits(ranks: Float[np.ndarray, " users"], k: int) -> Float[np.ndarray, " users"]:
    """Per-user HR@k: 1 where the rank is at most k.

    >>> hits(np.array([1.0, 5.0, 5.5]), 5).tolist()
    [1.0, 1.0, 0.0]
    """
    return (ranks <= k).astype(np.float64)


def gains(ranks: Float[np.ndarray, " users"], k: int) -> Float[np.ndarray, " users"]:
    """Per-user NDCG@k with one relevant item: 1 / log2(rank + 1) where the rank is at most k, else 0.

    >>> gains(np.array([1.0, 3.0, 6.0]), 5).tolist()
    [1.0, 0.5, 0.0]
    """
    return hits(ranks, k) / np.log2(ranks + 1)


METRICS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"hr": hits, "ndcg": gains}
PROTOCOLS = ("unfiltered", "filtered")
USUAL = 10  # cutoff of what is shown of a run


def metric_name(metric: str, cutoff: int | str, protocol: str, split: str = "") -> str:
    """What a metric is called in every file and message.

    >>> metric_name("hr", 10, "unfiltered", "test")
    'test_hr_10_unfiltered'
    """
    return "_".join(filter(None, (split, metric, str(cutoff), protocol)))


def cutoffs_of(names: Iterable[str]) -> list[int]:
    """The cutoffs of the test metrics among these names, rising."""
    pattern = metric_name("hr", r"(\d+)", "unfiltered", TEST)
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(pattern, name)))


def headline_cutoff(cutoffs: Iterable[int]) -> int:
    """The one that is shown where one must do: 10, or what comes next after it, or the largest.

    >>> headline_cutoff([5, 10, 20]), headline_cutoff([5, 50, 20]), headline_cutoff([1, 5])
    (10, 20, 5)
    """
    return min(cutoffs, key=lambda cutoff: (cutoff < USUAL, abs(cutoff - USUAL)))


def headlines(names: Iterable[str]) -> list[str]:
    """What tables show of a run, of the test metrics among these names: those at one cutoff."""
    cutoff = headline_cutoff(cutoffs_of(names))
    return [metric_name(metric, cutoff, protocol, TEST) for protocol in PROTOCOLS for metric in METRICS]


def summarise(ranks: Ranks, cutoffs: tuple[int, ...], split: str) -> dict[str, float]:
    """Mean HR and NDCG under their names."""
    return {
        metric_name(metric, k, protocol, split): float(values(getattr(ranks, protocol), k).mean())
        for protocol in PROTOCOLS
        for k in cutoffs
        for metric, values in METRICS.items()
    }
