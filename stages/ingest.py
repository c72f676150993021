"""`python -m stages.ingest`: the chosen data set, as its publisher offers it -> data/raw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.ingest.raw import Raw
    from iadsr.ingest.rejects import Rejects

app = new_app()
MADE_WITH = ("dataset", "datasets.{dataset}.source")
WRITTEN = (paths.RAW_INTERACTIONS, paths.RAW_ITEMS, paths.RAW_REJECTS, paths.INGEST_METRICS)


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
    from iadsr.ingest.watched import digests_of_own, located
    from iadsr.params import group, lookup, read_params
    from iadsr.provenance import chosen, digests_of, write_note

    values, root = read_params(params), paths.project_root()
    source = located(sources.chosen_source(values), root)
    rejects = Rejects(group(values, "ingest", Tolerance).max_rejects)
    fetch = partial(official_files.fetch, cache=root / paths.DOWNLOADS, mirror=official_files.mirror_folder())
    official: list[Path] = []
    raw = sources.load(source, lambda file: noted(fetch(file), official), rejects)
    metrics = _metrics(raw, rejects)
    own = {f"source/{name}": digest or "" for name, digest in digests_of_own(source, root / paths.WATCH_WORK).items()}
    _write(raw, rejects, metrics)
    write_note(paths.RAW, own | digests_of(official), WRITTEN, chosen(values, MADE_WITH))
    _summarise(lookup(values, "dataset"), metrics, raw)


def noted(path: Path, seen: list[Path]) -> Path:
    """The path, which also comes to those `seen`."""
    seen.append(path)
    return path


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


def _summarise(dataset: str, metrics: dict[str, int], raw: Raw) -> None:
    from iadsr.errors import one_line

    for note in raw.notes:
        print(f"note: {one_line(note)}", file=sys.stderr)
    print(
        f"{dataset}: {metrics['users']:,} users, {metrics['items']:,} items, {metrics['interactions']:,} interactions"
    )
    print(
        f"titles: {metrics['titles_from_title']:,} own, {metrics['titles_from_categories']:,} from categories, "
        f"{metrics['titles_neutral']:,} neutral; rejected rows: {metrics['rejected_rows']:,}"
        + (f"; further rows of an item, left out: {raw.repeated_items:,}" if raw.repeated_items else "")
    )
    print(_order(raw))
    print(f"wrote {', '.join(map(str, WRITTEN))}")


def _order(raw: Raw) -> str:
    """The range of times, and how often they leave the order of a history to the file."""
    from iadsr.ingest.order import order_of

    if not raw.timed:
        return "times: none, so the order of the file counts"
    order = order_of(raw.interactions)
    return (
        f"times: {order.first} to {order.last} UTC; {order.tied:.1%} of neighbours in a history have equal times, and "
        f"the file decides the order of {order.undecided:.1%} of the users"
    )


if __name__ == "__main__":
    app()
