"""Top-k items for any history, from the trained model; not a DVC stage."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.ingest.histories import Histories
    from iadsr.serving.server import Answer, Server

app = new_app()

SCREENED = 30  # histories from which fitting a screen takes less time than it saves
COLUMNS = ("user", "rank", "item", "title", "score", "note")


class UnknownItems(StrEnum):
    skip = "skip"
    fail = "fail"


History = Annotated[str, typer.Option(help="Raw item ids, oldest first, separated by commas.")]
HistoriesFile = Annotated[
    Path | None,
    typer.Option(
        "--histories",
        help="CSV or Parquet instead of --history, a row an item, or in Parquet a list of items a row; its columns are "
        "those of the data set's own files in params.yaml, else user, item and, where there are any, timestamp, by "
        "which it is sorted, and title.",
    ),
]
KeepSeen = Annotated[bool, typer.Option("--keep-seen", help="Also recommend items of the history.")]
WhereUnknown = Annotated[
    UnknownItems | None,
    typer.Option(
        "--unknown",
        help="Items that the model does not know: skip them, where they have a title reading that, or fail.",
        show_default="skip for --histories, fail for --history",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Write FILE.csv, in which an apostrophe stands before what a spreadsheet would run as a formula, or "
        "FILE.parquet, exact; instead of a table on the terminal."
    ),
]


@app.command(
    epilog="Example: python -m stages.recommend --history ID,ID,ID --k 10   (ids as in data/filtered/items.parquet)"
)
@reports_errors
def main(
    history: History = "",
    histories: HistoriesFile = None,
    k: Annotated[int, typer.Option(help="Items to recommend.", min=1)] = 10,
    keep_seen: KeepSeen = False,
    unknown: WhereUnknown = None,
    out: Out = None,
    params: ParamsFile = paths.PARAMS,
) -> None:
    """Recommend the next items for histories, seen in training or not, with the model in models/model.

    A user for whom nothing can be recommended gets one row, whose note says why.
    """
    from iadsr.errors import UserError

    if bool(history) == bool(histories):
        raise UserError("give either --history ID,ID,... or --histories FILE")
    given = from_file(histories, params) if histories else from_line(history)
    names = [f"{histories}, user {user!r}" if histories else "--history" for user in given.users]
    how = unknown or (UnknownItems.skip if histories else UnknownItems.fail)
    server = open_server(params, titles_in(given), screened=len(given.users) >= SCREENED)
    answers = server.recommend(given.items, k, not keep_seen, unknown=how.value, names=names)
    for note in (*given.notes, *skipped(given.users, answers)):
        print(note, file=sys.stderr)
    rows = table(given.users, answers)
    if out:
        write(out, rows)
    else:
        show(rows)


def from_file(path: Path, params: Path) -> Histories:
    """The histories of a table that is read as the project's own log is."""
    from iadsr.ingest.histories import columns_of, read_histories
    from iadsr.params import read_params

    how = columns_of(read_params(params))
    return read_histories(str(path), how.columns, how.separator, how.unit, how.format)


def from_line(history: str) -> Histories:
    from iadsr.ingest.histories import Histories

    items = [item.strip() for item in history.split(",")]
    return Histories([""], [items], [[None] * len(items)], [])


def titles_in(given: Histories) -> dict[str, str]:
    """The titles in the histories by id; the first one counts."""
    pairs = [pair for row in zip(given.items, given.titles, strict=True) for pair in zip(*row, strict=True)]
    return {item: title for item, title in reversed(pairs) if title}


def skipped(users: list[str], answers: list[Answer]) -> list[str]:
    """A line on the items that the model does not know, if there are any."""
    found = [(user, answer.unknown) for user, answer in zip(users, answers, strict=True) if answer.unknown]
    if not found:
        return []
    items, (user, first) = sum(len(unknown) for _, unknown in found), found[0]
    whose = f"{len(found):,} of {len(users):,} users" if user else "the history"
    example = f"{first[0]!r} of user {user!r}" if user else repr(first[0])
    return [f"skipped {items:,} items of {whose} that the model does not know, as {example}"]


def table(users: list[str], answers: list[Answer]) -> list[dict[str, Any]]:
    """A row a recommendation, and one for a user without any."""
    rows: list[dict[str, Any]] = []
    for user, answer in zip(users, answers, strict=True):
        own: list[tuple[Any, ...]] = [(place, *entry, "") for place, entry in enumerate(answer.items, 1)]
        own = own or [(None, None, None, None, answer.note)]
        rows += [dict(zip(COLUMNS, (user, *row), strict=True)) for row in own]
    return rows


def open_server(params: Path, titles: dict[str, str] | None = None, screened: bool = False) -> Server:
    """The model of this project, with the encoder that its encodings were made by if it reads those of prefixes.

    `titles`: by id, of items that the model may not know. Where `screened`, most texts of prefixes need not be encoded.
    UserError for files of different runs.
    """
    from iadsr.models.denoisers.registry import DENOISERS
    from iadsr.models.files import load_config
    from iadsr.params import read_params
    from iadsr.provenance import checked, require_same
    from iadsr.sequences.text_vectors import ITEM_VECTORS, require_encodings, require_noted
    from iadsr.serving.catalogue import trained_encoder
    from iadsr.serving.screen_fit import screen_of
    from iadsr.serving.server import Server

    config = load_config(paths.MODEL)
    require_same(paths.MODEL, config.inputs, checked([paths.SEQUENCES, paths.ITEMS], "filter"), "train")
    if not (config.encodings and DENOISERS[config.denoiser].traits.reads_prefix_texts):
        return Server(paths.MODEL, paths.ITEMS)
    spec = trained_encoder(read_params(params), config.encodings)
    vectors = paths.ENCODED / ITEM_VECTORS
    if screened or config.encodings["prefixes"] == "mean":
        require_encodings(paths.ENCODED, config.encodings)
        require_noted(vectors, config.encodings)
    server = Server(paths.MODEL, paths.ITEMS, spec, vectors, others=other_titles() | (titles or {}))
    if screened:
        server.screen = screen_of(server.model, config, paths.SEQUENCES, paths.ITEMS, paths.ENCODED)
    return server


def other_titles() -> dict[str, str]:
    """Titles by id of all items of the log, also of those that `filter` removed; none where the file is not there."""
    from iadsr.parquet import read_table
    from iadsr.provenance import checked, read_note, require_same
    from iadsr.schemas import ITEM, TITLE

    if not paths.RAW_ITEMS.exists():
        return {}
    now = checked([paths.RAW_ITEMS], "ingest")
    require_same(paths.FILTERED, read_note(paths.FILTERED, "filter")["inputs"], now, "filter")
    return dict(read_table(paths.RAW_ITEMS, "ingest").select(ITEM, TITLE).iter_rows())


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all rows, or nothing."""
    from iadsr.artifacts import replacing

    with replacing(path) as temporary:
        (write_parquet if path.suffix.lower() == ".parquet" else write_csv)(temporary, rows)
    count = sum(row["rank"] is not None for row in rows)
    none = f", none for {len(rows) - count:,} users" if len(rows) > count else ""
    print(f"wrote {count} recommendations to {path}{none}")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import csv

    from iadsr.ingest.spreadsheet import harmless

    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: harmless(cell) if isinstance(cell, str) else cell for name, cell in row.items()})


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import polars as pl

    kinds = dict.fromkeys(COLUMNS, pl.String) | {"rank": pl.Int64, "score": pl.Float64}
    pl.DataFrame(rows, schema=kinds).write_parquet(path)


def show(rows: list[dict[str, Any]]) -> None:
    width = max((len(str(row["item"])) for row in rows if row["rank"]), default=4)
    for row in rows:
        if row["rank"] in (1, None) and row["user"]:
            print(f"user {row['user']}")
        if row["rank"] is None:
            print(f"      {row['note']}")
        else:
            print(f"{row['rank']:>4}  {row['item']:<{width}}  {row['score']:8.4f}  {row['title']}")


if __name__ == "__main__":
    app()
