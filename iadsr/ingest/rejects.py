"""Bad rows: a counted few are set aside for rejects.csv, one more is an error."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pydantic

from iadsr.errors import UserError
from iadsr.ingest.spreadsheet import harmless
from iadsr.params import Group

TEXT_LENGTH = 200
EXAMPLES = 3  # of bad rows, in a message
MOST_REASONS = 5


class Tolerance(Group):
    """params.yaml, `ingest`: how many bad rows are set aside before one more stops the stage."""

    max_rejects: int = pydantic.Field(default=0, ge=0)


class BadRow(ValueError):
    """Why one row cannot be used; raised by parsers of rows, caught by the loop that knows file and row."""


class Place(NamedTuple):
    """Where a row of a table stands, and what stands there: the file, its 1-based line (or Parquet row), its text."""

    file: str
    row: int
    text: str


class Reject(NamedTuple):
    """One bad row: the file's name, the 1-based number of its line (or Parquet row), why, and what stood there.

    `row` is None, and the text an id, where an item should have a row and has none.
    """

    file: str
    row: int | None
    reason: str
    text: str


class Faults:
    """What is wrong with the rows of a table: of several faults of a row, the one that was added first counts."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._reasons: list[pl.Series] = []

    def add(self, rows: np.ndarray, reasons: pl.Series | str) -> None:
        """`rows` are 0-based places in the table; `reasons` is one text for all, or one each."""
        if len(rows):
            every = pl.repeat(reasons, len(rows), eager=True) if isinstance(reasons, str) else reasons
            self._rows.append(rows.astype(np.int64))
            self._reasons.append(every.cast(pl.Categorical))

    def found(self) -> pl.DataFrame:
        """row (ascending, each once) and reason (categories)."""
        if not self._rows:
            return pl.DataFrame(schema={"row": pl.Int64, "reason": pl.Categorical})
        columns = {"row": np.concatenate(self._rows), "reason": pl.concat(self._reasons)}
        return pl.DataFrame(columns).unique("row", keep="first", maintain_order=True).sort("row")


class Rejects:
    """The bad rows met so far, of which only as many are kept as may be tolerated, or as an error shows."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.rows: list[Reject] = []
        self.reasons: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self.reasons.total()

    @property
    def room(self) -> int:
        """How many more rows would be kept."""
        return max(0, max(self.limit, EXAMPLES) - len(self.rows))

    def add(self, file: str, row: int | None, reason: str, text: str) -> None:
        """Count a bad row, and keep it (its text cut at 200 characters) while there is room."""
        if self.room:
            self.rows.append(Reject(file, row, reason, text[:TEXT_LENGTH]))
        self.reasons[reason] += 1

    def add_all(self, faults: pl.DataFrame, show: Callable[[Sequence[int]], list[Place]]) -> None:
        """Count the rows that `Faults.found` tells; `show` is asked only about those for which there is room."""
        kept = faults.head(min(self.room, faults.height))
        places = show(kept["row"].to_list()) if kept.height else []
        for place, reason in zip(places, kept["reason"], strict=True):
            self.add(place.file, place.row, reason, place.text)
        for reason in faults["reason"].tail(faults.height - kept.height).value_counts(sort=True).rows():
            self.reasons[reason[0]] += reason[1]

    def check(self) -> None:
        """Raise UserError if there are more bad rows than tolerated; called at the end of each file, so that the
        count tells what `ingest.max_rejects` would have to be."""
        if self.count <= self.limit:
            return
        first = self.rows[0]
        which = "it is the only bad row" if self.count == 1 else f"it is the first of {self.count:,} bad rows"
        raise UserError(
            f"{_place(first)}: {first.reason}, found {first.text!r}; {which}, but ingest.max_rejects is {self.limit}: "
            f"correct the file, or raise it to set such rows aside{self._others()}"
        )

    def _others(self) -> str:
        """Where there are several bad rows, how many by reason, and more examples."""
        if self.count == 1:
            return ""
        counts = [f"{count:,}: {reason}" for reason, count in self.reasons.most_common(MOST_REASONS)]
        more = [f"{_place(row)}: {row.text!r}" for row in self.rows[1:EXAMPLES]]
        left_out = ["other reasons"] if len(self.reasons) > MOST_REASONS else []
        return f" ({'; '.join([*counts, *left_out])}; also {', '.join(more)})"

    def write(self, path: Path) -> None:
        """Write columns file, row, reason, text as CSV; with no bad rows the header alone."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Reject._fields)
            for row in self.rows:
                writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])


def _place(reject: Reject) -> str:
    return reject.file if reject.row is None else f"{reject.file}, row {reject.row}"
