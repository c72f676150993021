"""The tables of docs/rivals.md: each method beside its own base, and beside the paper's row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from benchmarks import results
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.ranking import PROTOCOLS, metric_name
from iadsr.schemas import TEST
from stages.command import new_app, reports_errors
from study.paper import Paper, read_paper

app = new_app()

Run = dict[str, Any]
ORDER = list(DENOISERS)
SHOWN = tuple(metric_name("hr", 10, protocol, TEST) for protocol in PROTOCOLS)
TITLES = ("method", "seeds", "HR@10 U", "HR@10 F", "over its base", "dropped")
BESIDE = ("method", "HR@10 U here", "over its base", "HR@10 in the paper", "over its base")


@app.command(epilog="Example: python -m benchmarks.rivals results/rivals.jsonl")
@reports_errors
def main(
    runs: Annotated[Path, typer.Argument(help="A JSON object a line, as in results/rivals.jsonl.")],
) -> None:
    """Print Markdown: for each data set what each method reaches, and the same beside the paper's numbers.

    "over its base" is a ratio of mean HR@10 U, "dropped" the expected share. What a method costs is measured by
    `python -m benchmarks.training`, one after another on an idle machine.
    """
    print("\n".join(tables(results.read_runs(runs), read_paper())))


def tables(runs: Iterable[Run], paper: Paper) -> list[str]:
    """Two tables for each data set, a row for each method and setting: its own, and beside the paper's."""
    lines: list[str] = []
    ordered = sorted(runs, key=lambda run: (run["dataset"], *setting(run), run["seed"]))
    for dataset, of_dataset in groupby(ordered, lambda run: run["dataset"]):
        groups = {key: list(group) for key, group in groupby(of_dataset, setting)}
        pairs = [(group, base_of(group, groups)) for group in groups.values()]
        lines += table(dataset, TITLES, [row(*pair) for pair in pairs])
        beside = [cells for pair in pairs if (cells := beside_paper(*pair, paper))]
        lines += table(f"{dataset}, beside the paper", BESIDE, beside) if beside else []
    return lines


def table(heading: str, titles: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *rows)]
    return [f"### {heading}", "", *lines, ""]


def setting(run: Run) -> tuple[str, int, str]:
    """What the seeds of a row share, in the order of rows."""
    return run["backbone"], ORDER.index(run["denoiser"]), run["changes"]


def base_of(group: list[Run], groups: dict[tuple[str, int, str], list[Run]]) -> list[Run]:
    """The runs of the plain backbone with the seeds that the method has too; all of them where it shares none."""
    backbone = group[0]["backbone"]
    key = (results.base_of(backbone), ORDER.index("none"), "")
    base, seeds = groups.get(key, []), {run["seed"] for run in group}
    return [run for run in base if run["seed"] in seeds] or base


def row(runs: list[Run], base: list[Run]) -> list[str]:
    plain = runs[0]["denoiser"] == "none"
    return [
        named(runs[0]),
        each(runs, lambda run: str(run["seed"])),
        *(each(runs, lambda run, name=name: decimals(run["metrics"][name])) for name in SHOWN),  # type: ignore[misc]
        "" if plain else over(runs, base),
        "" if plain else f"{mean(run['metrics']['drop_ratio_expected'] for run in runs):.1%}",
    ]


def named(run: Run) -> str:
    """The method, its backbone, and what it changes."""
    backbone = [] if run["backbone"] == "none" else [run["backbone"]]
    method = [] if run["denoiser"] == "none" else [run["denoiser"]]
    return ", ".join([*backbone, *method, *filter(None, [run["changes"]])])


def each(runs: list[Run], cell: Callable[[Run], str]) -> str:
    return " / ".join(map(cell, runs))


def decimals(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def over(runs: list[Run], base: list[Run]) -> str:
    """The ratio of mean HR@10 U."""
    own, plain = (mean(run["metrics"][SHOWN[0]] for run in some) if some else 0 for some in (runs, base))
    return f"{own / plain:.2f}" if base else ""


def beside_paper(runs: list[Run], base: list[Run], paper: Paper) -> list[str]:
    """HR@10 U and its ratio to the base's, here and where the paper's print has them; nothing where it has none."""
    first = runs[0]
    own = paper.get((first["dataset"], first["backbone"], first["denoiser"]))
    if not own or first["changes"] or not own["HR@10"]:
        return []
    plain = paper.get((first["dataset"], results.base_of(first["backbone"]), "none"))
    ratio = f"{float(own['HR@10']) / float(plain['HR@10']):.2f}" if plain and plain["HR@10"] else ""
    here, there = decimals(mean(run["metrics"][SHOWN[0]] for run in runs)), decimals(float(own["HR@10"]))
    if first["denoiser"] == "none":
        return [named(first), here, "", there, ""]
    return [named(first), here, over(runs, base), there, ratio]


if __name__ == "__main__":
    app()
