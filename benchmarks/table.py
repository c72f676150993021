"""The table of docs/measurements.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import results
from iadsr.models.ranking import metric_name
from iadsr.schemas import TEST
from stages.command import new_app, reports_errors

app = new_app()

Run = dict[str, Any]
SETTING = (
    *("dataset", "noise_ratio", "backbone", "denoiser", "masks", "batch_size", "learning_rate", "prefixes"),
    *("dtype", "windows"),
)


@app.command(epilog="Example: python -m benchmarks.table results/runs.jsonl")
@reports_errors
def main(
    runs: Annotated[Path, typer.Argument(help="A JSON object a line, as in results/runs.jsonl.")],
) -> None:
    """Print Markdown: a row for each setting, with the values of its seeds side by side."""
    print("\n".join(lines(results.read_runs(runs))))


def accuracy(name: str) -> Callable[[Run], str]:
    return lambda run: f"{run['metrics'][name]:.4f}".removeprefix("0")


def share(name: str) -> Callable[[Run], str]:
    return lambda run: f"{run['metrics'][name]:.2%}" if run["denoiser"] != "none" else ""


def area(run: Run) -> str:
    return f"{run['metrics']['noise_auc']:.3f}".removeprefix("0") if "noise_auc" in run["metrics"] else ""


COLUMNS: dict[str, Callable[[Run], str]] = {
    "seed": lambda run: str(run["seed"]),
    "HR@10 U": accuracy(metric_name("hr", 10, "unfiltered", TEST)),
    "HR@10 F": accuracy(metric_name("hr", 10, "filtered", TEST)),
    "dropped": share("drop_ratio_expected"),
    "AUC": area,
}


def lines(runs: Iterable[Run]) -> list[str]:
    """Markdown: a row for each setting, with the values of its seeds side by side."""
    titles = ["run", *COLUMNS]
    rows = [titles, ["---"] * len(titles)]
    ordered = sorted(runs, key=lambda run: [*setting(run), run["seed"]])
    for _, seeds in groupby(ordered, setting):
        rows.append(row(list(seeds)))
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def setting(run: Run) -> list[str]:
    """What the seeds of a row share."""
    return [str({"windows": "tiles", **run}[name]) for name in SETTING]


def row(seeds: list[Run]) -> list[str]:
    run = seeds[0]
    planted = f", {run['noise_ratio']:.0%} planted" if run["noise_ratio"] else ""
    method = f"IADSR, masks {run['masks']}" if run["denoiser"] == "iadsr" else run["denoiser"]
    cells = [[value(each) for each in seeds] for value in COLUMNS.values()]
    named = [run["dataset"] + planted, run["backbone"], method, f"batch {run['batch_size']}"]
    return [", ".join(named) + departures(run), *(" / ".join(values) if any(values) else "" for values in cells)]


def departures(run: Run) -> str:
    """What differs from bfloat16 products and from windows that hold all of a history."""
    named = [run["dtype"]] if run["dtype"] != "bfloat16" else []
    named += [f"{run['windows']} windows"] if run.get("windows", "tiles") != "tiles" else []
    return "".join(f", {name}" for name in named)


if __name__ == "__main__":
    app()
