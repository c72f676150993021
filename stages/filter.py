"""Stage `filter`: raw interactions -> k-cored, re-indexed, time-ordered sequences with a split column."""

from __future__ import annotations

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

app = new_app()


@app.command(epilog="Example: python -m stages.filter")
@reports_errors
@alone("filter")
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Turn data/raw into data/filtered: duplicates, k-core, time order, leave-one-out split, planted noise.

    Reads `datasets.<dataset>.core`, `filter` and `noise`; writes the statistics of Table 1 to metrics/dataset.json.
    """
    from functools import partial

    from iadsr.artifacts import write_json
    from iadsr.filter.filtered import filtered, in_words
    from iadsr.filter.interactions import read_raw
    from iadsr.params import read_params
    from iadsr.parquet import read_table, write_as_text, write_together

    content = read_params(params)
    found = filtered(content, partial(read_raw, paths.RAW_INTERACTIONS), partial(read_table, paths.RAW_ITEMS))
    write_together(
        {
            paths.SEQUENCES: partial(write_as_text, found.sequences),
            paths.USERS: found.users.write_parquet,
            paths.ITEMS: found.items.write_parquet,
            paths.DATASET_METRICS: partial(write_json, content=found.metrics),
        }
    )
    print(in_words(content["dataset"], found.metrics))


if __name__ == "__main__":
    app()
