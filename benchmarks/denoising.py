"""`python -m benchmarks.denoising`: what verdicts on a log of any size cost, by the model of this project."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks import options
from benchmarks.ingest import cost, device
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
ALONE, BATCH = 50, 1000  # histories


@app.command(epilog="Example: python -m benchmarks.denoising --rows 10000000 --json")
@reports_errors
def main(
    rows: Annotated[int, typer.Option(min=100, help="Of the log, at least.")] = 1_000_000,
    as_json: options.AsJson = False,
) -> None:
    """Write the histories that the model was trained on, again and again, as strangers', and time verdicts on them.

    Seconds and the largest resident memory are those of the whole `python -m stages.denoise`. `ms_alone` is what a
    served model takes for a history of its own, the median of some; `ms_of_1000` for so many at once.
    """
    with TemporaryDirectory() as work:
        log = Path(work) / "log.csv"
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # the system counts our memory, too
            rows = pool.submit(write_log, log, rows).result()
            served = pool.submit(answers).result()
        command = [sys.executable, "-m", "stages.denoise", "--histories", str(log), "--budget", "5%"]
        spent = cost([*command, "--out", str(Path(work) / "out.csv")], Path.cwd(), os.environ)
        size = log.stat().st_size
    found = {name: round(value, 2) for name, value in spent._asdict().items()}
    found |= {"rows_per_second": round(rows / spent.seconds), **served}
    result = {"rows": rows, "input_bytes": size, **found, **device()}
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def answers() -> dict[str, float]:
    """What a served model takes, in milliseconds, for the histories that it was trained on."""
    import polars as pl

    from iadsr.serving.judge import Judge

    judge = Judge.opened(paths.MODEL, paths.ITEMS, paths.USERS)
    lists = pl.read_parquet(paths.VERDICTS, columns=["user", "item"]).group_by("user", maintain_order=True).agg("item")
    histories = lists["item"].head(BATCH).to_list()
    histories *= -(-BATCH // len(histories))
    alone = [milliseconds(judge.histories, [history]) for history in histories[:ALONE]]
    return {
        "ms_alone": round(statistics.median(alone), 2),
        "ms_of_1000": round(milliseconds(judge.histories, histories[:BATCH])),
    }


def milliseconds(function: Callable[..., Any], *arguments: Any) -> float:
    began = time.perf_counter()
    function(*arguments)
    return 1000 * (time.perf_counter() - began)


def write_log(path: Path, rows: int) -> int:
    """user, item and timestamp of people whom the model does not know; the number of rows, at least those asked for."""
    import polars as pl

    whole = pl.read_parquet(paths.VERDICTS, columns=["user", "item", "timestamp"])
    copies = -(-rows // len(whole))
    with open(path, "wb") as file:
        for number in range(copies):
            strangers = whole.with_columns(pl.format("{}, copy {}", "user", pl.lit(number)).alias("user"))
            strangers.write_csv(file, include_header=number == 0)
    return copies * len(whole)


if __name__ == "__main__":
    app()
