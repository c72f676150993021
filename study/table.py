"""A group's cells as Markdown: means over seeds, and whether each method is better or worse than the plain backbone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from benchmarks.gain import NAMES, recovery
from iadsr.evaluate.significance import holm, paired_p
from study.cells import Cell
from study.results import Line, Results

PLAIN, CLEAN = "none", "clean"  # methods: what others are compared with, and what noise had not been put into
CERTAIN = 0.05
MIXED = " ‡"
TITLES = ("data set, backbone, method", "seeds", "HR@10 U", "NDCG@10 U", "HR@10 F", "NDCG@10 F")
NOTE = (
    "Test items, full ranking; U: unfiltered, F: items seen before are not ranked; mean ± sample deviation over seeds. "
    f"`+` and `-`: better or worse than `{PLAIN}` with the same seeds, two-sided t-test paired over users, Holm over "
    f"the column, p < {CERTAIN}. It asks whether other users would say the same of these trainings; the luck of a seed "
    "shows in the deviation alone. In brackets: the share of what noise costs that the method wins back. "
    f"`{MIXED.strip()}`: trained on unlike machines."
)
Values = dict[str, Float[np.ndarray, "seeds users"]]  # by metric
Compared = dict[str, dict[str, Any]]  # by metric


class Row(NamedTuple):
    """A data set, a backbone and a method, with a line for each seed that was run."""

    dataset: str
    backbone: str
    method: str
    lines: dict[int, Line]

    @property
    def block(self) -> tuple[str, str]:
        return self.dataset, self.backbone

    def values(self, results: Results, seeds: Sequence[int]) -> Values:
        """Each user's metrics under these seeds."""
        found = [results.values(self.lines[seed]) for seed in seeds]
        return {name: np.stack([each[name] for each in found]) for name in NAMES}


def table(cells: Sequence[Cell], results: Results) -> Iterator[str]:
    """Lines of Markdown for the cells of one group; what was not run shows as such."""
    rows = rows_of(cells, results)
    yield from table_of(rows, comparisons(rows, results))


def table_of(rows: Sequence[Row], compared: Sequence[Compared]) -> Iterator[str]:
    """The same of rows that were compared."""
    yield from header(*TITLES)
    for row, found in zip(rows, compared, strict=True):
        if row.lines:
            seeds = ", ".join(map(str, row.lines)) + MIXED * (len(kinds(row.lines.values())) > 1)
            yield markdown(", ".join(row[:3]), [seeds, *shown(found)])
    lines = [line for row in rows for line in row.lines.values()]
    yield from ("", NOTE, "", *sentences(rows, compared), machines(lines), *not_run(rows))


def not_run(rows: Sequence[Row]) -> Iterator[str]:
    """What is declared and was not run yet: methods of which nothing was, then where others lack."""
    methods = dict.fromkeys(row.method for row in rows)
    nowhere = [name for name in methods if not any(row.lines for row in rows if row.method == name)]
    blocks = {name: [" ".join(row.block) for row in rows if row.method == name and not row.lines] for name in methods}
    lacking = [f"`{name}` on {', '.join(where)}" for name, where in blocks.items() if where and name not in nowhere]
    if nowhere or lacking:
        yield f"Not run yet: {'; '.join([f'`{name}`' for name in nowhere] + lacking)}."


def header(first: str, *others: str) -> Iterator[str]:
    """The titles of columns, and what stands below them."""
    yield markdown(first, others)
    yield "|" + "---|" * (1 + len(others))


def markdown(first: str, others: Sequence[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join([first, *others]) + " |"


def as_fields(cells: Sequence[Cell], results: Results) -> list[dict[str, Any]]:
    """All numbers of the table, and the p-values and intervals behind them: a dictionary for each row."""
    rows = rows_of(cells, results)
    return [
        {
            "dataset": row.dataset,
            "backbone": row.backbone,
            "method": row.method,
            "seeds": list(row.lines),
            **rounded(found),
        }
        for row, found in zip(rows, comparisons(rows, results), strict=True)
    ]


def rounded(compared: Compared) -> Compared:
    """
    >>> rounded({"a": {"mean": 0.123456, "std": None, "p": 0.00012345}})
    {'a': {'mean': 0.12346, 'std': None, 'p': 0.000123}}
    """
    return {name: {key: short(key, value) for key, value in found.items()} for name, found in compared.items()}


def short(key: str, value: Any) -> Any:
    """As many digits as a person can use."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.3g}") if key == "p" else round(float(value), 5)


def rows_of(cells: Sequence[Cell], results: Results) -> list[Row]:
    """In the order of cells.yaml."""
    axes = [list(dict.fromkeys(each)) for each in zip(*[cell[1:4] for cell in cells], strict=True)]
    rows: dict[tuple[str, ...], Row] = {}
    for cell in sorted(cells, key=lambda cell: [axis.index(name) for axis, name in zip(axes, cell[1:4], strict=True)]):
        row = rows.setdefault(cell[1:4], Row(*cell[1:4], {}))
        if line := results.line_of(cell):
            row.lines[cell.seed] = line
    return list(rows.values())


def comparisons(rows: Sequence[Row], results: Results) -> list[Compared]:
    """For each row and metric `mean` and `std` over its seeds; for a method also `p` and `gained`, and `recovered`."""
    found: list[Compared] = [{} for _ in rows]
    by_name = {(*row.block, row.method): row for row in rows}
    for row, compared in zip(rows, found, strict=True):
        for name, values in row.values(results, list(row.lines)).items() if row.lines else ():
            by_seed = values.mean(1)
            compared[name] = {"mean": by_seed.mean(), "std": by_seed.std(ddof=1) if len(by_seed) > 1 else None}
        plain, clean = (by_name.get((*row.block, other)) for other in (PLAIN, CLEAN))
        if plain and row.method not in (PLAIN, CLEAN):
            compare(row, plain, clean, results, compared)
    for name in NAMES:
        tested = [compared[name] for compared in found if "p" in compared.get(name, {})]
        for each, p in zip(tested, holm([each["p"] for each in tested]), strict=True):
            each["p"] = p
    return found


def compare(row: Row, plain: Row, clean: Row | None, results: Results, compared: Compared) -> None:
    """Add what follows from the seeds that the row, the plain backbone and, if there is one, the clean one share."""
    seeds = [seed for seed in row.lines if seed in plain.lines]
    if not seeds:
        return
    own, base = (each.values(results, seeds) for each in (row, plain))
    for name in NAMES:
        mine, others = own[name].mean(0), base[name].mean(0)
        compared[name] |= {"p": paired_p(mine, others), "gained": float((mine - others).mean())}
    if clean and (shared := [seed for seed in seeds if seed in clean.lines]):
        three = [each.values(results, shared) for each in (plain, clean, row)]
        for name in NAMES:
            noisy, before, mine = (each[name].mean(0) for each in three)
            if before.mean() > noisy.mean():
                compared[name] |= recovery(noisy, before, mine)


def shown(compared: Compared) -> list[str]:
    """A cell of the table for each metric."""
    return [in_short(compared[name]) if name in compared else "" for name in NAMES]


def in_short(found: dict[str, Any]) -> str:
    """
    >>> in_short({"mean": 0.08211, "std": 0.00032, "p": 0.01, "gained": 0.002, "recovered": 0.714})
    '.0821 ± .0003 + (.71)'
    """
    text = spread(found["mean"], found["std"], 4)
    if found.get("p", 1) < CERTAIN:
        text += " +" if found["gained"] > 0 else " -"
    if "recovered" in found:
        text += f" ({without_zero(found['recovered'], 2)})"
    return text


def spread(mean: float, deviation: float | None, digits: int) -> str:
    """
    >>> spread(0.82114, 0.0032, 3), spread(0.5, None, 3)
    ('.821 ± .003', '.500')
    """
    shown = without_zero(mean, digits)
    return shown if deviation is None else f"{shown} ± {without_zero(deviation, digits)}"


def spread_of(values: Sequence[float], digits: int) -> str:
    """
    >>> spread_of([0.878, 0.88], 3), spread_of([0.5], 3)
    ('.879 ± .001', '.500')
    """
    return spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, digits)


def without_zero(value: float, digits: int) -> str:
    """
    >>> without_zero(0.714, 2), without_zero(-0.1, 2), without_zero(10.5, 2)
    ('.71', '-.10', '10.50')
    """
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


def sentences(rows: Sequence[Row], compared: Sequence[Compared]) -> Iterator[str]:
    """How often each method is better and worse, by the metrics in the order of the columns."""
    for method in dict.fromkeys(row.method for row in rows if row.method not in (PLAIN, CLEAN)):
        own = [each for row, each in zip(rows, compared, strict=True) if row.method == method]
        run = [each for each in own if all("p" in each.get(name, {}) for name in NAMES)]
        if not run:
            continue
        better, worse = (
            " / ".join(
                str(sum(each[name]["p"] < CERTAIN and sign * each[name]["gained"] > 0 for each in run))
                for name in NAMES
            )
            for sign in (1, -1)
        )
        yield f"`{method}` against `{PLAIN}` in {len(run)} of {len(own)} rows: better in {better}, worse in {worse}."


def machines(lines: Sequence[Line]) -> str:
    """Where the lines come from; a table of unlike machines says so."""
    commits = sorted({str(line["machine"]["commit"]) for line in lines})
    return f"Trained on: {'; '.join(kinds(lines)) or 'nothing yet'}. Revisions: {', '.join(commits)}."


def kinds(lines: Iterable[Line]) -> list[str]:
    """The sorts of machines that lines come from."""
    found = [line["machine"] for line in lines]
    return sorted({f"{each['device']} ({each['cpu']}), {each['dtype']}, torch {each['torch']}" for each in found})
