"""Pictures of the report page: those of `evaluate` as SVG, for light and dark screens, which need no script to show."""

from __future__ import annotations

import base64
import csv
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import altair as alt
import numpy as np
import vl_convert
from jaxtyping import Float

from iadsr.evaluate.plots import BLUE, HEIGHT, WIDTH, drawn, training_curves

BINS = 25
PLAIN = {"background": "transparent", "view": {"stroke": None}}
Chart = alt.Chart | alt.LayerChart | alt.HConcatChart | alt.FacetChart


class Picture(NamedTuple):
    """Addresses that hold the whole picture, and what it shows, for whoever cannot see it."""

    light: str
    dark: str
    says: str


def pictures(tables: Path, history: list[dict[str, float]], noise: Float[np.ndarray, " judged"]) -> list[Picture]:
    """The training curve, how probable noise is, and a picture of each table in the folder `tables`."""
    found = [picture(training_curves(history), "Training loss and validation NDCG@10 by epoch")]
    if len(noise):
        found.append(picture(probabilities(noise), "How many interactions have which probability of noise"))
    for path in sorted(tables.glob("*.csv")):
        rows = read_table(path)
        found.append(picture(drawn(path.stem, rows, cutoff_of(rows)), path.stem.replace("_", " ")))
    return found


def cutoff_of(rows: list[dict[str, Any]]) -> int:
    """That of the accuracy in a table; 0 of one that has none.

    >>> cutoff_of([{"bucket": 1, "ndcg_5_unfiltered": 0.1}]), cutoff_of([])
    (5, 0)
    """
    names = (re.fullmatch(r"ndcg_(\d+)_unfiltered", name) for row in rows for name in row)
    return next((int(name[1]) for name in names if name), 0)


def picture(chart: Chart, says: str) -> Picture:
    return Picture(address(chart, None), address(chart, "dark"), says)


def address(chart: Chart, theme: Literal["dark"] | None) -> str:
    """A data address of the chart as SVG."""
    drawing = vl_convert.vegalite_to_svg(chart.to_dict(), theme=theme, config=PLAIN)
    return f"data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}"


def probabilities(noise: Float[np.ndarray, " judged"]) -> alt.Chart:
    """A histogram."""
    counts, edges = np.histogram(noise, bins=BINS, range=(0, 1))
    rows = [
        {"from": float(begin), "to": float(end), "rows": int(count)}
        for begin, end, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    bars = alt.Chart(alt.Data(values=rows)).mark_bar(color=BLUE)
    bars = bars.encode(
        x=alt.X("from:Q", bin="binned", title="probability of noise"),
        x2="to:Q",
        y=alt.Y("rows:Q", title="interactions", axis=alt.Axis(format="~s")),
    )
    return bars.properties(width=WIDTH, height=HEIGHT, title="How likely is noise?")


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV that `evaluate` has written, numbers being numbers."""
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: number_or_text(value) for name, value in row.items()} for row in csv.DictReader(file)]


def number_or_text(value: str) -> int | float | str:
    """
    >>> number_or_text("3"), number_or_text("0.5"), number_or_text("a")
    (3, 0.5, 'a')
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value
