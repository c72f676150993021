"""What is encoded: the title of every item (Eq. 3) and the text of every usable prefix (Eq. 4-5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int

from iadsr.artifacts import read_columns
from iadsr.errors import UserError
from iadsr.provenance import Digests, checked
from iadsr.schemas import ITEM, POSITION, SPLIT, TEST, TITLE, USER

TITLE_MARK, TITLES_MARK = "{title}", "{titles}"


@dataclass(frozen=True)
class Wording:
    """How titles become the text of an item and that of a prefix: templates with a mark where the titles go."""

    item: str = TITLE_MARK
    prefix: str = TITLES_MARK
    separator: str = "; "  # between the titles of a prefix

    def of_item(self, title: str) -> str:
        return self.item.replace(TITLE_MARK, title)

    def of_prefix(self, titles: Iterable[str]) -> str:
        return self.prefix.replace(TITLES_MARK, self.separator.join(titles))


@dataclass(frozen=True)
class Corpus:
    """Titles by item, item 1 first, and the histories: one row an interaction, users consecutive, oldest first."""

    titles: list[str]
    items: Int[np.ndarray, " rows"]
    positions: Int[np.ndarray, " rows"]
    usable: Bool[np.ndarray, " rows"]  # may the prefix that ends here be an input of any split?
    made_from: Digests = field(default_factory=dict)  # of the tables that this was read from

    def window_starts(self, max_length: int) -> Int[np.ndarray, " rows"]:
        """First row of the newest `max_length` interactions up to and including each row."""
        return np.arange(len(self.items)) - np.minimum(self.positions, max_length - 1)


def read_corpus(sequences: Path, items: Path) -> Corpus:
    """Read sequences.parquet and items.parquet; UserError for a file that is missing or of another run, a missing
    column, or rows out of order."""
    made_from = checked([sequences, items], "filter")
    titles = _checked_titles(read_columns(items, (ITEM, TITLE), "filter"), items)
    table = read_columns(sequences, (USER, ITEM, POSITION, SPLIT), "filter")
    user, item, position = (table[name].to_numpy().astype(np.int64) for name in (USER, ITEM, POSITION))
    if not len(item) or not _in_order(user, position):
        raise UserError(f"{sequences}: empty, or not sorted by user and position; run the stage `filter` again")
    if item.min() < 1 or item.max() > len(titles):
        unlike = f"items {item.min()}..{item.max()}, but {items} has 1..{len(titles)}"
        raise UserError(f"{sequences}: {unlike}; run `dvc repro filter` again")
    # A prefix that ends at the test item holds the test target: no split may read it, so it is never encoded.
    usable = np.asarray(table[SPLIT].to_pylist(), dtype=object) != TEST
    return Corpus(titles, item, position, usable, made_from)


def prefix_texts(corpus: Corpus, max_length: int, wording: Wording) -> Iterator[str]:
    """The text of each usable row's prefix: titles of its newest `max_length` items, oldest first, joined (Eq. 5)."""
    titles = ["", *corpus.titles]
    items, starts = corpus.items.tolist(), corpus.window_starts(max_length).tolist()
    for row in np.flatnonzero(corpus.usable).tolist():
        yield wording.of_prefix(titles[item] for item in items[starts[row] : row + 1])


def _in_order(user: Int[np.ndarray, " rows"], position: Int[np.ndarray, " rows"]) -> bool:
    """Does every user's history count 0, 1, 2, ... from row to row?"""
    expected = np.where(user[1:] == user[:-1], position[:-1] + 1, 0)
    return bool(position[0] == 0 and np.array_equal(position[1:], expected))


def _checked_titles(table: pa.Table, path: Path) -> list[str]:
    numbers, titles = table[ITEM].to_pylist(), table[TITLE].to_pylist()
    if numbers != list(range(1, len(numbers) + 1)):
        raise UserError(f"{path}: column {ITEM!r} is not 1, 2, ... in order; run the stage `filter` again")
    for number, title in zip(numbers, titles, strict=True):
        if not title.strip():
            raise UserError(f"{path}: item {number} has an empty title; run `dvc repro filter` again")
    return titles
