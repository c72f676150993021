"""An item without a single training interaction is recommended by its text where the table is held to texts, and else
not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Bool
from small_models import ITEMS, LENGTH, USERS, WIDTH, sequences_of, small_config, train_params
from torch import Tensor

from iadsr.models.assembly import build
from iadsr.models.recommender import Recommender
from iadsr.schemas import TEST
from iadsr.sequences.windows import Feed, history_windows
from iadsr.train.fit import fit

pytestmark = pytest.mark.usefixtures("one_thread")
SORTS = [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]
COLD = 11, 12  # of the first sort and of the second, by their texts; held-out targets and nothing else


@pytest.mark.parametrize(
    ("item_start", "item_decay", "by_text"), [("text", 10.0, True), ("text", 0.0, False), ("random", 10.0, False)]
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cold_item_is_known_by_its_text_alone(
    item_start: str, item_decay: float, by_text: bool, seed: int, tmp_path: Path
) -> None:
    """Users of a sort have the cold item of their sort before that of the other, all of them."""
    model = build(small_config("none", "sasrec", seed=seed))
    if item_start == "text":
        model.start_from(texts())
    params = train_params(item_start=item_start, item_decay=item_decay, max_epochs=30, patience=30)
    list(fit(model, feed(), params, LENGTH, seed, tmp_path / "checkpoint"))
    assert right_ones_first(model).all() == by_text


def feed() -> Feed:
    """Users of the two sorts, one after the other, who have met nothing else."""
    draw = np.random.default_rng(0)
    histories = [draw.choice(SORTS[user % 2], 9).tolist() for user in range(USERS)]
    for history, item in zip(histories, COLD, strict=False):
        history[-1] = item
    return Feed(sequences_of(*histories))


def texts() -> Tensor:
    """One number tells the sorts apart; the others say nothing."""
    vectors = 0.3 * torch.from_numpy(np.random.default_rng(1).normal(size=(ITEMS + 1, WIDTH))).float()
    vectors[[0, *COLD]] = 0
    for sort, cold, side in zip(SORTS, COLD, (1.0, -1.0), strict=True):
        vectors[[*sort, cold], 0] += side
    return vectors


@torch.no_grad()
def right_ones_first(model: Recommender) -> Bool[Tensor, " users"]:
    own = feed()
    batch = own.batch(history_windows(own.sequences, TEST, LENGTH))
    scores = model.scores(model.states(batch), model.item_table()[1:], batch.items)
    first = scores[:, COLD[0] - 1] > scores[:, COLD[1] - 1]
    return first == (torch.arange(USERS) % 2 == 0)
