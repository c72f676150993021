"""Ids of users and items: text or integers, and the same from every kind of file.

Floats that are whole are integers, which pandas writes so where a column has gaps; in a text, `17.0` in every row.
Fractions are no ids, nor are texts if all are floats as programs write them. And a float holds only so many digits:
from 2 ** 53 on (float32: 2 ** 24, float16: 2 ** 11) different ids may have become one, so these are refused.

A word that programs write for nothing (`NULL`, `nan`, `\\N`), alone in its cell, is a missing id.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import polars as pl

from iadsr.errors import UserError
from iadsr.ingest.columns import nothing
from iadsr.ingest.rejects import Faults

EXACT = 2**53
FLOAT = r"^-?(0|[1-9][0-9]*)\.[0-9]+$"
WHOLE = r"^-?(0|[1-9][0-9]*)\.0+$"
SPELLED = r"[^.]0$"  # a fraction with a zero at its end is no float of a program, but `2.10`, which a person wrote
# A number as spreadsheets and other programs write a long one: digits that are left out are lost. `12E5` is a text.
ROUNDED = r"^[+-]?([0-9]+[.,][0-9]+[eE][+-]?|[0-9]+[eE]\+)[0-9]+$"


def refuse_inexact(label: str, example: str, count: int, beyond: str) -> None:
    """UserError for ids that a float cannot tell apart."""
    raise UserError(
        f"{label}: {count:,} ids are floats of {beyond} or more, such as {example}, where different ids become one; "
        "write ids as text or integers"
    )


def cleaned(column: pl.Series, ours: str, label: str, faults: Faults) -> pl.Series:
    """Ids (categories) without outer white space, whole numbers as integers, null where there is none.

    What is wrong with a row goes to `faults`. UserError for ids that may have become one.
    """
    found = column.unique()
    texts = found.cast(pl.String).str.strip_chars().fill_null("")
    texts = texts.set(nothing(texts), "")
    given = texts.filter((texts != "") & ~texts.str.contains(ROUNDED))
    if len(given) and given.str.contains(FLOAT).all():
        _refuse_large(column, given.filter(given.str.contains(WHOLE)), label)
        _refuse_fractions(given.filter(~given.str.contains(WHOLE)), label)
    if len(given) and given.str.contains(WHOLE).all():
        texts = texts.str.replace(r"\.0+$", "").str.replace("^-0$", "0")
    reasons = _reasons(texts, ours)
    good = pl.select(pl.when(reasons.is_null()).then(texts)).to_series()
    if good.eq_missing(found.cast(pl.String)).all() and not reasons.count():
        return column
    places = _places(column, found)
    wrong = np.flatnonzero(reasons.is_not_null().to_numpy()[places])
    faults.add(wrong, reasons[places[wrong]])
    return good.cast(pl.Categorical)[places].alias(column.name)


def _reasons(texts: pl.Series, ours: str) -> pl.Series:
    """Why each of the texts is no id, else null."""
    text = pl.lit(texts)
    return pl.select(
        pl.when(text == "")
        .then(pl.lit(f"{ours} is missing"))
        .when(text.str.contains(ROUNDED))
        .then(pl.lit(f"{ours} is a number that a spreadsheet has rounded"))
        .when(text.str.contains("\0", literal=True))
        .then(pl.lit(f"{ours} holds a NUL character"))
    ).to_series()


def _refuse_large(column: pl.Series, given: pl.Series, label: str) -> None:
    large = given.filter(given.cast(pl.Float64).abs() >= EXACT)
    if len(large):
        count = int(column.cast(pl.String).str.strip_chars().is_in(large.implode()).sum())
        refuse_inexact(label, str(large[0]), count, "2 ** 53")


def refuse_fraction(label: str, example: str) -> NoReturn:
    """UserError for ids that are floats, and not whole."""
    raise UserError(
        f"{label}: expected text or integers as ids, found {example}; write it so (a letter before each "
        "number makes it text)"
    )


def _refuse_fractions(fractions: pl.Series, label: str) -> None:
    """UserError for ids that are floats with fractions; texts such as `2.10`, which no program writes, are none."""
    if len(fractions) and not fractions.str.contains(SPELLED).any():
        refuse_fraction(label, str(fractions[0]))


def _places(column: pl.Series, found: pl.Series) -> np.ndarray:
    """For each row of the column the place of its value among the different ones."""
    codes, different = column.to_physical(), found.to_physical()
    beyond = int(codes.max() or 0) + 1  # type: ignore[arg-type]
    places = np.zeros(beyond + 1, dtype=np.uint32)
    places[different.fill_null(beyond).to_numpy()] = np.arange(len(found), dtype=np.uint32)
    return places[codes.fill_null(beyond).to_numpy()]
