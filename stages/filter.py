"""Stage `filter`: raw interactions -> k-cored, re-indexed, time-ordered sequences with a split column."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages import paths
from stages.command import Params, new_app, reports_errors

if TYPE_CHECKING:
    import polars as pl

app = new_app()


@app.command(epilog="Example: python -m stages.filter")
@reports_errors
def main(params: Params = paths.PARAMS) -> None:
    """Turn data/raw into data/filtered: duplicates, k-core, time order, leave-one-out split, planted noise.

    Reads `datasets.<dataset>.core`, `filter` and `noise`; writes the statistics of Table 1 to metrics/dataset.json.
    """
    from functools import partial

    from iadsr import interactions, statistics
    from iadsr.artifacts import write_json
    from iadsr.params import choice, group, lookup, read_params
    from iadsr.tables import read_table, write_as_text, write_together

    content = read_params(params)
    dataset = choice(content, "dataset", "datasets")
    core = interactions.checked_core(lookup(content, f"datasets.{dataset}.core"), dataset)
    settings = group(content, "filter", interactions.FilterParams)
    noise = group(content, "noise", interactions.NoiseParams)

    # one inside the other, so that no table outlives the step that needs it
    unique = interactions.drop_duplicates(
        interactions.time_order(
            interactions.core_rows(_raw_interactions(), settings.duplicates, core), settings.ties, settings.ties_seed
        ),
        settings.duplicates,
    )
    interactions.refuse_short(unique, core)
    sequences, users, items = interactions.reindex(unique, read_table(paths.RAW_ITEMS))
    split = interactions.leave_one_out(sequences)
    described = statistics.describe(split)
    same = statistics.equals_paper(dataset, described)
    final = interactions.plant_noise(split, noise.ratio, noise.seed)

    verdict = {} if same is None else {"equals_paper_table_1": same}
    metrics = {**described, **verdict, "planted_interactions": final.height - split.height}
    write_together(
        {
            paths.SEQUENCES: partial(write_as_text, interactions.arranged(final)),
            paths.USERS: users.write_parquet,
            paths.ITEMS: items.write_parquet,
            paths.DATASET_METRICS: partial(write_json, content=metrics),
        }
    )
    print(
        f"{dataset}: {described['users']:,} users, {described['items']:,} items, {described['interactions']:,} "
        f"interactions (average length {described['average_length']:.1f}, sparsity {described['sparsity']:.2%}), "
        f"{final.height - split.height:,} planted"
    )
    if same is not None:
        print("equals Table 1 of the paper" if same else "WARNING: differs from Table 1 of the paper")


def _raw_interactions() -> pl.DataFrame:
    """Without the ratings, which no later stage reads."""
    from iadsr.schemas import ITEM, RATING, USER
    from iadsr.tables import read_table

    return read_table(paths.RAW_INTERACTIONS, categories=(USER, ITEM)).drop(RATING, strict=False)


if __name__ == "__main__":
    app()
