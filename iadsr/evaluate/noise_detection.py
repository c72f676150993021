"""How well a denoiser finds interactions that are known to be noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from iadsr.evaluate.calibration import calibration_error, reliability

EXACT_LENGTHS = 20  # histories up to here are compared with those of the same length; doubling bins follow
BINS = 40  # of scores
TAIL = 0.001  # share of the scores at either end that may lie far out


@dataclass(frozen=True)
class Judged:
    """Interactions of which it is known whether they are noise, and what a denoiser says of them."""

    noise: Bool[np.ndarray, " judged"]
    score: Float[np.ndarray, " judged"]  # low where it looks like noise; NaN where the denoiser has none
    dropped: Bool[np.ndarray, " judged"]  # the deterministic decision
    drop_probability: Float[np.ndarray, " judged"]  # of a sampled decision; read as the probability that it is noise

    def __getitem__(self, rows: np.ndarray) -> Judged:
        return Judged(self.noise[rows], self.score[rows], self.dropped[rows], self.drop_probability[rows])

    @property
    def scored(self) -> Judged:
        """Those that have a score."""
        return self[np.isfinite(self.score)]

    @property
    def pairs(self) -> int:
        """Pairs of a noise and a real interaction."""
        return int(self.noise.sum()) * int((~self.noise).sum())


def detection_metrics(judged: Judged) -> dict[str, float]:
    """How the drop score (-score) ranks noise, how right three ways to drop are, and what the probabilities are worth.

    `noise_auc`, `noise_average_precision`: of the drop score, as `sklearn.metrics` has them.
    `noise_precision`, `noise_recall`: the deterministic rule. `..._expected`: sampled masks, in expectation.
    `noise_precision_at_share`: drop the lowest scores, as many as there is noise (then precision equals recall); of
    tied scores at the border a random part.
    `noise_rate_estimated`: mean drop probability, beside the true `noise_share`; `noise_calibration_error`: how far
    drop probabilities are from the share of noise, in 15 bins.
    Precision is 0 where nothing is dropped. What has no score counts where decisions and probabilities do. Empty
    without both noise and real interactions that have scores.
    """
    scored, noise, dropped = judged.scored, judged.noise, judged.dropped.astype(float)
    if not scored.pairs:
        return {}
    expected = judged.drop_probability
    return {
        "noise_share": float(noise.mean()),
        "noise_rate_estimated": float(expected.mean()),
        "noise_auc": drop_score_auc(scored),
        "noise_average_precision": average_precision(scored),
        "noise_precision": _share(noise @ dropped, dropped.sum()),
        "noise_recall": _share(noise @ dropped, noise.sum()),
        "noise_precision_expected": _share(noise @ expected, expected.sum()),
        "noise_recall_expected": _share(noise @ expected, noise.sum()),
        "noise_precision_at_share": _precision_of_lowest(scored.noise, scored.score),
        "noise_calibration_error": calibration_error(reliability(noise, expected)),
    }


def drop_score_auc(scored: Judged) -> float:
    """Probability that a random noise row scores below a random real one, ties counting half; both must be there."""
    noise, real = np.sort(scored.score[scored.noise]), np.sort(scored.score[~scored.noise])
    not_above = np.searchsorted(real, noise, "left") + np.searchsorted(real, noise, "right")  # ties once, others twice
    return float(1 - not_above.sum() / (2 * scored.pairs))


def average_precision(scored: Judged) -> float:
    """Mean over noise rows of the share of noise among all rows that score no higher; noise must be there."""
    noise, real = np.sort(scored.score[scored.noise]), np.sort(scored.score[~scored.noise])
    found, wrong = np.searchsorted(noise, noise, "right"), np.searchsorted(real, noise, "right")
    return float((found / (found + wrong)).mean())


def detection_by(group: str, values: Int[np.ndarray, " judged"], judged: Judged) -> list[dict[str, Any]]:
    """`detection_metrics` for each value, named in column `group`, that has both noise and real interactions.

    Also how many `rows` it has, and of how many `pairs` of a noise and a real row, both with scores, the AUC tells.
    """
    table = []
    for value in np.unique(values):
        inside = judged[values == value]
        if metrics := detection_metrics(inside):
            counts = {"rows": len(inside.noise), "pairs": inside.scored.pairs}
            table.append({group: int(value), **counts, **metrics})
    return table


def detection_by_length(lengths: Int[np.ndarray, " judged"], judged: Judged) -> list[dict[str, Any]]:
    """`detection_by` strata of like history length, each from `shortest` to `longest`."""
    table = detection_by("longest", longest_alike(lengths), judged)
    return [{"shortest": _shortest_alike(row["longest"]), **row} for row in table]


def longest_alike(lengths: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """The longest history that is of like length: up to 20 only the same length, then bins up to 40, 80, 160, ...

    >>> longest_alike(np.array([1, 20, 21, 40, 41])).tolist()
    [1, 20, 40, 40, 80]
    """
    ends = np.concatenate([np.arange(EXACT_LENGTHS), EXACT_LENGTHS * 2 ** np.arange(40)])
    return ends[np.searchsorted(ends, lengths)]


def _shortest_alike(longest: int) -> int:
    return longest if longest <= EXACT_LENGTHS else longest // 2 + 1


def stratified_auc(table: list[dict[str, Any]], name: str = "noise_auc_stratified") -> dict[str, float]:
    """Probability that a random noise row scores below a random real one of its own stratum, ties counting half.

    The mean of the AUC of a table's strata, each weighted by its pairs: telling strata apart gains nothing. Empty
    without strata.
    """
    if not table:
        return {}
    areas, pairs = ([row[column] for row in table] for column in ("noise_auc", "pairs"))
    return {name: float(np.average(areas, weights=pairs))}


def others_alike(items: Int[np.ndarray, " rows"], noise: Bool[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """How many other rows are real ones of the same item: noise is not known by its own row, so real rows neither.

    >>> others_alike(np.array([7, 7, 7, 5]), np.array([False, False, True, False])).tolist()
    [1, 1, 2, 0]
    """
    return np.bincount(items[~noise], minlength=int(items.max(initial=0)) + 1)[items] - ~noise


def cold_auc(counts: Int[np.ndarray, " judged"], judged: Judged) -> dict[str, float]:
    """AUC among the fifth of rows with the smallest counts; empty without both noise and real rows there.

    Rows that tie with the last of the fifth are in it, too.
    """
    if not len(counts):
        return {}
    last = (len(counts) - 1) // 5
    cold = judged[counts <= np.partition(counts, last)[last]].scored
    return {"noise_auc_cold": drop_score_auc(cold)} if cold.pairs else {}


def score_distribution(judged: Judged) -> list[dict[str, Any]]:
    """Shares of noise and of real rows whose score lies in each of 40 bins of equal width; scores must be there.

    The bins leave out 0.1% of the scores at either end, which count in the first and the last bin.
    """
    noise, score = judged.scored.noise, judged.scored.score.astype(np.float64)
    low, high = np.quantile(score, (TAIL, 1 - TAIL), method="nearest")
    shares = {}
    for kind, rows in (("noise", noise), ("real", ~noise)):
        counts, edges = np.histogram(np.clip(score[rows], low, high), BINS, (low, high))
        shares[kind] = counts / counts.sum()
    return [
        {"score": float(middle), "noise": float(of_noise), "real": float(of_real)}
        for middle, of_noise, of_real in zip((edges[:-1] + edges[1:]) / 2, *shares.values(), strict=True)
    ]


def _precision_of_lowest(noise: Bool[np.ndarray, " judged"], score: Float[np.ndarray, " judged"]) -> float:
    """Expected share of noise among the `noise.sum()` lowest scores, with ties at the border broken at random."""
    count = int(noise.sum())
    border = np.partition(score, count - 1)[count - 1]
    below, tied = score < border, score == border
    return float((noise[below].sum() + (count - below.sum()) * noise[tied].mean()) / count)


def _share(part: np.number, whole: np.number) -> float:
    return float(part / whole) if whole else 0.0
