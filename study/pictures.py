"""Pictures of what was found, for the documentation: drawn from committed results alone, without network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from iadsr.evaluate.plots import BLUE, DASHES, HEIGHT, ORANGE, WIDTH
from study.cells import AnyCell, Cell, of_kind
from study.drop_tables import has, mean_of_buckets, of_figure
from study.drops import READINGS
from study.found import Lines, lines_of
from study.plantings import Planting
from study.results import Results
from study.table import CLEAN, PLAIN, Row, rows_of

SCALE = 2
NAMES = {"ndcg_10_unfiltered": "NDCG@10, unfiltered", "ndcg_10_filtered": "NDCG@10, filtered"}
FIGURE_3 = {"hr_5_unfiltered": "HR@5, unfiltered", "ndcg_5_unfiltered": "NDCG@5, unfiltered"}
FIGURE_1 = {"drop_ratio_expected": "share dropped, in expectation", "ndcg_5_unfiltered": "NDCG@5, unfiltered"}
SHOWS = {"gains": ("planted-20",), "popularity": ("rivals", "alone"), "theta": ("theta",)}  # groups of each picture
GROUPS = tuple(group for groups in SHOWS.values() for group in groups)
SHADES = {PLAIN: "#9aa5b1", "random": "#c8b273", "cloze": BLUE, CLEAN: ORANGE}


def charts(results: Results, cells: Sequence[AnyCell]) -> dict[str, Any]:
    """A chart of each sort of which there is something to show, by its name."""
    found = {place: own for place, own in lines_of(of_kind(Planting, cells), results).items() if own}
    trainings = {name: [cell for cell in of_kind(Cell, cells) if cell.group == name] for name in GROUPS}
    made: dict[str, Any] = {}
    if found:
        made["detection"] = detection(found)
        made["calibration"] = calibration(found)
    for name, draws in (("gains", gains), ("popularity", popularity), ("theta", thetas)):
        rows = [row for group in SHOWS[name] for row in rows_of(trainings[group], results)]
        if drawn := draws(rows):
            made[name] = drawn
    return made


def draw(folder: Path, made: dict[str, Any]) -> Iterator[Path]:
    """Write a picture of each chart, and yield its path."""
    for name, chart in made.items():
        path = folder / f"{name}.png"
        chart.save(path, scale_factor=SCALE)
        yield path


def detection(found: Lines) -> alt.FacetChart:
    """AUC of each data set and kind, a point a planting, and as a tick what weights learnt from the truth reach."""
    rows = [
        {
            **{"dataset": dataset, "kind": kind, "auc": line["auc"]},
            "ceiling": float(np.mean([each["learnt_from"]["truth"]["auc"] for each in own])),
        }
        for (dataset, kind), own in found.items()
        for line in own
    ]
    x = alt.X("auc:Q", title="AUC", scale=alt.Scale(zero=False))
    base = alt.Chart().encode(y=alt.Y("kind:N", title=None, sort=None))
    points = base.mark_point(filled=True, size=60, color=BLUE).encode(x=x)
    ceilings = base.mark_tick(color=ORANGE, thickness=2).encode(x="ceiling:Q")
    layers = alt.layer(points, ceilings, data=alt.Data(values=rows)).properties(width=WIDTH // 2, height=HEIGHT // 3)
    return layers.facet(
        facet=alt.Facet("dataset:N", title=None, sort=None),
        columns=2,
        title="Noise of a kind that the detector was not trained on (points), and what its signals allow (ticks)",
    )


def calibration(found: Lines) -> alt.FacetChart:
    """Share of noise against the mean probability of each bin, a line a kind; dashed, where they are the same."""
    rows: list[dict[str, Any]] = [
        {"dataset": dataset, "kind": kind, "bin": place, "predicted": predicted, "share": share}
        for (dataset, kind), own in found.items()
        for place, (predicted, share) in enumerate(mean_bins([line["calibration"] for line in own]))
    ]
    top = max(max(row["predicted"], row["share"]) for row in rows) or 1.0
    same = [{"dataset": row["dataset"], "predicted": end, "share": end} for row in rows for end in (0.0, top)]
    axis = alt.Scale(domain=[0, top])
    x, y = (alt.X("predicted:Q", title="probability of noise", scale=axis), alt.Y("share:Q", title="share", scale=axis))
    lines = (
        alt.Chart()
        .mark_line(point=True)
        .encode(x=x, y=y, order="bin:O", color=alt.Color("kind:N", title=None, sort=None))
    )
    lines = lines.transform_filter("isValid(datum.kind)")
    dashed = alt.Chart().mark_line(color="gray", strokeDash=DASHES).encode(x=x, y=y)
    dashed = dashed.transform_filter("!isValid(datum.kind)")
    layers = alt.layer(dashed, lines, data=alt.Data(values=[*same, *rows])).properties(width=HEIGHT, height=HEIGHT)
    return layers.facet(
        facet=alt.Facet("dataset:N", title=None, sort=None), columns=2, title="Is noise as frequent as predicted?"
    )


def mean_bins(plantings: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Mean predicted probability and share of noise of each bin, over plantings; the last of a row is its bin.

    >>> mean_bins([[[0.1, 0.0, 5, 1], [0.5, 1.0, 5, 3]], [[0.3, 0.2, 5, 1]]])
    [(0.2, 0.1), (0.5, 1.0)]
    """
    of_bins: dict[float, list[Sequence[float]]] = {}
    for row in sorted((row for bins in plantings for row in bins), key=lambda row: row[-1]):
        of_bins.setdefault(row[-1], []).append(row)
    return [
        (float(np.mean([row[0] for row in rows])), float(np.mean([row[1] for row in rows])))
        for rows in of_bins.values()
    ]


def gains(trained: Sequence[Row]) -> alt.FacetChart | None:
    """Accuracy trained on noise, with every method, and without noise: a point a seed; None where nothing was run."""
    rows = [
        {"metric": shown, "cell": f"{row.dataset}, {row.backbone}", "method": row.method, "value": value}
        for row in compared(trained)
        for line in row.lines.values()
        for name, shown in NAMES.items()
        for value in [line["metrics"][f"test_{name}"]]
    ]
    if not rows:
        return None
    methods = [method for method in SHADES if any(row["method"] == method for row in rows)]
    shades = alt.Scale(domain=methods, range=[SHADES[method] for method in methods])
    points = alt.Chart(alt.Data(values=rows)).mark_point(filled=True, size=60, opacity=0.8)
    points = points.encode(
        x=alt.X("value:Q", title=None, scale=alt.Scale(zero=False)),
        y=alt.Y("method:N", title=None, sort=methods),
        color=alt.Color("method:N", legend=None, scale=shades),
    )
    points = points.properties(width=WIDTH // 2, height=HEIGHT // 3)
    facets = {"column": alt.Column("metric:N", title=None, sort=list(NAMES.values()))}
    return points.facet(row=alt.Row("cell:N", title=None, sort=None), **facets).resolve_scale(x="independent")


def popularity(trained: Sequence[Row]) -> alt.FacetChart | None:
    """The paper's Figure 1 in both readings of its buckets: what is dropped, and NDCG@5, by the popularity of items."""
    rows = [
        {"reading": f"equal {reading}", "what": what, "method": row.method, "bucket": place, "value": value}
        for row, lines in of_figure(trained)
        for reading in READINGS
        for name, what in FIGURE_1.items()
        if has(row, name)
        for place, value in enumerate(mean_of_buckets(lines, reading, name), 1)
    ]
    if not rows:
        return None
    lines = alt.Chart(alt.Data(values=rows)).mark_line(point=True)
    lines = lines.encode(
        x=alt.X("bucket:O", title="popularity of items (1 hottest)", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("value:Q", title=None),
        color=alt.Color("method:N", title=None, sort=None),
    )
    lines = lines.properties(width=WIDTH // 2, height=HEIGHT // 2)
    facets = {"column": alt.Column("what:N", title=None, sort=list(FIGURE_1.values()))}
    return lines.facet(row=alt.Row("reading:N", title=None, sort=None), **facets).resolve_scale(y="independent")


def thetas(trained: Sequence[Row]) -> alt.FacetChart | None:
    """The paper's Figure 3: accuracy over the gate, a point a seed, a line through means; dashed, the backbone."""
    rows: list[dict[str, Any]] = [
        {"metric": shown, "cell": f"{row.dataset}, {row.backbone}", "value": value, **place}
        for row in compared(trained)
        for line in row.lines.values()
        for name, shown in FIGURE_3.items()
        for value in [line["metrics"][f"test_{name}"]]
        for place in [{} if row.method == PLAIN else {"theta": line["params"]["theta"]}]
    ]
    if not rows:
        return None
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False))
    base = alt.Chart().transform_filter("isValid(datum.theta)").encode(x=alt.X("theta:Q"), y=y)
    means = base.mark_line(color=BLUE).encode(y=alt.Y("mean(value):Q", title=None))
    plain = alt.Chart().transform_filter("!isValid(datum.theta)").mark_rule(color=ORANGE, strokeDash=DASHES)
    plain = plain.encode(y=alt.Y("mean(value):Q", title=None))
    layers = alt.layer(base.mark_point(filled=True, color=BLUE), means, plain, data=alt.Data(values=rows))
    layers = layers.properties(width=WIDTH // 2, height=HEIGHT // 2)
    across, down = alt.Column("metric:N", title=None, sort=list(FIGURE_3.values())), alt.Row("cell:N", title=None)
    return layers.facet(row=down, column=across).resolve_scale(y="independent")


def compared(rows: Sequence[Row]) -> list[Row]:
    """Those of a data set and a backbone of which a method has been run, too."""
    blocks = {row.block for row in rows if row.lines and row.method not in (PLAIN, CLEAN)}
    return [row for row in rows if row.block in blocks]
