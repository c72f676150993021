"""The mapped columns of a user's table, whatever kind of file they come from, and what stands in their cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.rejects import Faults, Place

IDS = (schemas.USER, schemas.ITEM)
MOST_SHOWN = 400  # characters of a table's header in a message
TRUTH = {"true": True, "false": False, "1": True, "0": False}
# What programs write for "nothing here", in lower case.
NOTHING = (
    *("", "nan", "-nan", "nat", "null", "(null)", "none", "na", "n/a", "<na>", "\\n", "#n/a", "undefined"),
    "__hive_default_partition__",
)


class Wanted(NamedTuple):
    """Our names -> names in the user's files; those of `optional` may be absent; `lists`: a row may hold lists."""

    columns: Mapping[str, str]
    optional: Collection[str] = ()
    lists: bool = False

    @property
    def required(self) -> list[str]:
        return [theirs for ours, theirs in self.columns.items() if ours not in self.optional]


@dataclass(frozen=True)
class Table:
    """What was read: the mapped columns under our names, those that are there.

    user, item: categories as found, still to be cleaned (`ids.py`); rating float32; is_noise boolean; title,
    categories: text; timestamp: text or numbers, or, where there is a column nanosecond too, whole seconds.
    `faults` are rows that the file's own rules make bad. `show` tells place and text of some rows. `rows` says for
    each row of the frame in which row of the file it stood, where that is not the same.
    """

    name: str
    frame: pl.DataFrame
    columns: Mapping[str, str]
    show: Callable[[Sequence[int]], list[Place]]
    faults: Faults = field(default_factory=Faults)
    notes: list[str] = field(default_factory=list)
    decimal_comma: bool = False
    rows: np.ndarray | None = None
    separator: str = ""  # of a CSV's fields

    def label(self, ours: str) -> str:
        return label(self.name, ours, self.columns[ours])


def label(name: str, ours: str, theirs: str) -> str:
    """A column, as messages name it."""
    return f"{name}, column {theirs!r} (`columns.{ours}`)"


def found_columns(name: str, present: Sequence[str], wanted: Wanted, told: str = "") -> dict[str, int]:
    """Our name -> the place of its column among those `present`; UserError for one that is missing or there twice.

    Blanks around a name do not count where only one column has it. `told`: what the error adds to the names.
    """
    stripped = [theirs.strip() for theirs in present]
    found = {}
    for ours, theirs in wanted.columns.items():
        names = present if theirs in present else stripped
        times = Counter(names)[theirs]
        if times > 1:
            raise UserError(f"{name}: {times} columns are called {theirs!r} (`columns.{ours}`); give each its own name")
        if times:
            found[ours] = list(names).index(theirs)
        elif ours not in wanted.optional:
            has = f"it has: {shown(present)}{told}"
            raise UserError(f"{name}: no column {theirs!r} (`columns.{ours}`); {has}{_remedy(ours, wanted)}")
    return found


def _remedy(ours: str, wanted: Wanted) -> str:
    """What else one can do about a column that is missing."""
    if ours == schemas.ITEM and schemas.USER not in wanted.columns:
        return "; where the item table has another name for it than the interactions, set columns.item_id"
    if ours == schemas.TIMESTAMP:
        return "; where rows stand in the order of time, leave out columns.timestamp, and the order of the file counts"
    return ""


def nothing(texts: pl.Series) -> pl.Series:
    """Which of the texts, without outer white space, stand for nothing."""
    return texts.str.to_lowercase().is_in(NOTHING)


def titles(texts: pl.Series) -> pl.Series:
    """Texts without outer white space, empty where they stand for nothing."""
    stripped = texts.str.strip_chars().fill_null("")
    return stripped.set(nothing(stripped), "")


def shown(names: Sequence[str]) -> str:
    """Names of columns on one line that is not too long."""
    text = ", ".join(names)
    text = "".join(character if character.isprintable() else "?" for character in text[: MOST_SHOWN + 1])
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def ratings(values: pl.Series, decimal_comma: bool = False) -> pl.Series:
    """float32, null for what is no number."""
    if decimal_comma and values.dtype == pl.String:
        values = values.str.replace(",", ".", literal=True)
    if values.dtype == pl.String:
        values = values.str.strip_chars()
    numbers = values.cast(pl.Float32, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def truths(values: pl.Series) -> pl.Series:
    """Boolean, null for what is neither true nor false."""
    words = values.cast(pl.String).str.strip_chars().str.to_lowercase().str.replace(r"\.0+$", "")
    return words.replace_strict(TRUTH, default=None, return_dtype=pl.Boolean)
