"""Training and evaluating cells, several at a time, each by the stages themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from benchmarks.accuracy import timed
from benchmarks.gain import MACHINE, MEMORY
from benchmarks.prepared import prepared, trained_in
from iadsr.artifacts import read_json
from iadsr.device import dtype_name, pick_device, pick_dtype
from iadsr.evaluate.report import OF_COLD, OF_LIKED
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.schemas import TEST, VALIDATION
from stages import paths
from study.cells import AnyCell, Cell, Kind
from study.drops import drops_of
from study.plantings import Planting, measured
from study.results import CUTOFFS, Line, add, read_results

OF_NOISE = (
    "auc",
    "auc_at_place",
    "auc_cold",
    "auc_stratified",
    "calibration_error",
    "precision_at_share",
    "rate_estimated",
    "share",
)
OF_SOME = (OF_COLD, OF_LIKED)
BESIDE = (
    *("epochs", "best_epoch", "drop_ratio", "drop_ratio_expected", "drop_ratio_drift"),
    *(f"noise_{name}" for name in OF_NOISE),
    *(f"{some}_targets" for some in OF_SOME),
    *(metric_name(name, 10, protocol, some) for some in OF_SOME for protocol in PROTOCOLS for name in METRICS),
)


Measure = Callable[[Any, dict[str, Any]], tuple[Line, Path | None]]  # of a cell and its parameters


def missing(cells: Sequence[Kind], lines: Path) -> list[Kind]:
    """Those of which there is no line yet, or one with other parameters; of equal ones the first."""
    results, absent = read_results(lines), dict[str, Kind]()
    for cell in cells:
        if results.line_of(cell) is None:
            absent.setdefault(json.dumps(cell.decisive()), cell)
    return list(absent.values())


def run(cells: Sequence[Kind], lines: Path, workers: int, measure: Measure | None = None) -> Iterator[Kind]:
    """Train the cells, so many at once, and yield each once its line is written; `measure` makes it, else `line_of`.

    What is trained stays in .cache/benchmarks, so a training that was interrupted goes on from its last epoch. When one
    fails no other is begun, those that are running end, and its error is raised.
    """
    contents = [cell.content() for cell in cells]
    for content in contents:  # one after the other: cells of a data set share its folder
        prepared(content)
    waiting = list(zip(cells, contents, strict=True))
    running: dict[Future[tuple[Line, Path | None]], Kind] = {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            while waiting and len(running) < workers:
                cell, content = waiting.pop(0)
                running[pool.submit(measure or line_of, cell, content)] = cell
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                cell = running.pop(done)
                line, ranks = done.result()
                add(lines, line, ranks)
                yield cell


def line_of(cell: AnyCell, content: dict[str, Any]) -> tuple[Line, Path | None]:
    """Measure a cell: its line, and where its ranks are."""
    print(f"{cell.name}: begun", file=sys.stderr, flush=True)
    return (measured(cell), None) if isinstance(cell, Planting) else trained(cell, content)


def trained(cell: Cell, content: dict[str, Any]) -> tuple[Line, Path]:
    """Train and evaluate a cell.

    `seconds` are those of this call, with the detector where it was not there yet; None where all was there.
    `memory_bytes` is the largest resident set of the training, at least that of this process.
    """
    folder = trained_in(content) / paths.SEEDS / str(cell.seed)
    was_there = (folder / paths.RANKS).exists()
    seconds = timed(content, cell.seed, folder)
    found = read_json(folder / paths.DETAILS)
    device = pick_device(content["train"]["device"], "train.device")
    names = [
        metric_name(name, cutoff, protocol, split)
        for split in (TEST, VALIDATION)
        for protocol in PROTOCOLS
        for name in METRICS
        for cutoff in (CUTOFFS if split == TEST else CUTOFFS[1:2])
    ]
    line = {
        "cell": cell.name,
        "metrics": {name: round(found[name], 7) for name in (*names, *BESIDE) if name in found},
        **drops_of(folder, cell.dataset),
        "seconds": None if was_there else round(seconds, 1),
        "memory_bytes": read_json(folder / MEMORY) if (folder / MEMORY).exists() else None,
        "machine": {
            **read_json(folder / MACHINE),  # as it was when the training began
            "threads": content["train"]["threads"],
            "dtype": dtype_name(pick_dtype(content["train"]["dtype"], device)),
        },
        "params": cell.decisive(),
    }
    return line, folder / paths.RANKS
