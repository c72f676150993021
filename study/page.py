"""All that the study has found, from committed results alone: a document in Markdown and a page that opens from disk.

The page is the document, rendered, with tables that sort, pictures, and the cells behind each table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup

from iadsr.page.charts import Picture, picture
from iadsr.page.page import template
from study.cells import AnyCell, Cell, Declared, cells_of, of_kind, place_of, tunable
from study.drop_tables import cases_table, drops_table, popularity_table
from study.drops import read_cases
from study.found import found_table, lines_of
from study.paper import beside_paper, read_paper
from study.pictures import charts
from study.plantings import Planting
from study.results import Line, Results
from study.table import CERTAIN, CLEAN, PLAIN, Compared, Row, comparisons, rows_of, table_of, without_zero
from study.target_tables import targets_tables

TEMPLATE = "page.html.j2"
SAYS = {
    "detection": "AUC of noise of each kind by data set, a point a planting, and what the signals allow",
    "calibration": "Share of noise against the predicted probability, by kind and data set",
    "gains": "Accuracy trained on planted noise by method, a point a seed",
    "popularity": "What methods drop, and their accuracy, by the popularity of items: the paper's Figure 1",
    "theta": "Accuracy of IADSR over the agreement of views from which it denoises: the paper's Figure 3",
}
TOLD = {"ndcg_10_unfiltered": "NDCG@10 U", "ndcg_10_filtered": "NDCG@10 F"}
PREFACE = (
    "# The study",
    "",
    "Written by `python -m study page` from `results/study.jsonl`; nothing here was typed. A cell is",
    "GROUP/DATASET/BACKBONE/METHOD/SEED, or GROUP/DATASET/KIND/SEED of a planting: its line in that file has its",
    "parameters, machine, revision and seconds. What was not run says so.",
)


@dataclass(frozen=True)
class Part:
    """A group of cells, and what there is of them, which is looked up and compared once."""

    name: str
    about: str
    cells: Sequence[AnyCell]
    results: Results
    beside_paper: bool = False
    undecided: Sequence[Cell] = ()  # places that have yet to choose their settings

    @property
    def plantings(self) -> list[Planting]:
        return of_kind(Planting, self.cells)

    @property
    def trainings(self) -> list[Cell]:
        return of_kind(Cell, self.cells)

    @cached_property
    def lines(self) -> list[Line]:
        """Of the cells that were run, each once."""
        found = [line for cell in self.cells if (line := self.results.line_of(cell))]
        return list({line["cell"]: line for line in found}.values())

    @cached_property
    def rows(self) -> list[Row]:
        return rows_of(self.trainings, self.results)

    @cached_property
    def compared(self) -> list[Compared]:
        """For each of the rows."""
        return comparisons(self.rows, self.results)


def parts_of(declared: Declared, results: Results) -> list[Part]:
    """The groups, in the order of cells.yaml, detection first: what follows needs it."""
    cells: dict[str, list[AnyCell]] = {name: [] for name in (*declared.plantings, *declared.groups)}
    for cell in cells_of(declared):
        cells[cell.group].append(cell)
    return [
        *(Part(name, own.about, cells[name], results) for name, own in declared.plantings.items()),
        *(
            Part(name, own.about, cells[name], results, own.beside_paper, undecided(declared, name))
            for name, own in declared.groups.items()
        ),
    ]


def undecided(declared: Declared, group: str) -> list[Cell]:
    """Places of a group that `chooses` and have not."""
    cells = [cell for cell in tunable(declared, required=False) if cell.group == group]
    return [cell for cell in cells if place_of(cell) not in declared.choices]


def document(declared: Declared, results: Results) -> str:
    """The Markdown."""
    parts, seen = parts_of(declared, results), set[str]()
    lines = [*PREFACE, "", "## In short", ""]
    for part in parts:
        lines += [f"- {said}" for said in findings(part, seen)]
        seen |= {line["cell"] for line in part.lines}
    for part in parts:
        lines += ["", f"## {part.name}", "", f"{part.about[0].upper()}{part.about[1:]}.", "", *told(part)]
        if part.undecided:
            methods = Counter(cell.method for cell in part.undecided)
            counted = ", ".join(f"`{method}` in {count}" for method, count in methods.items())
            lines += ["", f"Yet to choose their settings (data sets and backbones): {counted}."]
    return "\n".join(lines) + "\n"


def told(part: Part) -> Iterator[str]:
    """The tables of a group."""
    if not part.lines:
        return iter(["Not run yet."])
    if part.plantings:
        return found_table(part.plantings, part.results)
    lines = chain(table_of(part.rows, part.compared), targets_tables(part.rows), drops_table(part.rows))
    if not part.beside_paper:
        return lines
    own = popularity_table(part.rows), cases_table(part.rows, read_cases())
    return chain(lines, *own, [""], beside_paper(part.rows, read_paper()))


def findings(part: Part, told_of: Collection[str]) -> Iterator[str]:
    """What a group's numbers say, in plain words; nothing of what was not run, or of cells `told_of` before."""
    if part.plantings:
        yield from detected(part)
        return
    compared = list(zip(part.rows, part.compared, strict=True))
    for method in dict.fromkeys(row.method for row in part.rows if row.method not in (PLAIN, CLEAN)):
        of_method = [(row, found) for row, found in compared if row.method == method]
        if all(line["cell"] in told_of for row, _ in of_method for line in row.lines.values()):
            continue
        own = [(f"{row.dataset} {row.backbone}", found) for row, found in of_method]
        run = [(where, found) for where, found in own if all("p" in found.get(name, {}) for name in TOLD)]
        if run:
            said = (
                f"{shown} {in_words([(where, found[name]) for where, found in run])}" for name, shown in TOLD.items()
            )
            yield f"**{part.name}**, `{method}` against `{PLAIN}`, in {len(run)} of {len(own)} rows: {'; '.join(said)}."


def in_words(found: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """By how much a metric changes, and where that is no chance.

    >>> in_words([("a", {"mean": 0.11, "gained": 0.01, "p": 0.001, "recovered": 0.5})])
    '+10%, better in 1 (a), worse in 0, wins back .50 of what noise costs'
    >>> in_words([("a", {"mean": 0.1, "gained": -0.001, "p": 0.3}), ("b", {"mean": 0.1, "gained": 0.02, "p": 0.3})])
    '-1% to +25%, better in 0, worse in 0'
    """
    changes = sorted(each["gained"] / (each["mean"] - each["gained"]) for _, each in found)
    text = ranged([f"{change:+.0%}" for change in (changes[0], changes[-1])])
    for sign, word in ((1, "better"), (-1, "worse")):
        where = [name for name, each in found if each["p"] < CERTAIN and sign * each["gained"] > 0]
        text += f", {word} in {len(where)}" + (f" ({', '.join(where)})" if where else "")
    if shares := sorted(each["recovered"] for _, each in found if "recovered" in each):
        won = ranged([without_zero(share, 2) for share in (shares[0], shares[-1])])
        text += f", wins back {won} of what noise costs"
    return text


def ranged(ends: Sequence[str]) -> str:
    """
    >>> ranged(["+1%", "+2%"]), ranged(["+1%", "+1%"])
    ('+1% to +2%', '+1%')
    """
    return " to ".join(dict.fromkeys(ends))


def detected(part: Part) -> Iterator[str]:
    """How well noise is found on each data set."""
    found = lines_of(part.plantings, part.results)
    for dataset in dict.fromkeys(dataset for dataset, _ in found):
        own = {kind: lines for (name, kind), lines in found.items() if name == dataset and lines}
        if own:
            areas = (f"{kind} {without_zero(mean(lines, 'auc'), 3)} ({len(lines)})" for kind, lines in own.items())
            yield f"**{part.name}**, {dataset}: AUC of kinds that were not trained on (plantings): {', '.join(areas)}."


def mean(lines: Sequence[Line], name: str) -> float:
    """Over lines."""
    return sum(line[name] for line in lines) / len(lines)


class Section(NamedTuple):
    """A group on the page, the lines behind its tables among it."""

    name: str
    text: Markup
    lines: list[Line]


def page(text: str, declared: Declared, results: Results) -> str:
    """The HTML of a document, without a script or a picture from elsewhere."""
    render = MarkdownIt("commonmark", {"html": False}).enable("table").render
    head, *groups = text.split("\n## ")
    sections = [Section("", Markup(render(head)), [])]  # noqa: S704 (rendered here, without HTML of its own)
    lines = {part.name: part.lines for part in parts_of(declared, results)}
    for group in groups:
        name = group.partition("\n")[0]
        section = Markup(render(f"## {group}"))  # noqa: S704
        sections.append(Section(name, section, lines.get(name, [])))
    content = {"sections": sections, "pictures": pictures(declared, results)}
    return template(TEMPLATE, Path(__file__).parent).render(content)


def pictures(declared: Declared, results: Results) -> list[Picture]:
    """Those that documents show, too."""
    return [picture(chart, SAYS[name]) for name, chart in charts_of(declared, results).items()]


def charts_of(declared: Declared, results: Results) -> dict[str, Any]:
    """All charts, by name."""
    return charts(results, cells_of(declared))


def stale(declared: Declared, results: Results) -> list[str]:
    """The cells whose lines stand in no table: no longer declared, or made with other parameters than are now."""
    shown = {line["cell"] for part in parts_of(declared, results) for line in part.lines}
    return [name for name in results.lines if name not in shown]
