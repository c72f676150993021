"""What was found: a line of JSON a cell in results/study.jsonl, and beside it where its test items rank for each user.

Ranks are what any two models are compared by, user by user. Those beyond every cutoff count for nothing and are
written as 0, so a file has a few kilobytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Float

from benchmarks.prepared import CACHE, ROOT
from benchmarks.results import read_runs
from iadsr.artifacts import replacing
from iadsr.errors import UserError
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.schemas import SPLIT, TEST
from iadsr.train.run import alone_in
from study.cells import AnyCell
from study.settings import Settings

LINES = ROOT / "results" / "study.jsonl"
CUTOFFS = (5, 10, 20)
FAR = max(CUTOFFS)
Line = dict[str, Any]


class Results(NamedTuple):
    """The lines of a file, and the folder of the ranks beside it."""

    path: Path
    lines: dict[str, Line]  # by the cell's name

    @property
    def ranks(self) -> Path:
        return self.path.with_suffix("")

    def line_of(self, cell: AnyCell) -> Line | None:
        """The cell's own, unless it was trained with other parameters than those that cells.yaml now declares.

        A line of another cell with the very same parameters is as good: what is measured once need not be again.
        """
        wanted, own = cell.decisive(), self.lines.get(cell.name)
        if own and still_declared(own["params"], wanted, cell):
            return own
        return next((line for line in self.lines.values() if is_another(line["params"], wanted, cell)), None)

    def values(self, line: Line) -> dict[str, Float[np.ndarray, " users"]]:
        """Each user's metrics at every cutoff; UserError where the ranks are missing or do not give the line's."""
        path = self.ranks / f"{line['cell']}.parquet"
        if not path.is_file():
            raise UserError(f"{path}: missing; restore it, or remove the cell's line and run the cell again")
        table = pyarrow.parquet.read_table(path)
        found: dict[str, np.ndarray] = {}
        for protocol in PROTOCOLS:
            ranks = table[protocol].to_numpy()
            near = np.where(ranks > 0, ranks, np.inf)
            for name, function in METRICS.items():
                found |= {metric_name(name, cutoff, protocol): function(near, cutoff) for cutoff in CUTOFFS}
        for name, each in found.items():
            if abs(each.mean() - line["metrics"][f"{TEST}_{name}"]) > 1e-6:
                raise UserError(f"{path}: gives another {name} than the line in {self.path}; run the cell again")
        return found


def read_results(path: Path = LINES) -> Results:
    """Of a file that is not there yet: none."""
    lines = read_runs(path) if path.exists() else []
    return Results(path, {line["cell"]: line for line in lines})


def still_declared(params: Settings, wanted: Settings, cell: AnyCell) -> bool:
    """Whether a cell's line has the parameters that are wanted now.

    One that params.yaml has got since is not held against it, unless the cell sets it.
    """
    known = {key: value for key, value in wanted.items() if key in params or key in cell.settings}
    return all(key in params and params[key] == value for key, value in known.items())


def is_another(params: Settings, wanted: Settings, cell: AnyCell) -> bool:
    """Whether the line of another cell, of these parameters, is of equal ones, new ones aside; a training is one."""
    return (
        params.keys() <= wanted.keys()
        and ("backbone" in params) == ("backbone" in wanted)
        and still_declared(params, wanted, cell)
    )


def add(path: Path, line: Line, ranks: Path | None = None) -> None:
    """Write the ranks of a cell, if it has any, then its line in place of an older one; lines are sorted by name.

    Several studies may write at once.
    """
    with alone_in(CACHE / "study", wait=True):
        results = read_results(path)
        if ranks is not None:
            write_ranks(results.ranks / f"{line['cell']}.parquet", ranks)
        lines = sorted((results.lines | {line["cell"]: line}).items())
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(each) + "\n" for _, each in lines), encoding="utf-8")


def write_ranks(place: Path, evaluated: Path) -> None:
    """From the ranks that the stage `evaluate` wrote, those of test items."""
    table = pyarrow.parquet.read_table(evaluated, filters=[(SPLIT, "=", TEST)])
    near = {}
    for protocol in PROTOCOLS:
        ranks = table[f"rank_{protocol}"].to_numpy()
        near[protocol] = pa.array(np.where(ranks <= FAR, ranks, 0).astype(np.float32))
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as temporary:
        pyarrow.parquet.write_table(pa.table(near), temporary, compression="zstd")
