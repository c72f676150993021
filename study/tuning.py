"""Equal budgets: every method tries the same settings on validation, under a seed of its own, and takes the best.

What was tried is in results/trials.jsonl, what was chosen in results/tuned.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.prepared import ROOT
from iadsr.artifacts import read_json, write_json
from iadsr.errors import UserError
from study.cells import CHOICES, Cell, Declared, place_of
from study.results import Line, Results
from study.run import trained

TRIALS = ROOT / "results" / "trials.jsonl"
BY = "validation_ndcg_10_unfiltered"


def validated(cell: Cell, content: dict[str, Any]) -> tuple[Line, None]:
    """A trial's line, which says nothing of test items."""
    line, _ = trained(cell, content)
    metrics = {name: value for name, value in line["metrics"].items() if name in ("epochs", "best_epoch", BY)}
    return {**{name: line[name] for name in ("cell", "seconds", "machine", "params")}, "metrics": metrics}, None


class Choice(NamedTuple):
    """What a method takes on a data set and a backbone."""

    settings: dict[str, Any]
    found: list[float]  # by each trial, in the order of cells.yaml


def trials_of(cell: Cell, declared: Declared) -> list[Cell]:
    """One for each of the settings that are tried."""
    budget = declared.budget
    if budget is None:
        raise UserError("cells.yaml: budget: missing, and a group `chooses`; state a seed and trials")
    own = {**cell.settings, "seed": budget.seed}
    return [
        cell._replace(group=f"trial-{number}", seed=budget.seed, settings={**own, **trial})
        for number, trial in enumerate(budget.trials)
    ]


def choices(cells: Sequence[Cell], declared: Declared, trials: Results) -> dict[str, Choice]:
    """Of each place of which all trials were run, the settings with the best validation; of equal ones the first."""
    found = {}
    for cell in cells:
        lines = [trials.line_of(trial) for trial in trials_of(cell, declared)]
        if declared.budget and all(lines):
            values = [line["metrics"][BY] for line in lines if line]
            found[place_of(cell)] = Choice(declared.budget.trials[values.index(max(values))], values)
    return found


def write_choices(cells: Sequence[Cell], declared: Declared, trials: Results, path: Path = CHOICES) -> None:
    """Those of all places that may choose, and have tried all."""
    write_json(path, {place: choice._asdict() for place, choice in choices(cells, declared, trials).items()})


def require_choices(cells: Sequence[Cell], declared: Declared, trials: Results, path: Path = CHOICES) -> None:
    """UserError where what was written is not what the trials give."""
    written = read_json(path) if path.exists() else {}
    given = {place: choice._asdict() for place, choice in choices(cells, declared, trials).items()}
    if json.dumps(written, sort_keys=True) != json.dumps(given, sort_keys=True):
        raise UserError(f"{path}: not what {trials.path} gives; write it again with `python -m study tune`")
