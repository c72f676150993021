"""The whole way from raw interactions to sequences, and what the data set looks like then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from iadsr.filter.interactions import (
    Core,
    FilterParams,
    arranged,
    core_rows,
    drop_duplicates,
    leave_one_out,
    refuse_short,
    reindex,
    time_order,
    with_rows,
)
from iadsr.filter.planted_noise import NoiseParams, hold_out_donors, plant_noise
from iadsr.filter.table_1 import describe, equals_paper, noise_rows
from iadsr.params import Params, chosen_dataset, group
from iadsr.schemas import ROW


@dataclass(frozen=True)
class Filtered:
    """Tables as `schemas` says, and the flat numbers of metrics/dataset_details.json."""

    sequences: pl.DataFrame
    rows: pl.DataFrame
    users: pl.DataFrame
    items: pl.DataFrame
    metrics: dict[str, int | float]


def filtered(params: Params, interactions: Callable[[], pl.DataFrame], items: Callable[[], pl.DataFrame]) -> Filtered:
    """The filtered data set; each raw table is read when needed. UserError for wrong parameters or an empty result."""
    dataset, asked = chosen_dataset(params)
    core, settings = Core(asked.core, f"datasets.{dataset}.core"), group(params, "filter", FilterParams)
    noise = group(params, "noise", NoiseParams)
    stay, donors = hold_out_donors(unique_rows(lambda: with_rows(interactions()), core, settings), noise)
    sequences, users, titled = reindex(stay, items())
    del stay  # memory
    split = leave_one_out(sequences)
    described = describe(split)
    same = equals_paper(dataset, described) if donors.is_empty() else None  # the paper's data is not without users
    planted = plant_noise(split, titled, noise, donors)
    verdict = {} if same is None else {"equals_paper_table_1": same}
    metrics = {**described, **verdict, "planted_interactions": noise_rows(planted) - noise_rows(split)}
    return Filtered(arranged(planted), planted.select(ROW), users, titled, metrics)


def unique_rows(interactions: Callable[[], pl.DataFrame], core: Core, settings: FilterParams) -> pl.DataFrame:
    """The rows of the k-core in the order of time; one step inside the other, so that no table outlives its use."""
    unique = drop_duplicates(
        time_order(core_rows(interactions(), settings.duplicates, core), settings.ties, settings.ties_seed),
        settings.duplicates,
    )
    refuse_short(unique, core)
    return unique


def in_words(dataset: str, metrics: dict[str, int | float]) -> str:
    """The metrics for a person at the terminal."""
    line = (
        f"{dataset}: {metrics['users']:,} users, {metrics['items']:,} items, {metrics['interactions']:,} interactions "
        f"(average length {metrics['average_length']:.1f}, sparsity {metrics['sparsity']:.2%}), "
        f"{metrics['planted_interactions']:,} planted"
    )
    if "equals_paper_table_1" not in metrics:
        return line
    same = metrics["equals_paper_table_1"]
    return f"{line}\n{'equals Table 1 of the paper' if same else 'WARNING: differs from Table 1 of the paper'}"
