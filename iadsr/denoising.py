"""Verdicts on every interaction of a data set: what a model would keep, and why."""

from __future__ import annotations

from dataclasses import fields

import torch
from jaxtyping import Bool
from torch import Tensor

from iadsr.recommender import Keep, Recommender
from iadsr.schemas import TEST, TRAIN
from iadsr.sequences import Feed, Windows, by_length, history_windows, training_tail_windows


@torch.no_grad()
def judge(model: Recommender, feed: Feed, max_length: int, batch_size: int = 512) -> Keep:
    """Judge each training row from the end of its window within the training part, each validation row from itself.

    The result has one entry a row of the data set; test rows are never judged: NaN, and kept. No verdict has seen the
    test item, and none on a training row has seen the validation item.
    """
    rows = len(feed.sequences.items)
    empty = {name: torch.full((rows,), float("nan")) for name in ("c1", "c2", "c3", "score", "probability")}
    verdicts = Keep(**empty, kept=torch.ones(rows, dtype=torch.bool))
    training = training_tail_windows(feed.sequences, max_length)
    _judge_windows(model, feed, training, verdicts, batch_size, newest_only=False)
    validation = history_windows(feed.sequences, TEST, max_length)
    _judge_windows(model, feed, validation, verdicts, batch_size, newest_only=True)
    return verdicts


def _judge_windows(
    model: Recommender, feed: Feed, windows: Windows, verdicts: Keep, batch_size: int, newest_only: bool
) -> None:
    for numbers in by_length(windows, batch_size):
        batch = feed.batch(windows[numbers])
        keep: Keep = model.keep(batch)
        where = batch.newest if newest_only else batch.valid
        for entry in fields(Keep):
            getattr(verdicts, entry.name)[batch.rows[where].cpu()] = getattr(keep, entry.name)[where].cpu()


def training_rows(feed: Feed) -> Bool[Tensor, " rows"]:
    """Which rows of the data set are training interactions."""
    sequences = feed.sequences
    owner = torch.repeat_interleave(torch.arange(sequences.users), sequences.offsets.diff().cpu())
    return torch.arange(len(owner)) < sequences.history_ends(TRAIN).cpu()[owner]
