"""The paper's own numbers, beside ours of the same data set, backbone and method."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.prepared import ROOT
from iadsr.models.ranking import metric_name
from iadsr.schemas import TEST
from study.table import Row, header, markdown, without_zero

TABLES = ROOT / "results" / "paper_tables.csv"  # Tables 2 to 4; empty where the print is not legible
Paper = Mapping[tuple[str, str, str], Mapping[str, str]]
RELEASED = {"released": "none", "iadsr_released": "iadsr"}  # our method: what the paper calls it
METRICS = {"HR@10": "hr", "NDCG@10": "ndcg"}
NOTE = "Means over our seeds, unfiltered as in the paper; the paper gives neither seeds nor deviations."


def read_paper(path: Path = TABLES) -> Paper:
    """Tables 2 and 3 by data set, backbone ("none" where a method stands alone) and method."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["table"] in ("2", "3")]
    return {(row["dataset"], row["backbone"] or "none", row["method"]): row for row in rows}


def beside_paper(rows: Sequence[Row], paper: Paper) -> Iterator[str]:
    """Lines of Markdown: the rows that were run and of which the paper has a number; nothing without any."""
    found = [(row, paper.get((*row.block, RELEASED.get(row.method, row.method)))) for row in rows if row.lines]
    both = [(row, own) for row, own in found if own and any(map(own.get, METRICS))]
    if not both:
        return
    yield from header("beside the paper", *(f"{name} U, {whose}" for name in METRICS for whose in ("ours", "paper")))
    for row, own in both:
        cells = []
        for name, metric in METRICS.items():
            values = [line["metrics"][metric_name(metric, 10, "unfiltered", TEST)] for line in row.lines.values()]
            cells += [
                without_zero(sum(values) / len(values), 4),
                without_zero(float(own[name]), 4) if own[name] else "",
            ]
        yield markdown(", ".join(row[:3]), cells)
    yield from ("", NOTE)
