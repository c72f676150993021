"""The tables of docs/rivals.md: each method beside its own base, and beside the paper's row.

`python -m benchmarks.rivals results/rivals.jsonl --paper FILE`, FILE a CSV of the paper's Tables 2 and 3 with columns
dataset, backbone, method, HR@10, NDCG@10; without it those columns stay empty.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from benchmarks import results
from iadsr.errors import UserError
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.ranking import HEADLINES
from stages.command import new_app, reports_errors

app = new_app()

Run = dict[str, Any]
Paper = dict[tuple[str, str, str], dict[str, str]]
ORDER = list(DENOISERS)
TITLES = (
    *("backbone", "method", "seed", "HR@10 U", "NDCG@10 U", "HR@10 F", "NDCG@10 F", "over its base"),
    *("paper: HR@10", "NDCG@10", "over its base", "drop, expected", "drop, rule", "best of epochs"),
)


@app.command(epilog="Example: python -m benchmarks.rivals results/rivals.jsonl --paper paper_tables.csv")
@reports_errors
def main(
    runs: Annotated[Path, typer.Argument(help="A JSON object a line, as `python -m stages.train` left them.")],
    paper: Annotated[Path | None, typer.Option(help="The paper's tables as CSV.", show_default=False)] = None,
) -> None:
    """Print a table in Markdown for each data set; "over its base" is of mean HR@10 U.

    What a method costs is measured by `python -m benchmarks.training`, one after another on an idle machine.
    """
    for path in filter(None, (runs, paper)):
        if not path.is_file():
            raise UserError(f"{path}: no such file")
    with open(runs, encoding="utf-8") as file:
        found = [json.loads(line) for line in file]
    print("\n".join(tables(found, read_paper(paper) if paper else {})))


def read_paper(path: Path) -> Paper:
    """Tables 2 and 3 by data set, backbone ("none" where a method stands alone) and method."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] in ("2", "3")]
    return {(row["dataset"], row["backbone"] or "none", row["method"]): row for row in rows}


def tables(runs: Iterable[Run], paper: Paper) -> list[str]:
    """A heading and a table for each data set; a row for each method and setting, its seeds behind one another."""
    lines: list[str] = []
    ordered = sorted(runs, key=lambda run: (run["dataset"], *setting(run), run["seed"]))
    for dataset, of_dataset in groupby(ordered, lambda run: run["dataset"]):
        groups = {key: list(group) for key, group in groupby(of_dataset, setting)}
        rows = [row(group, base_of(group, groups), paper) for group in groups.values()]
        lines += [f"### {dataset}", ""]
        lines += ["| " + " | ".join(cells) + " |" for cells in (TITLES, ["---"] * len(TITLES), *rows)] + [""]
    return lines


def setting(run: Run) -> tuple[str, int, str]:
    """What the seeds of a row share, in the order of rows."""
    return run["backbone"], ORDER.index(run["denoiser"]), run["changes"]


def base_of(group: list[Run], groups: dict[tuple[str, int, str], list[Run]]) -> list[Run]:
    """The runs of the plain backbone, of the seeds that the method has too; all of them where it shares none."""
    backbone = group[0]["backbone"]
    key = (results.base_of(backbone), ORDER.index("none"), "")
    base, seeds = groups.get(key, []), {run["seed"] for run in group}
    return [run for run in base if run["seed"] in seeds] or base


def row(runs: list[Run], base: list[Run], paper: Paper) -> list[str]:
    first = runs[0]
    plain = first["denoiser"] == "none"
    return [
        "" if first["backbone"] == "none" else first["backbone"],
        first["denoiser"] + (f", {first['changes']}" if first["changes"] else ""),
        each(runs, lambda run: str(run["seed"])),
        *(each(runs, lambda run, name=name: decimals(run["metrics"][name])) for name in HEADLINES),  # type: ignore[misc]
        "" if plain else over(runs, base),
        *paper_cells(first, paper),
        "" if plain else each(runs, lambda run: f"{run['metrics']['drop_ratio_expected']:.1%}"),
        "" if plain else each(runs, lambda run: f"{run['metrics']['drop_ratio']:.1%}"),
        each(runs, lambda run: f"{run['best_epoch']} of {run['epochs']}"),
    ]


def each(runs: list[Run], cell: Callable[[Run], str]) -> str:
    return " / ".join(map(cell, runs))


def decimals(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def over(runs: list[Run], base: list[Run]) -> str:
    """The ratio of mean HR@10 U."""
    own, plain = (mean(run["metrics"][HEADLINES[0]] for run in some) if some else 0 for some in (runs, base))
    return f"{own / plain:.2f}" if base else ""


def paper_cells(run: Run, paper: Paper) -> list[str]:
    """HR@10, NDCG@10 and the ratio of HR@10 to the base's, where the paper's print has them."""
    own = paper.get((run["dataset"], run["backbone"], run["denoiser"]))
    if not own or run["changes"] or not own["HR@10"]:
        return ["", "", ""]
    base = paper.get((run["dataset"], results.base_of(run["backbone"]), "none"))
    ratio = f"{float(own['HR@10']) / float(base['HR@10']):.2f}" if base and base["HR@10"] else ""
    shown = [own[name].removeprefix("0") for name in ("HR@10", "NDCG@10")]
    return [*shown, "" if run["denoiser"] == "none" else ratio]


if __name__ == "__main__":
    app()
