"""`python -m stages.ingest`: the chosen data set, as its publisher offers it -> data/raw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.ingest.raw import Raw
    from iadsr.ingest.rejects import Rejects

app = new_app()


@app.command(epilog="Example: python -m stages.ingest --params params.yaml")
@reports_errors
@alone("ingest")
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Read the chosen data set (official files, your own, or generated ones) into data/raw.

    Reads `dataset`, `datasets.<dataset>.source` and `ingest` of the parameters. Official files are downloaded once into
    .cache/downloads, or taken from the folder that the environment variable IADSR_MIRROR names. Bad rows, as far as
    `ingest.max_rejects` tolerates them, go to data/raw/rejects.csv.
    """
    # imported here, so that --help does not wait for them
    from functools import partial

    from iadsr.ingest import official_files, sources
    from iadsr.ingest.rejects import Rejects, Tolerance
    from iadsr.params import group, lookup, read_params

    values = read_params(params)
    source = sources.chosen_source(values)
    rejects = Rejects(group(values, "ingest", Tolerance).max_rejects)
    downloads = paths.project_root() / paths.DOWNLOADS
    fetch = partial(official_files.fetch, cache=downloads, mirror=official_files.mirror_folder())
    raw = sources.load(source, fetch, rejects)
    metrics = _metrics(raw, rejects)
    _write(raw, rejects, metrics)
    _summarise(lookup(values, "dataset"), metrics, raw.repeated_items)


def _metrics(raw: Raw, rejects: Rejects) -> dict[str, int]:
    return {
        **raw.counts._asdict(),
        "rejected_rows": rejects.count,
        "titles_from_title": raw.titles.title,
        "titles_from_categories": raw.titles.categories,
        "titles_neutral": raw.titles.neutral,
    }


def _write(raw: Raw, rejects: Rejects, metrics: dict[str, int]) -> None:
    from functools import partial

    from iadsr.artifacts import write_json
    from iadsr.parquet import write_as_text, write_together

    write_together(
        {
            paths.RAW_INTERACTIONS: partial(write_as_text, raw.interactions),
            paths.RAW_ITEMS: raw.items.write_parquet,
            paths.RAW_REJECTS: rejects.write,
            paths.INGEST_METRICS: partial(write_json, content=metrics),
        }
    )


def _summarise(dataset: str, metrics: dict[str, int], repeated: int) -> None:
    print(
        f"{dataset}: {metrics['users']:,} users, {metrics['items']:,} items, {metrics['interactions']:,} interactions"
    )
    print(
        f"titles: {metrics['titles_from_title']:,} own, {metrics['titles_from_categories']:,} from categories, "
        f"{metrics['titles_neutral']:,} neutral; rejected rows: {metrics['rejected_rows']:,}"
        + (f"; further rows of an item, left out: {repeated:,}" if repeated else "")
    )
    written = (paths.RAW_INTERACTIONS, paths.RAW_ITEMS, paths.RAW_REJECTS, paths.INGEST_METRICS)
    print(f"wrote {', '.join(map(str, written))}")


if __name__ == "__main__":
    app()
