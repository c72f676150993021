"""`python -m benchmarks.ratings`: does the detector see dislike? Its score on rows that were rated low and high.

Nothing is planted. An AUC of .5 is chance; of `popularity` it is that of the item's count, rare items counting as
disliked, and `like_popularity` compares rows whose items are about as popular.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet

from benchmarks import machine, options
from benchmarks.noise import judged, planting
from benchmarks.prepared import parameters, prepared, shared_detectors
from iadsr.errors import UserError
from iadsr.evaluate.noise_detection import Judged, detection_by, drop_score_auc, stratified_auc
from iadsr.evaluate.report import item_counts
from iadsr.models.verdicts import training_rows
from iadsr.schemas import RATING
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
LOW, HIGH = 2, 4  # up to, from
STRATA = 20  # of rows, by the counts of their items


@app.command(epilog="Example: python -m benchmarks.ratings --dataset ml-100k --json")
@reports_errors
def main(
    dataset: options.Dataset = "ml-100k",
    seed: options.PlantingSeed = 0,
    changes: options.Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the detector, and compare its scores of rows rated 1 or 2 with those of rows rated 4 or 5."""
    content = parameters({"dataset": dataset, "denoiser": "cloze", **planting("none", 0.0, seed)}, changes or [])
    result = {"dataset": dataset, "seed": seed, **measured(content)}
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def measured(content: dict[str, Any]) -> dict[str, Any]:
    """AUC of low ratings, over training rows; UserError where the data set has no ratings."""
    table = pyarrow.parquet.read_table(prepared(content) / paths.SEQUENCES)
    if RATING not in table.column_names:
        raise UserError(f"--dataset {content['dataset']}: its interactions have no ratings; ml-100k has some")
    training, verdicts, _ = judged(content, shared_detectors())
    ratings, items = table[RATING].to_numpy(), training.sequences.items.numpy()
    rows = training_rows(training.feed).numpy() & ((ratings <= LOW) | (ratings >= HIGH))
    counts = item_counts(training.sequences)[items - 1][rows]
    low, score = ratings[rows] <= LOW, verdicts.score.numpy()[rows]
    return {
        "low": int(low.sum()),
        "high": int((~low).sum()),
        **areas(low, score, counts),
        **machine.described(training.device),
    }


def areas(low: np.ndarray, score: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """AUC of the score over all, among items of like count, and of the count itself, all as of finding `low`."""
    found = of(low, score)
    strata = np.searchsorted(np.quantile(counts, np.linspace(0, 1, STRATA + 1)[1:-1]), counts)
    return {
        "auc": round(drop_score_auc(found), 4),
        "like_popularity": round(stratified_auc(detection_by("stratum", strata, found), "auc")["auc"], 4),
        "popularity": round(drop_score_auc(of(low, counts.astype(float))), 4),
    }


def of(low: np.ndarray, score: np.ndarray) -> Judged:
    return Judged(low, score, np.zeros(len(low), dtype=bool), np.zeros(len(low)))


if __name__ == "__main__":
    app()
