"""Pictures of a run, drawn without network: training curves, accuracy and drop ratio by popularity (Figure 1), and how
known noise was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt

from iadsr.models.ranking import metric_name
from iadsr.train.history import STOPPING_METRIC

WIDTH, HEIGHT = 420, 260
BLUE, ORANGE = "#4c78a8", "#e45756"
HOTTEST = "item popularity (1 hottest)"
KINDS = ["noise", "real"]
CHANCE, DASHES = 0.5, [4, 4]


def draw_plots(folder: Path, history: list[dict[str, float]], tables: dict[str, Any], cutoff: int) -> None:
    """Write training.png and a picture of each table into `folder`."""
    training_curves(history).save(folder / "training.png", scale_factor=2)
    for name, rows in tables.items():
        drawn(name, rows, cutoff).save(folder / f"{name}.png", scale_factor=2)


def drawn(name: str, rows: list[dict[str, Any]], cutoff: int) -> alt.LayerChart | alt.Chart:
    """The picture of the table of this name."""
    if name.startswith("buckets_"):
        return by_popularity(rows, cutoff, name)
    if name == "noise_by_length":
        return noise_by_length(rows)
    if name == "noise_calibration":
        return calibration(rows)
    return scores(rows) if name == "noise_scores" else noise_by_popularity(rows, name)


def training_curves(history: list[dict[str, float]]) -> alt.HConcatChart:
    """Loss terms on the left, validation NDCG@10 (unfiltered) on the right, by epoch."""
    losses = [
        {"epoch": epoch, "term": name.removeprefix("loss_"), "value": value}
        for epoch, figures in enumerate(history)
        for name, value in figures.items()
        if name.startswith("loss_")
    ]
    validation = [{"epoch": epoch, "value": row[STOPPING_METRIC]} for epoch, row in enumerate(history)]
    left = alt.Chart(alt.Data(values=losses)).mark_line(point=len(history) == 1)
    left = left.encode(
        x="epoch:Q", y=alt.Y("value:Q", title="training loss", scale=alt.Scale(zero=False)), color="term:N"
    )
    right = alt.Chart(alt.Data(values=validation)).mark_line(color=BLUE, point=len(history) == 1)
    right = right.encode(x="epoch:Q", y=alt.Y("value:Q", title="validation NDCG@10, unfiltered"))
    return left.properties(width=WIDTH, height=HEIGHT) | right.properties(width=WIDTH, height=HEIGHT)


def by_popularity(rows: list[dict[str, Any]], cutoff: int, name: str) -> alt.LayerChart:
    """Bars: expected share of dropped interactions; line: test NDCG of targets in the bucket, on an axis of its own."""
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("bucket:O", title=HOTTEST))
    top = max(0.01, *(row["drop_ratio_expected"] for row in rows))  # a chart of zeros still needs an axis
    bars = base.mark_bar(color=BLUE, opacity=0.6).encode(
        y=alt.Y(
            "drop_ratio_expected:Q",
            title="expected drop ratio",
            axis=alt.Axis(titleColor=BLUE, format=".1%", grid=False),
            scale=alt.Scale(domain=[0, top]),
        )
    )
    metric = metric_name("ndcg", cutoff, "unfiltered")
    line = base.mark_line(color=ORANGE, point=alt.OverlayMarkDef(color=ORANGE)).encode(
        y=alt.Y(f"{metric}:Q", title=f"test NDCG@{cutoff}, unfiltered", axis=alt.Axis(titleColor=ORANGE, grid=False))
    )
    layers = alt.layer(bars, line).resolve_scale(y="independent")
    return layers.properties(width=WIDTH, height=HEIGHT, title=f"Popularity buckets with equal {read_as(name)}")


def noise_by_popularity(rows: list[dict[str, Any]], name: str) -> alt.LayerChart:
    """`noise_by` popularity bucket of the item."""
    return noise_by(alt.X("bucket:O", title=HOTTEST), rows, f"Known noise by popularity, equal {read_as(name)}")


def noise_by_length(rows: list[dict[str, Any]]) -> alt.LayerChart:
    """`noise_by` length of the training part of the history."""
    spans = [row | {"span": "-".join(str(end) for end in sorted({row["shortest"], row["longest"]}))} for row in rows]
    x = alt.X("span:O", title="length of the training history", sort=None)
    return noise_by(x, spans, "Known noise by length of history")


def noise_by(x: alt.X, rows: list[dict[str, Any]], title: str) -> alt.LayerChart:
    """Bars: training interactions; line: AUC of the drop score among them, chance dashed, on an axis of its own."""
    base = alt.Chart(alt.Data(values=rows)).encode(x=x)
    axis = alt.Axis(titleColor=BLUE, format="~s", grid=False)
    bars = base.mark_bar(color=BLUE, opacity=0.3).encode(y=alt.Y("rows:Q", title="training interactions", axis=axis))
    lowest = min(0.4, *(row["noise_auc"] for row in rows))
    area = alt.Y(
        "noise_auc:Q",
        title="AUC on known noise (0.5: chance)",
        axis=alt.Axis(titleColor=ORANGE, grid=False),
        scale=alt.Scale(domain=[lowest, 1], zero=False),
    )
    line = base.mark_line(color=ORANGE, point=alt.OverlayMarkDef(color=ORANGE)).encode(y=area)
    chance = (
        alt.Chart(alt.Data(values=[{"noise_auc": CHANCE}])).mark_rule(color=ORANGE, strokeDash=DASHES).encode(y=area)
    )
    layers = alt.layer(bars, alt.layer(line, chance)).resolve_scale(y="independent")
    return layers.properties(width=WIDTH, height=HEIGHT, title=title)


def calibration(rows: list[dict[str, Any]]) -> alt.LayerChart:
    """Share of noise against the mean drop probability of each bin; on the dashed diagonal they are the same."""
    top = max(max(row["predicted"], row["share"]) for row in rows) or 1.0
    x = alt.X("predicted:Q", title="predicted probability of noise", scale=alt.Scale(domain=[0, top]))
    y = alt.Y("share:Q", title="share of known noise", scale=alt.Scale(domain=[0, top]))
    bins = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y).mark_line(color=BLUE, point=alt.OverlayMarkDef(color=BLUE))
    ends = [{"predicted": end, "share": end} for end in (0, top)]
    same = alt.Chart(alt.Data(values=ends)).encode(x=x, y=y).mark_line(color="gray", strokeDash=DASHES)
    layers = alt.layer(same, bins).resolve_scale(x="shared", y="shared")
    return layers.properties(width=HEIGHT, height=HEIGHT, title="Is noise as frequent as predicted?")


def scores(rows: list[dict[str, Any]]) -> alt.Chart:
    """Shares of noise and of real interactions by score; what lies below 0 is dropped."""
    values = [{"score": row["score"], "kind": kind, "share": row[kind]} for row in rows for kind in KINDS]
    areas = alt.Chart(alt.Data(values=values)).mark_area(opacity=0.4, line=True, interpolate="step")
    areas = areas.encode(
        x=alt.X("score:Q", title="score (below 0: dropped)", scale=alt.Scale(zero=False, nice=False)),
        y=alt.Y("share:Q", title="share of the interactions of each kind", stack=None),
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=KINDS, range=[ORANGE, BLUE])),
    )
    return areas.properties(width=WIDTH, height=HEIGHT, title="Scores of known noise and of the rest")


def read_as(name: str) -> str:
    """The reading of "equal-frequency" in the name of a table of buckets."""
    return name.rsplit("_", 1)[1]
