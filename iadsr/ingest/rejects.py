"""Bad rows: a counted few are set aside for rejects.csv, one more is an error."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import pydantic

from iadsr.errors import UserError
from iadsr.params import Group

TEXT_LENGTH = 200


class Tolerance(Group):
    """params.yaml, `ingest`: how many bad rows are set aside before one more stops the stage."""

    max_rejects: int = pydantic.Field(default=0, ge=0)


class BadRow(ValueError):
    """Why one row cannot be used; raised by parsers of rows, caught by the loop that knows file and row."""


class Reject(NamedTuple):
    """One bad row: the file's name, the 1-based number of its line (or Parquet row), why, and what stood there.

    `row` is None, and the text an id, where an item should have a row and has none.
    """

    file: str
    row: int | None
    reason: str
    text: str


class Rejects:
    """The bad rows met so far, of which only as many are kept as may be tolerated."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.count = 0
        self.rows: list[Reject] = []

    def add(self, file: str, row: int | None, reason: str, text: str) -> None:
        """Count a bad row, and keep it (its text cut at 200 characters) while the limit is not passed."""
        self.count += 1
        if len(self.rows) <= self.limit:
            self.rows.append(Reject(file, row, reason, text[:TEXT_LENGTH]))

    def check(self) -> None:
        """Raise UserError if there are more bad rows than tolerated; called at the end of each file, so that the
        count tells what `ingest.max_rejects` would have to be."""
        if self.count <= self.limit:
            return
        first = self.rows[0]
        raise UserError(
            f"{first.file}, row {first.row}: {first.reason}, found {first.text!r}; {_bad_rows(self.count)}, but "
            f"ingest.max_rejects is {self.limit}: correct the file, or raise it to set such rows aside"
        )

    def write(self, path: Path) -> None:
        """Write columns file, row, reason, text as CSV; with no bad rows the header alone."""
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Reject._fields)
            writer.writerows(self.rows)


def _bad_rows(count: int) -> str:
    return "it is the only bad row" if count == 1 else f"it is the first of {count:,} bad rows"
