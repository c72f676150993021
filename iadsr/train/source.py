"""What a detector is trained on: the training histories as they are, or of the data set as it was at some time.

A data set that only grows, and whose catalogue stays the same, was at any time what it is today without the rows since
then: so its detector of then need not be trained again. `filter` numbers users and items in the order in which they
appear, and appends change that order; `Snapshot` knows the numbers of both days.

Where later rows change earlier ones (`filter.duplicates: last`, `filter.ties: shuffled`, planted noise) a snapshot is
still without any row after its time, but not what `filter` made then.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from iadsr.artifacts import read_columns
from iadsr.errors import UserError
from iadsr.schemas import CATEGORIES, TIMESTAMP, TRAIN
from iadsr.sequences.noise_kinds import TrainingHistories
from iadsr.sequences.windows import ROWS_AFTER_HISTORY, Sequences

KEY = "denoisers.cloze.detector.until"
FIRST_YEAR = 1990  # of times; `ingest` numbers the rows of a log without any


class Source(NamedTuple):
    """What a detector is trained on: training histories, and the category of each item; -1: none, item 0: padding."""

    histories: TrainingHistories
    categories: Int[np.ndarray, " catalogue"]


class Snapshot(NamedTuple):
    """The training histories of a data set as it was, with its own numbers of items, and what these are today."""

    histories: TrainingHistories
    users: Int[np.ndarray, " users"]  # today's number, from 0, of each
    items: Int[np.ndarray, " catalogue"]  # today's number of each item; 0 of padding, the first


def as_it_is(sequences: Sequences) -> Snapshot:
    """The training parts of all histories, on the CPU."""
    begins, ends = (each.cpu().numpy() for each in (sequences.offsets[:-1], sequences.history_ends(TRAIN)))
    whole = TrainingHistories(sequences.items.cpu().numpy(), np.append(begins, ends[-1:]), sequences.item_count)
    return Snapshot(_parts(whole, begins, ends), np.arange(len(begins)), np.arange(whole.last_item + 1))


def as_of(sequences: Sequences, path: Path, until: datetime, core: int) -> Snapshot:
    """The data set without the rows after a time, split and numbered as `filter` would have done it then.

    `core`: the rows that a user must have had. `path`: sequences.parquet, for the times of rows. UserError for a log
    without times, and where nobody had as many rows.
    """
    items, offsets = sequences.items.cpu().numpy(), sequences.offsets.cpu().numpy()
    times = read_columns(path, (TIMESTAMP,), "filter")[TIMESTAMP].to_numpy()
    first, last = (datetime.fromtimestamp(int(time), UTC) for time in (times.min(), times.max()))
    if last.year < FIRST_YEAR:
        raise UserError(f"{KEY}: the log has no times; name their column, or set {KEY} to ''")
    known = np.concatenate([[0], (times <= until.timestamp()).cumsum()])
    rows = known[offsets[1:]] - known[offsets[:-1]]  # each user's oldest
    users = np.flatnonzero(rows >= max(core, 1 + ROWS_AFTER_HISTORY[TRAIN]))
    if not len(users):
        raise UserError(
            f"{KEY}: {until.isoformat()} leaves no user; the rows are from {first.isoformat()} to {last.isoformat()}"
        )
    begins, ends = offsets[users], offsets[users] + rows[users]
    whole = TrainingHistories(items, offsets, sequences.item_count)
    old = in_order_of_appearance(_parts(whole, begins, ends).items, sequences.item_count)
    found = _parts(whole, begins, ends - ROWS_AFTER_HISTORY[TRAIN])
    return Snapshot(found._replace(items=np.argsort(old)[found.items]), users, old)


def in_order_of_appearance(items: Int[np.ndarray, " rows"], last_item: int) -> Int[np.ndarray, " catalogue"]:
    """All items of a catalogue, after padding; those that do not appear come last."""
    some, first = np.unique(items, return_index=True)
    never = np.setdiff1d(np.arange(1, last_item + 1), some)
    return np.concatenate([[0], some[first.argsort()], never])


def of_users(histories: TrainingHistories, users: Int[np.ndarray, " some"]) -> TrainingHistories:
    """Their histories alone, in this order."""
    return _parts(histories, histories.offsets[users], histories.offsets[users + 1])


def _parts(histories: TrainingHistories, begins: np.ndarray, ends: np.ndarray) -> TrainingHistories:
    bounds = np.concatenate([[0], (ends - begins).cumsum()])
    rows = np.arange(bounds[-1]) + np.repeat(begins - bounds[:-1], ends - begins)
    return TrainingHistories(histories.items[rows], bounds, histories.last_item)


def read_categories(items: Path) -> Int[np.ndarray, " catalogue"]:
    """A number from 0 for the category of each item of items.parquet, item 0 being padding; -1 for none."""
    names = read_columns(items, (CATEGORIES,), "filter")[CATEGORIES].to_numpy()
    known, numbers = np.unique(names, return_inverse=True)
    return np.append(-1, np.where(known[numbers] == "", -1, numbers))


def source_digest(source: Source, vectors: Float[np.ndarray, "catalogue width"]) -> str:
    """Name a source, with the text vectors of its items, by its content."""
    digest = hashlib.sha256()
    for array in (source.histories.items, source.histories.offsets, source.categories, vectors):
        for part in (repr((array.dtype.str, array.shape)).encode(), np.ascontiguousarray(array).data):
            digest.update(part)
    return digest.hexdigest()
