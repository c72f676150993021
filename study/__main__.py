"""`python -m study`: run cells of cells.yaml, say which are missing, and print what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import options
from benchmarks.prepared import ROOT
from iadsr.artifacts import replacing
from iadsr.errors import UserError
from stages.command import new_app, reports_errors
from study.cells import Cell, cells_of, of_kind, read_declared, tunable, with_changes
from study.found import as_fields as fields_of_plantings
from study.found import found_table
from study.page import charts_of, document, stale
from study.page import page as whole_page
from study.pictures import draw
from study.plantings import Planting
from study.results import LINES, read_results
from study.run import missing, run
from study.table import as_fields, table
from study.tuning import TRIALS, choices, require_choices, trials_of, validated, write_choices

app = new_app()
DOCUMENT, PAGE = ROOT / "docs" / "study.md", ROOT / "metrics" / "study.html"
Patterns = Annotated[
    list[str], typer.Option("--cells", help="Which, such as unplanted/beauty or '*/cloze/0'. May be repeated.")
]
Place = Annotated[Path, typer.Option("--results", help="The file of lines; ranks lie in the folder of its name.")]


Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE of params.yaml for all cells: a trial, with --results elsewhere."),
]


@app.command("list")
@reports_errors
def listed(cells: Patterns = ["*"], results: Place = LINES, changes: Changes = None) -> None:  # noqa: B006
    """Name the cells, and which of them are missing."""
    chosen, path = with_changes(cells_of(read_declared(), cells), changes or []), file_of(results, changes)
    found = read_results(path)
    for cell in chosen:
        print(f"{'done   ' if found.line_of(cell) else 'missing'} {cell.name}")


@app.command("run", epilog="Example: python -m study run --cells 'unplanted/beauty/*' --workers 2")
@reports_errors
def running(
    cells: Patterns = ["*"],  # noqa: B006
    workers: Annotated[int, typer.Option(min=1, help="Cells at once; each trains on train.threads threads.")] = 2,
    changes: Changes = None,
    results: Place = LINES,
) -> None:
    """Train and evaluate the cells that are missing; each has its line as soon as it is done.

    Interrupted at any moment, the same command goes on where it was; a planting begins anew.
    """
    path = file_of(results, changes)
    todo = missing(with_changes(cells_of(read_declared(), cells), changes or []), path)
    for number, cell in enumerate(run(todo, path, workers), 1):
        print(f"{number} of {len(todo)}: {cell.name}", flush=True)


@app.command(epilog="Example: python -m study tune --cells 'tuned/ml-100k/*'")
@reports_errors
def tune(
    cells: Annotated[list[str], typer.Option("--cells", help="Which; seeds do not matter.")] = ["*"],  # noqa: B006
    workers: Annotated[int, typer.Option(min=1, help="Trainings at once.")] = 2,
) -> None:
    """Let methods choose among the settings of `budget` by validation; what they take is in results/tuned.json."""
    declared = read_declared()
    asked = tunable(declared, cells)
    trials = missing([trial for cell in asked for trial in trials_of(cell, declared)], TRIALS)
    for number, trial in enumerate(run(trials, TRIALS, workers, validated), 1):
        print(f"{number} of {len(trials)}: {trial.name}", flush=True)
    results = read_results(TRIALS)
    write_choices(tunable(declared), declared, results)
    for place, choice in choices(asked, declared, results).items():
        print(f"{place}: {choice.settings}")


@app.command("table", epilog="Example: python -m study table unplanted")
@reports_errors
def printed(
    group: Annotated[str, typer.Argument(help="A group of cells.yaml.")],
    results: Place = LINES,
    changes: Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Print a group's table in Markdown, or with --json all its numbers."""
    declared, found = read_declared(), read_results(file_of(results, changes))
    if group not in (names := [*declared.groups, *declared.plantings]):
        raise UserError(f"{group}: no group of cells.yaml; there are {', '.join(names)}")
    cells = with_changes(cells_of(declared, [group]), changes or [])
    plantings, trainings = of_kind(Planting, cells), of_kind(Cell, cells)
    if as_json:
        print(json.dumps(fields_of_plantings(plantings, found) if plantings else as_fields(trainings, found)))
    else:
        print("\n".join(found_table(plantings, found) if plantings else table(trainings, found)))


@app.command()
@reports_errors
def pictures(
    folder: Annotated[Path, typer.Option(help="Where they go.")] = ROOT / "docs",
    results: Place = LINES,
) -> None:
    """Draw what was found: detection and its calibration, gains where noise was planted, the paper's Figures 1, 3."""
    for path in draw(folder, charts_of(read_declared(), read_results(results))):
        print(f"wrote {path}")


@app.command()
@reports_errors
def page(
    markdown: Annotated[Path, typer.Option(help="The document.")] = DOCUMENT,
    html: Annotated[Path, typer.Option(help="The same as a page, with pictures and sources.")] = PAGE,
    results: Place = LINES,
) -> None:
    """Write all that was found, from committed results alone: in Markdown, and as a page that opens from disk."""
    declared, found = read_declared(), read_results(results)
    text = document(declared, found)
    for path, content in ((markdown, text), (html, whole_page(text, declared, found))):
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
        print(f"wrote {path}")


@app.command()
@reports_errors
def check(markdown: Annotated[Path, typer.Option(help="The document.")] = DOCUMENT, results: Place = LINES) -> None:
    """Fail if the document is not what the results give, a line is in no table, or a choice not by its trials."""
    declared, found = read_declared(), read_results(results)
    require_choices(tunable(declared, required=False), declared, read_results(TRIALS))
    if unused := stale(declared, found):
        raise UserError(
            f"{results}: {unused[0]} is no cell of cells.yaml with the parameters that it has now ({len(unused)} such "
            "lines); remove the line and its ranks, or run the cell again"
        )
    if not markdown.exists() or markdown.read_text(encoding="utf-8") != document(declared, found):
        raise UserError(f"{markdown}: not what {results} gives; write it again with `python -m study page`")
    print(f"{markdown}: as the results")


def file_of(results: Path, changes: list[str] | None) -> Path:
    """UserError where a trial would be written among the study's own lines."""
    if changes and results.resolve() == LINES.resolve():
        raise UserError("--set: cells with other parameters are no part of the study; give --results FILE as well")
    return results


if __name__ == "__main__":
    app()
