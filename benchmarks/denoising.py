"""`python -m benchmarks.denoising`: what verdicts on a generated log of any size cost, by the model of this project."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from benchmarks import options
from benchmarks.ingest import cost, device
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
A_USER = 20  # interactions
SEED = 0


@app.command(epilog="Example: python -m benchmarks.denoising --rows 10000000 --json")
@reports_errors
def main(
    rows: Annotated[int, typer.Option(min=100, help="Of the log: users' histories have 20 on average.")] = 1_000_000,
    as_json: options.AsJson = False,
) -> None:
    """Write a log of strangers with this catalogue's items, and time `python -m stages.denoise` on it.

    Seconds and the largest resident memory are those of the whole command, from reading the log to the written file.
    """
    with TemporaryDirectory() as work:
        log = Path(work) / "log.csv"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # the system counts our memory, too
            pool.submit(write_log, log, rows).result()
        command = [sys.executable, "-m", "stages.denoise", "--histories", str(log), "--budget", "5%"]
        spent = cost([*command, "--out", str(Path(work) / "out.csv")], Path.cwd(), os.environ)
        size = log.stat().st_size
    found = {name: round(value, 2) for name, value in spent._asdict().items()}
    result = {"rows": rows, "input_bytes": size, **found, "rows_per_second": round(rows / spent.seconds), **device()}
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def write_log(path: Path, rows: int) -> None:
    """user, item and timestamp of people whom the model does not know, in the order of time."""
    import polars as pl

    from benchmarks.generated_log import Size, pieces
    from iadsr.schemas import RAW_ITEM

    catalogue = pl.read_parquet(paths.ITEMS)[RAW_ITEM]
    size = Size(rows, max(1, rows // A_USER), len(catalogue), SEED)
    with open(path, "wb") as file:
        for number, piece in enumerate(pieces(size)):
            places = piece["item"].str.slice(1).cast(pl.Int64)
            piece.select("user", "timestamp", item=catalogue[places]).write_csv(file, include_header=number == 0)


if __name__ == "__main__":
    app()
