"""What detectors found in plantings, as Markdown: means, what each kind teaches, what each signal is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from study.plantings import Planting
from study.results import Line, Results
from study.table import header, machines, markdown, spread_of

SHOWN = {
    "AUC": "auc",
    "like length": "auc_stratified",
    "coldest fifth": "auc_cold",
    "found": "precision_at_rate",
    "calibration error": "ece",
}
NOTE = (
    "Over training rows; `like length`: within histories of like length; `coldest fifth`: of the rows, by how often "
    "their items occur elsewhere; `found`: the share of noise among as many rows as were planted; calibration error: "
    "of probabilities whose rate is estimated. Mean ± sample deviation over plantings, whose number stands in brackets."
)
Lines = dict[tuple[str, str], list[Line]]  # by data set and kind


def lines_of(cells: Sequence[Planting], results: Results) -> Lines:
    """Of all that is declared, in its order, those that were run."""
    found: Lines = {}
    for cell in cells:
        line = results.line_of(cell)
        found.setdefault((cell.dataset, cell.kind), []).extend([line] if line else [])
    return found


def found_table(cells: Sequence[Planting], results: Results) -> Iterator[str]:
    """Lines of Markdown: how well each kind is found, then for each data set what it was learnt from, and signals."""
    lines = lines_of(cells, results)
    yield from header("data set, kind", *SHOWN)
    for (dataset, kind), own in lines.items():
        if own:
            shown = [in_short([line[name] for line in own if name in line]) for name in SHOWN.values()]
            yield markdown(f"{dataset}, {kind} ({len(own)})", shown)
    yield from ("", NOTE)
    if absent := [f"{dataset} {kind}" for (dataset, kind), own in lines.items() if not own]:
        yield from ("", f"Not run yet: {', '.join(absent)}.")
    for dataset in dict.fromkeys(dataset for dataset, _ in lines):
        of_kinds = {kind: own for (name, kind), own in lines.items() if name == dataset and own}
        if of_kinds:
            yield from ("", f"AUC on {dataset}, by what was planted; below, by what weighs the signals:", "")
            yield from matrix("learnt from", of_kinds, learnt_from)
            yield from ("", f"AUC on {dataset} by one signal alone, and by all others:", "")
            yield from matrix("signal", of_kinds, signals)
    yield from ("", machines([line for own in lines.values() for line in own]))


def learnt_from(line: Line) -> dict[str, float]:
    """AUC by the kinds that signals are weighed by."""
    return {name: areas["auc"] for name, areas in line["learnt_from"].items()}


def signals(line: Line) -> dict[str, float]:
    """AUC of each signal alone and of all others."""
    return {
        f"{name}, {way}": areas["auc"]
        for way in ("alone", "without")
        for name, by in line["signals"].items()
        for areas in [by[way]]
    }


def matrix(corner: str, of_kinds: dict[str, list[Line]], read: Any) -> Iterator[str]:
    """A row for each name that `read` gives of a line, a column for each kind."""
    yield from header(corner, *of_kinds)
    values = {kind: [read(line) for line in own] for kind, own in of_kinds.items()}
    for name in dict.fromkeys(name for own in values.values() for each in own for name in each):
        yield markdown(name, [in_short([each[name] for each in own if name in each]) for own in values.values()])


def as_fields(cells: Sequence[Planting], results: Results) -> list[dict[str, Any]]:
    """All lines, without what they were made with."""
    lines = [line for own in lines_of(cells, results).values() for line in own]
    return [{key: value for key, value in line.items() if key not in ("params", "machine")} for line in lines]


def in_short(values: Sequence[float]) -> str:
    """
    >>> in_short([0.878, 0.88]), in_short([0.5]), in_short([])
    ('.879 ± .001', '.500', '')
    """
    return spread_of(values, 3) if values else ""
