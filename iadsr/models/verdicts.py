"""Verdicts on every interaction of a data set: what a model would keep, and why; what it would insert."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from iadsr.models.recommender import Recommender, Verdicts
from iadsr.schemas import TEST, TRAIN
from iadsr.sequences.windows import Batch, Feed, history_windows, shortest_first, training_tail_windows

BATCH = 512  # windows that are judged at once


@torch.no_grad()
def judge_all(model: Recommender, feed: Feed, max_length: int, batch_size: int = BATCH) -> Verdicts:
    """Judge each training row from the end of its window within the training part, each validation row from itself.

    The result has one entry a row of the data set; test rows are never judged: NaN, and kept. No verdict has seen the
    test item, and none on a training row has seen the validation item.
    """
    rows = len(feed.sequences.items)
    empty = {name: torch.full((rows,), float("nan")) for name in ("c1", "c2", "c3", "score", "probability")}
    verdicts = Verdicts(**empty, kept=torch.ones(rows, dtype=torch.bool))
    for batch, where in judged_batches(feed, max_length, batch_size):
        found = model.judge(batch)
        for entry in fields(Verdicts):
            getattr(verdicts, entry.name)[batch.rows[where].cpu()] = getattr(found, entry.name)[where].cpu()
    return verdicts


@torch.no_grad()
def insertions(
    model: Recommender, feed: Feed, max_length: int, batch_size: int = BATCH
) -> Int[Tensor, "rows most"] | None:
    """The items that the model would insert before each row, oldest first, then zeros; None if it cannot insert.

    The windows are those of the verdicts; before test rows nothing is inserted.
    """
    found: Tensor | None = None
    for batch, where in judged_batches(feed, max_length, batch_size):
        inserted = model.insertions(batch)
        if inserted is None:
            return None
        if found is None:
            found = torch.zeros(len(feed.sequences.items), inserted.shape[2], dtype=torch.long)
        found[batch.rows[where].cpu()] = inserted[where].cpu()
    return found


def judged_batches(feed: Feed, max_length: int, batch_size: int) -> Iterator[tuple[Batch, Bool[Tensor, "batch time"]]]:
    """Batches of windows, and the positions whose rows are judged from them: each row but a user's last once."""
    for batch in training_batches(feed, max_length, batch_size):
        yield batch, batch.valid
    for numbers in shortest_first(windows := history_windows(feed.sequences, TEST, max_length), batch_size):
        batch = feed.batch(windows[numbers])
        yield batch, batch.newest


def training_batches(feed: Feed, max_length: int, batch_size: int = BATCH) -> Iterator[Batch]:
    """Windows in which each training row is once, with as much of what precedes it as fits."""
    for numbers in shortest_first(windows := training_tail_windows(feed.sequences, max_length), batch_size):
        yield feed.batch(windows[numbers])


def training_rows(feed: Feed) -> Bool[Tensor, " rows"]:
    """Which rows of the data set are training interactions."""
    sequences = feed.sequences
    owner = torch.repeat_interleave(torch.arange(sequences.users), sequences.offsets.diff().cpu())
    return torch.arange(len(owner)) < sequences.history_ends(TRAIN).cpu()[owner]
