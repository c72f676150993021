"""Pictures of a run, drawn without network: training curves, and accuracy and drop ratio by popularity (Figure 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt

from iadsr.models.ranking import metric_name
from iadsr.train.history import STOPPING_METRIC

WIDTH, HEIGHT = 420, 260
BLUE, ORANGE = "#4c78a8", "#e45756"


def draw_plots(folder: Path, history: list[dict[str, float]], tables: dict[str, Any], cutoff: int) -> None:
    """Write training.png and one picture for each reading of equal-frequency buckets into `folder`."""
    training_curves(history).save(folder / "training.png", scale_factor=2)
    for name, rows in tables.items():
        if name.startswith("buckets_"):
            by_popularity(rows, cutoff, name).save(folder / f"{name}.png", scale_factor=2)


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
    base = alt.Chart(alt.Data(values=rows)).encode(x=alt.X("bucket:O", title="item popularity (1 hottest)"))
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
    title = f"Popularity buckets with equal {name.rsplit('_', 1)[1]}"
    return alt.layer(bars, line).resolve_scale(y="independent").properties(width=WIDTH, height=HEIGHT, title=title)
