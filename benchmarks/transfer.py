"""What finds planted noise of one kind: which kinds to learn from, which signals.

The gap models are the same in all rows; only what weighs their signals differs. `truth` is a ceiling: the weights are
fitted to the planted rows themselves, those of other users.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iadsr.device import pick_dtype
from iadsr.errors import UserError
from iadsr.evaluate.noise_detection import Judged, cold_auc, drop_score_auc, others_alike
from iadsr.models.denoisers.cloze.detector import Detector
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.denoisers.cloze.signals import NAMES, signals_of
from iadsr.models.denoisers.cloze.weighing import Weighing
from iadsr.models.verdicts import training_batches, training_rows
from iadsr.sequences.windows import Feed
from iadsr.train.detector import Examples, examples_of, together
from iadsr.train.run import Training
from iadsr.train.source import Source, as_it_is, of_users, read_categories
from iadsr.train.weighing import fit_weighing

Rows = tuple[Tensor, Tensor]  # signals, and the number of the kind as which each row was planted; -1: real


def compared(training: Training, kind: str, kinds: Sequence[str]) -> dict[str, Any]:
    """AUC, and that among the coldest fifth of the rows, of every way to learn and of each signal's absence.

    `kind` is what was planted, `kinds` are those that the trained detector of `training` may plant itself; examples are
    drawn anew, so that `others` differs a little from what the detector learnt. UserError where there are no others.
    """
    model = training.model
    assert isinstance(model, Cloze)
    model.detector.params = model.detector.params.model_copy(update={"kinds": list(kinds)})
    source = Source(as_it_is(training.sequences).histories, read_categories(training.files.items))
    examples = examples_of_all(model.detector, source)
    found, offered = Found(model.detector, training.feed), list(examples.planted)
    sets = {**{name: [name] for name in offered}, "others": [name for name in offered if name != kind], "all": offered}
    if not sets["others"]:
        raise UserError("--details: what other kinds teach is asked for, and there are none to learn from")
    learnt: dict[str, Rows] = {name: examples.numbered(those) for name, those in sets.items()}
    return {
        "learnt_from": {**{name: found.by(rows) for name, rows in learnt.items()}, "truth": found.by_truth()},
        "signals": {
            name: {"alone": found.alone(place), "without": found.by(learnt["others"], without=place)}
            for place, name in enumerate(NAMES)
        },
    }


def examples_of_all(detector: Detector, source: Source) -> Examples:
    """Rows of users of every fold, as training draws them."""
    folds, found = detector.fold_of_user[1:].cpu().numpy(), []
    for number in range(detector.params.folds):
        fold = of_users(source.histories, np.flatnonzero(folds == number))
        found.append(examples_of(detector, number, fold, source.categories))
    return together(found)


class Found:
    """The signals of all training rows, of which it is known whether they are noise."""

    def __init__(self, detector: Detector, feed: Feed) -> None:
        assert feed.sequences.noise is not None
        rows, items = training_rows(feed).nonzero().flatten().cpu(), feed.sequences.items.cpu().numpy()
        self.signals = signals_by_row(detector, feed)[rows]
        self.noise = feed.sequences.noise.cpu()[rows]
        users = torch.searchsorted(feed.sequences.offsets.cpu(), rows, right=True)
        self.folds = detector.fold_of_user.cpu()[users]
        self.others = others_alike(items[rows.numpy()], self.noise.numpy())

    def by(self, learnt: Rows, without: int | None = None) -> dict[str, float]:
        """What weights say that were learnt from these rows, from all signals but one."""
        signals, kinds = learnt
        used = [place for place in range(len(NAMES)) if place != without]
        weighing = Weighing(len(used))
        fit_weighing(weighing, signals[:, used], kinds)
        return self.areas(weighing.parts(self.signals[:, used]).sum(1))

    def by_truth(self) -> dict[str, float]:
        """What weights say that were learnt from the truth, for each fold from that of all others."""
        fits = torch.empty(len(self.noise))
        for fold in self.folds.unique():
            own, weighing = self.folds == fold, Weighing(len(NAMES))
            fit_weighing(weighing, self.signals[~own], self.noise[~own].long() - 1)
            fits[own] = weighing.parts(self.signals[own]).sum(1)
        return self.areas(fits)

    def alone(self, place: int) -> dict[str, float]:
        return self.areas(self.signals[:, place])

    def areas(self, fits: Tensor) -> dict[str, float]:
        score, noise = fits.double().numpy(), self.noise.numpy()
        judged = Judged(noise, score, np.zeros(len(score), dtype=bool), np.zeros(len(score)))
        cold = {name.removeprefix("noise_"): value for name, value in cold_auc(self.others, judged).items()}
        found = {"auc": drop_score_auc(judged), **{name: cold[name] for name in ("auc_cold",) if name in cold}}
        return {name: round(value, 4) for name, value in found.items()}


def signals_by_row(detector: Detector, feed: Feed) -> Tensor:
    """Of every training row, from the model of its user's fold."""
    dtype, texts = pick_dtype("auto", detector.texts.device), detector.texts.float()
    found = torch.zeros(len(feed.sequences.items), len(NAMES))
    for batch in training_batches(feed, detector.max_length):
        folds = detector.fold_of_user[batch.users]
        for fold in folds.unique().tolist():
            asked = folds == fold
            real = batch.valid[asked]
            signals = signals_of(detector.model(fold), batch.items[asked], texts, dtype)
            found[batch.rows[asked][real].cpu()] = signals[real].cpu()
    return found
