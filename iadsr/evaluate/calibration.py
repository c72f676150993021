"""Whether predicted probabilities are what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

BINS = 15


def reliability(
    happened: Bool[np.ndarray, " rows"], probability: Float[np.ndarray, " rows"], bins: int = BINS
) -> list[dict[str, Any]]:
    """Mean predicted probability and true share of what happened, in bins of equal count by that probability.

    Tied rows stay together, in the lowest bin that any of them falls into, so that the order of rows decides nothing;
    bins that this leaves empty are left out.

    >>> reliability(np.array([False, True, True]), np.array([0.25, 0.25, 0.5]), 3)[0]
    {'bin': 1, 'predicted': 0.25, 'share': 0.5, 'rows': 2}
    """
    last = (np.arange(1, bins + 1) * len(happened) - 1) // bins  # place of each bin's highest
    highest = np.partition(probability, np.unique(last))[last]
    bin_of = np.searchsorted(highest, probability)
    rows, predicted, share = (np.bincount(bin_of, weights, bins) for weights in (None, probability, happened))
    return [
        {
            "bin": int(number + 1),
            "predicted": float(predicted[number] / rows[number]),
            "share": float(share[number] / rows[number]),
            "rows": int(rows[number]),
        }
        for number in np.flatnonzero(rows)
    ]


def calibration_error(table: list[dict[str, Any]]) -> float:
    """Expected calibration error: mean over rows of how far their bin's prediction is from its share.

    Guo et al. 2017, Eq. 3, with bins of equal count (Nixon et al. 2019).
    """
    gaps = [abs(row["predicted"] - row["share"]) for row in table]
    return float(np.average(gaps, weights=[row["rows"] for row in table]))
