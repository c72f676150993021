"""What methods drop and cost, as Markdown: overall, by popularity (the paper's Figure 1), of users (its Table 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from study.drops import OF_BUCKET, READINGS, Case
from study.results import Line
from study.table import PLAIN, Row, header, markdown, without_zero

TITLES = ("data set, backbone, method", "dropped", "expected", "AUC (at its place)", "by place", "minutes, GB")
NOTE = (
    "Dropped: by the deterministic rule; expected: of sampled masks. AUC: of the score, against known noise, and in "
    "brackets within like places of histories, where the place tells nothing. By place: Spearman's correlation of the "
    "score with the place in the history, the mean over users. Minutes and memory: of training and evaluation, on "
    "machines that may have been busy otherwise, a guide and no comparison."
)
OF_FIGURE = ("beauty", ("sasrec", PLAIN), ("none", "hsd", "steam", "iadsr", "cloze"))  # data set, backbones, methods
BUCKETS = ("hottest", "2", "3", "4", "coldest")
SHOWN = dict(zip(OF_BUCKET, ("dropped", "dropped, expected", "NDCG@5 U"), strict=True))


def drops_table(rows: Sequence[Row]) -> Iterator[str]:
    """Of rows whose lines say more than how accurate they are; nothing where none does."""
    known = [(row, lines) for row in rows if (lines := telling(row.lines.values()))]
    if not known:
        return
    yield from ("", *header(*TITLES))
    for row, lines in known:
        ratios = [mean(lines, name) for name in ("drop_ratio", "drop_ratio_expected")]
        plain = all(line["params"]["denoiser"] == PLAIN for line in lines)
        shares = [""] * 2 if plain else [f"{ratio:.1%}" for ratio in ratios if ratio is not None]
        areas = [mean(lines, name) for name in ("noise_auc", "noise_auc_at_place")]
        whole, placed = ("" if area is None else without_zero(area, 3) for area in areas)
        place = [line["place"] for line in lines if "place" in line]
        told = [f"{whole} ({placed})" if placed else whole, without_zero(np.mean(place), 2) if place else ""]
        yield markdown(", ".join(row[:3]), [*shares, *told, cost(lines)])
    yield from ("", NOTE)


def telling(lines: Any) -> list[Line]:
    """Those with what `study.drops` finds; older ones have none."""
    return [line for line in lines if "popularity" in line]


def mean(lines: Sequence[Line], name: str) -> float | None:
    """Of a metric, over the lines that have it."""
    found = [line["metrics"][name] for line in lines if name in line["metrics"]]
    return float(np.mean(found)) if found else None


def cost(lines: Sequence[Line]) -> str:
    """Means of what is known."""
    known = [(line["seconds"], line["memory_bytes"]) for line in lines if line["seconds"] and line["memory_bytes"]]
    if not known:
        return ""
    seconds, size = np.mean(known, axis=0)
    return f"{seconds / 60:.0f}, {size / 1e9:.1f}"


def popularity_table(rows: Sequence[Row]) -> Iterator[str]:
    """Figure 1 in both readings of its buckets; nothing where no row of OF_FIGURE was run."""
    found = of_figure(rows)
    for reading in READINGS if found else ():
        yield from ("", *header(f"{OF_FIGURE[0]}, buckets of equal {reading}", *BUCKETS))
        for row, lines in found:
            for name, shown in SHOWN.items():
                if has(row, name):
                    values = mean_of_buckets(lines, reading, name)
                    told = [f"{value:.1%}" if name.startswith("drop") else without_zero(value, 4) for value in values]
                    yield markdown(f"{row.method}: {shown}", told)
        yield from ("", "The paper's Figure 1: rows of histories by their item, targets by theirs; means over seeds.")


def mean_of_buckets(lines: Sequence[Line], reading: str, name: str) -> list[float]:
    """Over lines."""
    return np.mean([[bucket[name] for bucket in line["popularity"][reading]] for line in lines], 0).tolist()


def has(row: Row, name: str) -> bool:
    """Whether there is something to show: the plain backbone drops nothing."""
    return row.method != PLAIN or not name.startswith("drop")


def of_figure(rows: Sequence[Row]) -> list[tuple[Row, list[Line]]]:
    """The rows of the figure of which lines say enough, with these."""
    dataset, backbones, methods = OF_FIGURE
    own = [row for row in rows if row.dataset == dataset and row.backbone in backbones and row.method in methods]
    return [(row, lines) for row in own if (lines := telling(row.lines.values()))]


def cases_table(rows: Sequence[Row], cases: Sequence[Case]) -> Iterator[str]:
    """Table 5: of each user what the paper's method drops, what ours does, and what ours is least sure to keep."""
    told = []
    for case in cases:
        for row in rows:
            lines = [line for line in row.lines.values() if case.user in line.get("cases", {})]
            if lines and row.dataset == case.dataset and row.method != PLAIN:
                own = lines[0]["cases"][case.user]
                paper = named(case.dropped.get(row.method, []), own["titles"])
                dropped = named([place for place, kept in enumerate(own["kept"]) if not kept], own["titles"])
                kept = own["keep_probability"]
                lowest = [int(np.argmin(kept))] if min(kept) < max(kept) else []
                least = "".join(f"{named([at], own['titles'])} ({without_zero(kept[at], 2)})" for at in lowest)
                first = f"{case.user}, {row.backbone}, {row.method}"
                told.append(markdown(first, [paper if row.method in case.dropped else "", dropped, least]))
    if told:
        yield from ("", *header("user, backbone, method", "the paper drops", "ours drops", "least likely kept"), *told)
        yield from ("", "The paper's Table 5, by the deterministic rule; the first seed. Places count from 0.")


def named(places: Sequence[int], titles: Sequence[str]) -> str:
    """Places from 0, and how the titles there begin.

    >>> named([1, 0], ["a b c d", "e"]), named([], ["a"])
    ('1 e; 0 a b c', 'nothing')
    """
    return "; ".join(f"{place} {' '.join(titles[place].split()[:3])}" for place in places) or "nothing"
