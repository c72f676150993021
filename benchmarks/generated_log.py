"""A log of interactions of any size, for measurements, with Zipf's popularity and histories of very different lengths.

Rows stand in the order of time, so the rows of a user lie all over the file. Users are drawn by log-normal weights,
items by a power of their rank; both are numbered at random, so ids tell nothing of frequency. Rows are drawn and
written piece by piece, each piece from a seed of its own, so the memory does not depend on their number.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

PIECE, FEW = 1 << 19, 1 << 14  # rows drawn at once; reviews written at once
SPREAD = 1.2  # standard deviation of the logarithm of a user's weight
SLOPE, FLAT = 1.1, 50  # an item's weight is (rank + FLAT) ** -SLOPE
FIRST, SPAN = 1_262_304_000, 157_680_000  # five years from 2010, in seconds
WORDS = (
    "solid",
    "steel",
    "lamp",
    "brush",
    "travel",
    "mini",
    "set",
    "of",
    "with",
    "black",
    "soft",
    "garden",
    "kit",
    "pro",
)
TEXTS, WORDS_A_TEXT = 4096, 110  # a review of Amazon has about 600 letters


class Size(NamedTuple):
    """How much to draw, and from which seed."""

    interactions: int
    users: int
    items: int
    seed: int


def write_csv(folder: Path, size: Size) -> list[Path]:
    """interactions.csv (user, item, timestamp, rating) and items.csv (item, title) in `folder`."""
    log, items = folder / "interactions.csv", folder / "items.csv"
    with open(log, "wb") as file:
        for number, piece in enumerate(pieces(size)):
            piece.write_csv(file, include_header=number == 0)
    item_table(size).write_csv(items)
    return [log, items]


def write_amazon(folder: Path, size: Size, category: str) -> list[Path]:
    """The two files of a category as Amazon 2014 has them: a JSON object a review, a Python literal an item."""
    reviews, meta = folder / f"reviews_{category}_5.json.gz", folder / f"meta_{category}.json.gz"
    texts = pl.Series(_sentences(np.random.default_rng([size.seed, 3]), TEXTS, WORDS_A_TEXT))
    with gzip.open(reviews, "wb", compresslevel=1) as file:
        drawing = np.random.default_rng([size.seed, 4])
        for piece in pieces(size):
            for few in piece.iter_slices(FEW):
                drawn = drawing.integers(TEXTS, size=few.height)
                file.write(_lines(few.with_columns(text=texts[drawn]), REVIEW))
    with gzip.open(meta, "wb", compresslevel=1) as file:
        file.write(_lines(item_table(size), DESCRIPTION))
    return [reviews, meta]


REVIEW = (
    '{{"reviewerID": "{}", "asin": "{}", "reviewerName": "A. Reader", "helpful": [0, 1], "reviewText": "{}", '
    '"overall": {}, "summary": "As described", "unixReviewTime": {}, "reviewTime": "05 3, 2011"}}',
    ("user", "item", "text", "rating", "timestamp"),
)
DESCRIPTION = (
    "{{'asin': '{}', 'title': '{}', 'price': 9.99, 'imUrl': 'http://images.example/I/41.jpg', 'related': "
    "{{'also_bought': ['B000000001', 'B000000002']}}, 'categories': [['All', 'Of one kind']]}}",
    ("item", "title"),
)


def _lines(frame: pl.DataFrame, layout: tuple[str, tuple[str, ...]]) -> bytes:
    pattern, columns = layout
    lines = frame.select(pl.format(pattern, *columns))
    return ("\n".join(lines.to_series()) + "\n").encode()


def pieces(size: Size) -> Iterator[pl.DataFrame]:
    """user, item, timestamp and rating of at most `PIECE` rows at a time, in the order of time."""
    draw_user, draw_item = _sampler(_user_weights(size)), _sampler(_item_weights(size))
    users, items = _ids("U", size.users), _ids("B", size.items)
    for number, start in enumerate(range(0, size.interactions, PIECE)):
        generator = np.random.default_rng([size.seed, 2, number])
        rows = min(PIECE, size.interactions - start)
        times = FIRST + (start + np.sort(generator.random(rows)) * rows) / size.interactions * SPAN
        yield pl.DataFrame(
            {
                "user": users[draw_user(generator, rows)],
                "item": items[draw_item(generator, rows)],
                "timestamp": times.astype(np.int64),
                "rating": generator.integers(1, 6, size=rows).astype(np.float32),
            }
        )


def item_table(size: Size) -> pl.DataFrame:
    """Every item with a title of a few words."""
    return pl.DataFrame(
        {
            "item": _ids("B", size.items),
            "title": _sentences(np.random.default_rng([size.seed, 1]), size.items, 6),
        }
    )


def _user_weights(size: Size) -> np.ndarray:
    return np.random.default_rng([size.seed, 0]).lognormal(0, SPREAD, size.users)


def _item_weights(size: Size) -> np.ndarray:
    ranks = np.random.default_rng([size.seed, 5]).permutation(size.items)
    return (ranks + FLAT) ** -SLOPE


def _sampler(weights: np.ndarray) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Draws places of `weights`, each in proportion to its weight."""
    bounds = np.cumsum(weights)
    return lambda generator, rows: np.searchsorted(bounds, generator.random(rows) * bounds[-1], side="right")


def _ids(letter: str, count: int) -> pl.Series:
    return pl.select(pl.format(letter + "{}", pl.int_range(count).cast(pl.String).str.zfill(9))).to_series()


def _sentences(generator: np.random.Generator, count: int, length: int) -> pl.Series:
    words = pl.Series(WORDS)
    columns = [words[generator.integers(len(WORDS), size=count)].alias(str(place)) for place in range(length)]
    return pl.DataFrame(columns).select(pl.concat_str(pl.all(), separator=" ")).to_series()
