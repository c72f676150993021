"""Ids of users and items: text or integers, and the same from every kind of file.

Floats that are whole are integers, which pandas writes so where a column has gaps; in a text, `17.0` in every row. But
a float holds only so many digits: from 2 ** 53 on (float32: 2 ** 24, float16: 2 ** 11) different ids may have become
one, so these are refused.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from iadsr.errors import UserError
from iadsr.ingest.rejects import Faults

EXACT = 2**53
WHOLE = r"^[+-]?[0-9]+\.0+$"
# A number as a spreadsheet shows a long one: the digits that it leaves out are lost
ROUNDED = r"^[+-]?[0-9]+([.,][0-9]+)?[eE]\+[0-9]+$"


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
    given = texts.filter(texts != "")
    if len(given) and given.str.contains(WHOLE).all():
        _refuse_large(column, given, label)
        texts = texts.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False).cast(pl.String).fill_null("")
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


def _places(column: pl.Series, found: pl.Series) -> np.ndarray:
    """For each row of the column the place of its value among the different ones."""
    codes, different = column.to_physical(), found.to_physical()
    beyond = int(codes.max() or 0) + 1  # type: ignore[arg-type]
    places = np.zeros(beyond + 1, dtype=np.uint32)
    places[different.fill_null(beyond).to_numpy()] = np.arange(len(found), dtype=np.uint32)
    return places[codes.fill_null(beyond).to_numpy()]
