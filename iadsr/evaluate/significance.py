"""Is one model better than another, or is it chance? Paired over users, since hard users are hard for both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats


def paired_p(first: Float[np.ndarray, " users"], second: Float[np.ndarray, " users"]) -> float:
    """The two-sided p-value of a paired t-test of each user's metric under two models; 1 if all are equal.

    With several seeds a user's metric is the mean over them.
    """
    if np.array_equal(first, second):
        return 1.0
    return float(stats.ttest_rel(first, second).pvalue)


def paired_interval(
    first: Float[np.ndarray, " users"], second: Float[np.ndarray, " users"], confidence: float = 0.95
) -> tuple[float, float]:
    """The confidence interval of the mean difference, first less second, of each user's metric (t distribution)."""
    if np.array_equal(first, second):
        return 0.0, 0.0
    low, high = stats.ttest_rel(first, second).confidence_interval(confidence)
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the same order (Holm 1979).

    The k-th smallest of n is multiplied by n - k + 1, and none is less than a smaller one has become.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    corrected = np.maximum.accumulate(np.minimum(1, np.asarray(p_values, dtype=float)[order] * factors))
    found = np.empty(len(order))
    found[order] = corrected
    return [float(value) for value in found]
