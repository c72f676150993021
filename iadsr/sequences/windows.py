"""Sequences as flat tensors, cut into windows and padded into batches; which rows a split may see is decided here.

A data set is one row per interaction, users consecutive, oldest first. A window is a run of consecutive rows of one
user. Padding stands on the right, so the state at a position never depends on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.artifacts import read_columns
from iadsr.errors import UserError
from iadsr.schemas import IS_NOISE, ITEM, POSITION, SEQUENCES, SPLIT, TEST, TRAIN, USER, VALIDATION
from iadsr.sequences.text_vectors import ItemVectors, PrefixVectors

ROWS_AFTER_HISTORY = {
    TRAIN: 2,
    VALIDATION: 2,
    TEST: 1,
}  # rows at a user's end that the history of a split must not hold


@dataclass(frozen=True)
class Sequences:
    """All interactions: `items[offsets[u]:offsets[u + 1]]` is user u's history, validation and test items last."""

    items: Int[Tensor, " rows"]
    offsets: Int[Tensor, " bounds"]
    noise: Bool[Tensor, " rows"] | None = None

    @property
    def users(self) -> int:
        return len(self.offsets) - 1

    @property
    def item_count(self) -> int:
        return int(self.items.max())

    def history_ends(self, split: str) -> Int[Tensor, " users"]:
        """Row after each user's last row that `split` may use as input; for evaluation it is the target's row."""
        return self.offsets[1:] - ROWS_AFTER_HISTORY[split]

    def targets(self, split: str) -> Int[Tensor, " users"]:
        """The held-out item of each user for `validation` or `test`."""
        return self.items[self.history_ends(split)]

    def to(self, device: torch.device) -> Sequences:
        noise = None if self.noise is None else self.noise.to(device)
        return Sequences(self.items.to(device), self.offsets.to(device), noise)


def read_sequences(path: Path) -> Sequences:
    """Read sequences.parquet; UserError when it is missing, damaged or empty, or its rows are not as `filter` writes
    them: users 0, 1, ... one after the other, items from 1, positions from 0, and the last two rows held out."""
    table = read_columns(path, SEQUENCES, "filter", optional=(IS_NOISE,))
    if not len(table):
        raise UserError(f"{path}: empty; run `dvc repro filter` again")
    users, items, positions = (table[name].to_numpy().astype(np.int64) for name in (USER, ITEM, POSITION))
    offsets = np.concatenate([[0], np.flatnonzero(np.diff(users)) + 1, [len(users)]])
    lengths = np.diff(offsets)
    numbers, begins = (np.repeat(each, lengths) for each in (np.arange(len(lengths)), offsets[:-1]))
    ordered = np.array_equal(users, numbers) and np.array_equal(positions, np.arange(len(users)) - begins)
    if not (ordered and items.min() >= 1 and _is_split(table[SPLIT], np.repeat(lengths, lengths) - positions)):
        raise UserError(f"{path}: rows are not as `filter` writes them; run `dvc repro filter` again")
    noise = torch.from_numpy(table[IS_NOISE].to_numpy().astype(bool)) if IS_NOISE in table.column_names else None
    return Sequences(torch.from_numpy(items), torch.from_numpy(offsets.astype(np.int64)), noise)


def _is_split(splits: pa.ChunkedArray, from_end: Int[np.ndarray, " rows"]) -> bool:
    """Is each row of the split that its place tells, `from_end` being 1 for a user's last row?"""
    held_out = {TEST: from_end == 1, VALIDATION: from_end == 2, TRAIN: from_end > 2}
    same = (np.array_equal(pc.equal(splits, name).to_numpy(), rows) for name, rows in held_out.items())
    return bool(all(same) and (from_end > 2)[np.concatenate([[True], from_end[:-1] == 1])].all())


@dataclass(frozen=True)
class Windows:
    """Runs of rows: `lengths` inputs from row `starts`; a row may be a target only below `limits`."""

    starts: Int[Tensor, " windows"]
    lengths: Int[Tensor, " windows"]
    limits: Int[Tensor, " windows"]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: Int[Tensor, " some"] | slice) -> Windows:
        return Windows(self.starts[index], self.lengths[index], self.limits[index])


def training_windows(
    sequences: Sequences, max_length: int, generator: torch.Generator, kind: Literal["tiles", "newest"] = "tiles"
) -> Windows:
    """Windows of at most `max_length` over the training histories.

    `tiles` lose no training interaction: histories longer than `max_length` begin with a window of random length, so
    the tiles move from call to call, and each training row but a user's first is the target of exactly one position.
    `newest` is one window a user, as in codes that cut long histories.
    """
    if kind == "newest":
        return history_windows(sequences, TRAIN, max_length)
    return moving_tiles(sequences.offsets[:-1], sequences.history_ends(TRAIN), max_length, generator)


def training_tail_windows(sequences: Sequences, max_length: int) -> Windows:
    """Tile every training history from its end backwards: all windows but a user's first are full."""
    return tail_tiles(sequences.offsets[:-1], sequences.history_ends(TRAIN), max_length)


def moving_tiles(
    begins: Int[Tensor, " runs"], ends: Int[Tensor, " runs"], max_length: int, generator: torch.Generator
) -> Windows:
    """Tile runs of rows by windows, the first of which has a random length where there are several."""
    return _tiles(begins, ends, max_length, _random_heads(ends - begins, max_length, generator))


def tail_tiles(begins: Int[Tensor, " runs"], ends: Int[Tensor, " runs"], max_length: int) -> Windows:
    """Tile runs of rows from their ends backwards."""
    return _tiles(begins, ends, max_length, (ends - begins - 1) % max_length + 1)


def history_windows(sequences: Sequences, split: str, max_length: int) -> Windows:
    """One window a user: the newest `max_length` rows of the history from which `split`'s target is predicted."""
    begins, ends = sequences.offsets[:-1], sequences.history_ends(split)
    starts = torch.maximum(begins, ends - max_length)
    return Windows(starts, ends - starts, ends)


def _random_heads(lengths: Tensor, max_length: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(1, max_length + 1, lengths.shape, generator=generator).to(lengths.device)
    return torch.where(lengths > max_length, drawn, lengths)


def _tiles(begins: Tensor, ends: Tensor, max_length: int, heads: Tensor) -> Windows:
    """Windows [begin, begin + head), then runs of `max_length` up to `end`, for each history."""
    counts = 1 + (ends - begins - heads + max_length - 1) // max_length
    owner = torch.repeat_interleave(torch.arange(len(begins), device=begins.device), counts)
    within = torch.arange(len(owner), device=begins.device) - (counts.cumsum(0) - counts)[owner]
    starts = begins[owner] + torch.where(within == 0, 0, heads[owner] + (within - 1) * max_length)
    stops = torch.minimum(ends[owner], begins[owner] + heads[owner] + within * max_length)
    return Windows(starts, stops - starts, ends[owner])


def shortest_first(windows: Windows, size: int) -> Iterable[Int[Tensor, " some"]]:
    """The numbers of all windows, shortest first and `size` at a time."""
    return torch.argsort(windows.lengths, stable=True).split(size)


@dataclass(frozen=True)
class Batch:
    """Padded windows. `rows` -1, `items` 0 and `targets` 0 mean padding (or, for a target, that there is none).

    `users` are numbered from 1; 0 is a user outside the data set.
    """

    rows: Int[Tensor, "batch time"]
    items: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    users: Int[Tensor, " batch"]
    text_vectors: Float[Tensor, "batch time width"] | None = None  # of the text of each prefix

    @property
    def valid(self) -> Bool[Tensor, "batch time"]:
        return self.items > 0

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """Position of each window's newest item."""
        return self.valid.sum(1) - 1

    @property
    def newest(self) -> Bool[Tensor, "batch time"]:
        """True at the position of each window's newest item."""
        return torch.arange(self.items.shape[1], device=self.items.device) == self.last[:, None]


@dataclass(frozen=True)
class Feed:
    """Turns windows into batches on one device, with vectors of their prefixes where `vectors` has any."""

    sequences: Sequences
    vectors: ItemVectors | None = None

    def batch(self, windows: Windows) -> Batch:
        offsets = torch.arange(int(windows.lengths.max()), device=windows.starts.device)
        inside = offsets < windows.lengths[:, None]
        rows = torch.where(inside, windows.starts[:, None] + offsets, -1)
        items = torch.where(inside, self.sequences.items[rows.clamp(min=0)], 0)
        has_target = inside & (rows + 1 < windows.limits[:, None])
        targets = torch.where(has_target, self.sequences.items[(rows + 1).clamp(max=len(self.sequences.items) - 1)], 0)
        users = torch.searchsorted(self.sequences.offsets, windows.starts, right=True)
        return Batch(rows, items, targets, users, self._of_prefixes(rows))

    def _of_prefixes(self, rows: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time width"] | None:
        return self.vectors.rows(rows.cpu()).to(rows.device) if isinstance(self.vectors, PrefixVectors) else None

    def shuffled(self, windows: Windows, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All windows once, in random order and in batches of even size, at most `size`.

        Batches of windows of like length would need no padding, but each counts as one step of the optimiser however
        few positions it has, so short histories would outweigh long ones; a last, smaller batch would as well. The
        backbones hardly compute padding anyway.
        """
        order = torch.randperm(len(windows), generator=generator)
        for numbers in order.tensor_split(-(-len(windows) // size)):
            yield self.batch(windows[numbers.to(windows.starts.device)])
