"""Top-k items for any history, from the trained model; not a DVC stage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.serving import Recommendation, Server

app = new_app()


History = Annotated[str, typer.Option(help="Raw item ids, oldest first, separated by commas.")]
Histories = Annotated[
    Path | None,
    typer.Option(
        help="CSV or Parquet instead of --history: columns user and item, a row an item, oldest first; "
        "in Parquet `item` may also be a list."
    ),
]
KeepSeen = Annotated[bool, typer.Option("--keep-seen", help="Also recommend items of the history.")]
Out = Annotated[Path | None, typer.Option(help="Write a CSV instead of a table on the terminal.")]


@app.command(
    epilog="Example: python -m stages.recommend --history ID,ID,ID --k 10   (ids as in data/filtered/items.parquet)"
)
@reports_errors
def main(
    history: History = "",
    histories: Histories = None,
    k: Annotated[int, typer.Option(help="Items to recommend.", min=1)] = 10,
    keep_seen: KeepSeen = False,
    out: Out = None,
    params: ParamsFile = paths.PARAMS,
) -> None:
    """Recommend the next items for histories, seen in training or not, with the model in models/model."""
    from iadsr.errors import UserError

    if bool(history) == bool(histories):
        raise UserError("give either --history ID,ID,... or --histories FILE")
    users, known = read_histories(histories) if histories else ([""], [[item.strip() for item in history.split(",")]])
    names = [f"{histories}, user {user!r}" if histories else "--history" for user in users]
    rows = table(users, open_server(params).recommend(known, k, exclude_seen=not keep_seen, names=names))
    if out:
        write_csv(out, rows)
    else:
        show(rows)


def table(users: list[str], lists: list[list[Recommendation]]) -> list[dict[str, object]]:
    """A row a recommendation."""
    return [
        {"user": user, "rank": place, "item": entry.item, "title": entry.title, "score": entry.score}
        for user, entries in zip(users, lists, strict=True)
        for place, entry in enumerate(entries, 1)
    ]


def open_server(params: Path) -> Server:
    """The model of this project, with the encoder that its encodings were made by if it reads those of prefixes."""
    from iadsr.models.denoisers.registry import DENOISERS
    from iadsr.models.files import load_config
    from iadsr.params import read_params
    from iadsr.sequences.text_vectors import require_encodings
    from iadsr.serving import Server, trained_encoder

    config = load_config(paths.MODEL)
    encodings = config.encodings if DENOISERS[config.denoiser].traits.reads_prefix_texts else None
    encoder = trained_encoder(read_params(params), encodings) if encodings else None
    if encodings and encodings["prefixes"] == "mean":
        require_encodings(paths.ENCODED, encodings)
    return Server(paths.MODEL, paths.ITEMS, encoder, paths.ENCODED / "items.npy")


def read_histories(path: Path) -> tuple[list[str], list[list[str]]]:
    """Users and their items in the file's order; UserError for a missing file, column, user or item."""
    import polars as pl

    from iadsr.errors import UserError
    from iadsr.schemas import ITEM, USER

    try:
        parquet = path.suffix.lower() == ".parquet"
        table = pl.read_parquet(path) if parquet else pl.read_csv(path, infer_schema=False)
        absent = {USER, ITEM} - set(table.columns)
        if absent:
            raise UserError(f"{path}: no column {sorted(absent)[0]!r}; found {', '.join(table.columns)}")
        table = table.select(USER, ITEM).with_row_index("row", offset=1)
        if isinstance(table.schema[ITEM], pl.List):
            table = table.explode(ITEM, empty_as_null=True)
        table = table.with_columns(pl.col(USER, ITEM).cast(pl.String).str.strip_chars())
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    incomplete = table.filter(pl.any_horizontal(pl.all().is_null()))
    if len(incomplete):
        raise UserError(f"{path}: data row {incomplete['row'][0]}: user or item is missing")
    if not len(table):
        raise UserError(f"{path}: no row in it; give at least one user and item")
    grouped = table.group_by(USER, maintain_order=True).agg(ITEM)
    return grouped[USER].to_list(), grouped[ITEM].to_list()


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    import csv

    from iadsr.artifacts import replacing

    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["user", "rank", "item", "title", "score"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {len(rows)} recommendations to {path}")


def show(rows: list[dict[str, object]]) -> None:
    width = max((len(str(row["item"])) for row in rows), default=4)
    for row in rows:
        if row["rank"] == 1 and row["user"]:
            print(f"user {row['user']}")
        print(f"{row['rank']:>4}  {row['item']:<{width}}  {row['score']:8.4f}  {row['title']}")


if __name__ == "__main__":
    app()
