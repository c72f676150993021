"""history.csv: a row an epoch; no timings, so that the same run gives the same bytes."""

from __future__ import annotations

import csv
from pathlib import Path

from iadsr.artifacts import replacing, require
from iadsr.errors import UserError
from iadsr.models.ranking import metric_name
from iadsr.schemas import VALIDATION

STOPPING_METRIC = metric_name("ndcg", 10, "unfiltered", VALIDATION)  # the paper's protocol


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *history[0]])
        writer.writeheader()
        writer.writerows({"epoch": epoch, **figures} for epoch, figures in enumerate(history))


def read_history(path: Path, epochs: int) -> list[dict[str, float]]:
    """The figures of each epoch of a training; UserError when the file is missing or does not hold them all."""
    require(path, "train")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        history = [{name: float(value) for name, value in row.items() if name != "epoch"} for row in rows]
    except (ValueError, TypeError):  # no number; a row that ends too early
        history = []
    if len(history) != epochs or not all(STOPPING_METRIC in row for row in history):
        raise UserError(f"{path}: not the {epochs} epochs of the model; run `dvc repro train` again")
    return history
