"""Items by popularity, and what happens to each kind: accuracy by target, drop ratio by history item (Figure 1)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from iadsr.models.ranking import Ranks, gains, hits, metric_name

Equal = Literal["interactions", "items"]


def popularity_buckets(counts: Int[np.ndarray, " items"], buckets: int, equal: Equal) -> Int[np.ndarray, " items"]:
    """Bucket of each item, 1 the hottest, from how often each occurs.

    Items are sorted by count (ties by index). Figure 1's "equal-frequency" has two readings: `interactions` cuts before
    the running count passes an equal share of all interactions, `items` gives every bucket as many items. The first
    item is always in bucket 1.

    >>> popularity_buckets(np.array([1, 6, 1, 2, 2]), 2, "interactions").tolist()
    [2, 1, 2, 2, 2]
    >>> popularity_buckets(np.array([1, 6, 1, 2]), 2, "items").tolist()
    [2, 1, 2, 1]
    """
    order = np.argsort(-counts, kind="stable")
    weights = counts[order] if equal == "interactions" else np.ones(len(counts), dtype=np.int64)
    running = np.cumsum(weights)
    result = np.empty(len(counts), dtype=np.int64)
    result[order] = np.maximum(1, -(-running * buckets // max(1, running[-1])))  # rounded up
    result[order[0]] = 1
    return result


def bucket_table(
    buckets: Int[np.ndarray, " items"],
    ranks: Ranks,
    items: Int[np.ndarray, " judged"],
    dropped: Bool[np.ndarray, " judged"],
    drop_probability: Float[np.ndarray, " judged"],
    k: int = 5,
) -> list[dict[str, Any]]:
    """One row a bucket: items, test users whose target is in it and their HR@k and NDCG@k, drop ratios of the judged.

    Shares of an empty bucket are 0.
    """
    of_target, of_judged = buckets[ranks.targets - 1], buckets[items - 1]
    return [
        {
            "bucket": int(bucket),
            "items": int((buckets == bucket).sum()),
            "test_users": int((of_target == bucket).sum()),
            metric_name("hr", k, "unfiltered"): _mean(hits(ranks.unfiltered, k)[of_target == bucket]),
            metric_name("ndcg", k, "unfiltered"): _mean(gains(ranks.unfiltered, k)[of_target == bucket]),
            metric_name("ndcg", k, "filtered"): _mean(gains(ranks.filtered, k)[of_target == bucket]),
            "judged": int((of_judged == bucket).sum()),
            "drop_ratio": _mean(dropped[of_judged == bucket]),
            "drop_ratio_expected": _mean(drop_probability[of_judged == bucket]),
        }
        for bucket in range(1, int(buckets.max()) + 1)
    ]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
