"""What a data set looks like: the columns of the paper's Table 1, and what decides how far to trust a result on it."""

from __future__ import annotations

import polars as pl

from iadsr.filter.interactions import distinct, pair_keys, time_keys
from iadsr.published import TABLE_1, DatasetSize, Table1Row
from iadsr.schemas import IS_NOISE, ITEM, SPLIT, TEST, TRAIN, USER

COMPARED = ("users", "items", "interactions", "average_length", "sparsity", "tied_last_two", "equals_paper_table_1")
COMPARED_IF_ANY = ("noise_interactions", "planted_interactions")


def describe(sequences: pl.DataFrame) -> dict[str, int | float]:
    """Counts over the real rows (planted noise is counted apart), average length and sparsity as fractions.

    `tied_last_two` is the share of users whose last two rows have the same time, fractions of a second included where
    the source has them: there the tie rule chooses the test item.
    """
    users, items, rows = sequences[USER].n_unique(), sequences[ITEM].n_unique(), sequences.height
    lengths = sequences.group_by(USER).len()["len"]
    last_two = sequences.filter(pl.col(SPLIT) != TRAIN).group_by(USER)
    times = pl.col(time_keys(sequences))
    tied = last_two.agg(tied=pl.all_horizontal(times.min() == times.max()))["tied"]
    keys = pair_keys(sequences[USER].to_numpy(), sequences[ITEM].to_numpy())
    return {
        "users": users,
        "items": items,
        "interactions": rows,
        "average_length": rows / users,
        "sparsity": 1 - rows / (users * items),
        "shortest": int(lengths.min()),  # type: ignore[arg-type]
        "median_length": float(lengths.median()),  # type: ignore[arg-type]
        "longest": int(lengths.max()),  # type: ignore[arg-type]
        "train_interactions": sequences.filter(pl.col(SPLIT) == TRAIN).height,
        "test_interactions": sequences.filter(pl.col(SPLIT) == TEST).height,
        "noise_interactions": noise_rows(sequences),
        "repeated_pairs": rows - len(distinct(keys)),
        "tied_last_two": float(tied.mean()),  # type: ignore[arg-type]
    }


def noise_rows(sequences: pl.DataFrame) -> int:
    """The number of rows that are flagged as noise."""
    return int(sequences[IS_NOISE].sum()) if IS_NOISE in sequences.columns else 0


def compared(described: dict[str, int | float]) -> dict[str, int | float]:
    """The few numbers that people compare data sets by, so that `dvc metrics diff` fits on a screen."""
    return {name: described[name] for name in COMPARED if name in described} | {
        name: described[name] for name in COMPARED_IF_ANY if described[name]
    }


def equals_paper(dataset: str, described: dict[str, int | float]) -> bool | None:
    """Whether users, items, actions, average length and sparsity are as Table 1 prints; None if it has no such row."""
    if dataset not in TABLE_1:
        return None
    size = DatasetSize(*(int(described[name]) for name in DatasetSize._fields))
    return TABLE_1[dataset] == Table1Row(
        size, round(described["average_length"], 1), round(100 * described["sparsity"], 2)
    )
