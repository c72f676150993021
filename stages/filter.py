"""Stage `filter`: raw interactions -> k-cored, re-indexed, time-ordered sequences with a split column."""

from __future__ import annotations

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

app = new_app()
MADE_WITH = ("dataset", "datasets.{dataset}.core", "filter", "noise")


@app.command(epilog="Example: python -m stages.filter")
@reports_errors
@alone("filter")
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Turn data/raw into data/filtered: duplicates, k-core, time order, leave-one-out split, planted noise.

    Reads `datasets.<dataset>.core`, `filter` and `noise`; writes the statistics of Table 1 to metrics/dataset.json,
    and all that was counted to metrics/dataset_details.json.
    """
    from functools import partial

    from iadsr.artifacts import write_json
    from iadsr.filter.filtered import filtered, in_words
    from iadsr.filter.interactions import read_raw, read_raw_items
    from iadsr.filter.table_1 import compared
    from iadsr.params import chosen_dataset, read_params
    from iadsr.parquet import write_as_text, write_together
    from iadsr.provenance import checked, chosen, read_note, require_params, write_note

    content, made_from = read_params(params), checked([paths.RAW_INTERACTIONS, paths.RAW_ITEMS], "ingest")
    chosen_dataset(content)
    require_params(paths.RAW, read_note(paths.RAW, "ingest")["params"], content, "ingest")
    found = filtered(content, partial(read_raw, paths.RAW_INTERACTIONS), partial(read_raw_items, paths.RAW_ITEMS))
    write_together(
        {
            paths.SEQUENCES: partial(write_as_text, found.sequences),
            paths.ROWS: found.rows.write_parquet,
            paths.USERS: found.users.write_parquet,
            paths.ITEMS: found.items.write_parquet,
            paths.DATASET_METRICS: partial(write_json, content=compared(found.metrics)),
            paths.DATASET_DETAILS: partial(write_json, content=found.metrics),
        }
    )
    tables = (paths.SEQUENCES, paths.ROWS, paths.USERS, paths.ITEMS)
    written = (*tables, paths.DATASET_METRICS, paths.DATASET_DETAILS)
    write_note(paths.FILTERED, made_from, written, chosen(content, MADE_WITH))
    print(in_words(content["dataset"], found.metrics))


if __name__ == "__main__":
    app()
