"""Accuracy on some of the test items alone, as Markdown: on items that are rare, and on those that were liked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.gain import NAMES
from iadsr.evaluate.report import COLD, LIKED, OF_COLD, OF_LIKED
from study.table import TITLES, Row, header, markdown, spread_of

SOME = {
    OF_COLD: ("cold", f"Cold: test items with fewer than {COLD} training interactions"),
    OF_LIKED: ("liked", f"Liked: test items that their user rated {LIKED} or higher; training has all ratings"),
}


def targets_tables(rows: Sequence[Row]) -> Iterator[str]:
    """A table for each kind of items of which lines tell; nothing where none does."""
    for some, (title, note) in SOME.items():
        known = [(row, found) for row in rows if (found := values(row, some))]
        if known:
            yield from ("", *header(f"{title}: data set, backbone, method", "test items (seeds)", *TITLES[2:]))
            for row, found in known:
                counts = found.pop(f"{some}_targets")
                size = f"{np.mean(counts):,.0f} ({len(counts)})"
                yield markdown(", ".join(row[:3]), [size, *(spread_of(each, 4) for each in found.values())])
            yield from ("", f"{note}; mean ± sample deviation over seeds, not tested.")


def values(row: Row, some: str) -> dict[str, list[float]]:
    """By metric, those of the seeds whose lines tell; nothing where none does."""
    names = [f"{some}_targets", *(f"{some}_{name}" for name in NAMES)]
    lines = [line["metrics"] for line in row.lines.values() if all(name in line["metrics"] for name in names)]
    return {name: [line[name] for line in lines] for name in names} if lines else {}
