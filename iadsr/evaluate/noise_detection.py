"""How well a denoiser finds interactions that are known to be noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


def detection_metrics(
    noise: Bool[np.ndarray, " judged"],
    score: Float[np.ndarray, " judged"],
    dropped: Bool[np.ndarray, " judged"],
    drop_probability: Float[np.ndarray, " judged"],
) -> dict[str, float]:
    """AUC of the drop score (-score), and precision and recall of three ways to drop.

    `noise_precision`, `noise_recall`: the deterministic rule. `..._expected`: sampled masks, in expectation.
    `noise_precision_at_share`: drop the lowest scores, as many as there is noise (then precision equals recall); of
    tied scores at the border a random part.
    Precision is 0 where nothing is dropped. What has no score counts only where decisions do. Empty without both noise
    and real interactions that have scores.
    """
    from sklearn.metrics import roc_auc_score

    scored = np.isfinite(score)
    if not 0 < noise[scored].sum() < scored.sum():
        return {}
    return {
        "noise_share": float(noise.mean()),
        "noise_auc": float(roc_auc_score(noise[scored], -score[scored])),
        "noise_precision": _share(noise @ dropped.astype(float), dropped.sum()),
        "noise_recall": _share(noise @ dropped.astype(float), noise.sum()),
        "noise_precision_expected": _share(noise @ drop_probability, drop_probability.sum()),
        "noise_recall_expected": _share(noise @ drop_probability, noise.sum()),
        "noise_precision_at_share": _precision_of_lowest(noise[scored], score[scored]),
    }


def detection_by_bucket(
    buckets: Int[np.ndarray, " judged"],
    noise: Bool[np.ndarray, " judged"],
    score: Float[np.ndarray, " judged"],
    dropped: Bool[np.ndarray, " judged"],
    drop_probability: Float[np.ndarray, " judged"],
) -> list[dict[str, Any]]:
    """`detection_metrics` within each popularity bucket that has both noise and real interactions."""
    table = []
    for bucket in np.unique(buckets):
        inside = buckets == bucket
        metrics = detection_metrics(noise[inside], score[inside], dropped[inside], drop_probability[inside])
        if metrics:
            table.append({"bucket": int(bucket), **metrics})
    return table


def _precision_of_lowest(noise: Bool[np.ndarray, " judged"], score: Float[np.ndarray, " judged"]) -> float:
    """Expected share of noise among the `noise.sum()` lowest scores, with ties at the border broken at random."""
    count = int(noise.sum())
    border = np.partition(score, count - 1)[count - 1]
    below, tied = score < border, score == border
    return float((noise[below].sum() + (count - below.sum()) * noise[tied].mean()) / count)


def _share(part: np.number, whole: np.number) -> float:
    return float(part / whole) if whole else 0.0
