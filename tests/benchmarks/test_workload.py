"""What batches hold, prefixes one a row, and generated data."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import workload
from benchmarks.multiply_adds import Load
from benchmarks.prepared import parameters
from iadsr.schemas import TRAIN
from iadsr.sequences.windows import Feed, Sequences, training_windows

# users 0 and 1 with 5 and 4 interactions, of which the last two are held out
SEQUENCES = Sequences(torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9]), torch.tensor([0, 5, 9]))


def small(**changes: Any) -> dict[str, Any]:
    """Parameters of a run of seconds."""
    chosen = {"train.dim": 8, "train.threads": 1, "train.batch_size": 4, "dataset": "beauty", "denoiser": "none"}
    return parameters({**chosen, **changes}, ["backbones.gru4rec.hidden=8"])


def test_a_batch_counted_by_hand() -> None:
    """Histories 1 2 3 and 6 7 in rows of 3 places: 5 tokens, 3 targets, 6 + 3 pairs; (5 - 2)^2 + 2^2 contrasts."""
    feed = workload.CountingFeed(SEQUENCES)
    windows = workload.Windows(torch.tensor([0, 5]), torch.tensor([3, 2]), torch.tensor([3, 7]))
    feed.batch(windows)
    assert feed.total() == Load(windows=2, places=6, grouped=6, rows=128, tokens=5, pairs=9, examples=3, contrasts=13)


def test_every_prefix_is_a_row_with_one_target() -> None:
    """Training rows 1 2 3 and 6 7, windows of 2: 1 -> 2, 1 2 -> 3, 6 -> 7; what is held out is no target."""
    batch = workload.newest_targets(Feed(SEQUENCES).batch(workload.every_prefix(SEQUENCES, 2)))
    assert batch.items.tolist() == [[1, 0], [1, 2], [6, 0]]
    assert batch.targets.tolist() == [[2, 0], [0, 3], [7, 0]]


def test_long_prefixes_keep_their_newest_items() -> None:
    """A history of 6 (4 to train on) with windows of 2: the third example is 2 3 -> 4."""
    sequences = Sequences(torch.tensor([1, 2, 3, 4, 5, 6]), torch.tensor([0, 6]))
    assert Feed(sequences).batch(workload.every_prefix(sequences, 2)).items.tolist() == [[1, 0], [1, 2], [2, 3]]


def test_generated_data_has_the_lengths_of_beauty() -> None:
    """Beauty: shortest 5, median 6, mean 8.9, 90% up to 14. The same seed gives the same data."""
    sequences = workload.synthetic(5000, 300)
    lengths = sequences.offsets.diff()
    assert int(lengths.min()) == 5 and int(lengths.median()) == 6 and 8.3 < lengths.double().mean() < 9.5
    assert int(sequences.items.min()) >= 1 and int(sequences.items.max()) <= 300
    assert torch.equal(sequences.items, workload.synthetic(5000, 300).items)
    assert not torch.equal(sequences.items, workload.synthetic(5000, 300, seed=1).items)


def test_first_users_are_whole() -> None:
    part = workload.first_users(SEQUENCES, 1)
    assert part.items.tolist() == [1, 2, 3, 4, 5] and part.users == 1 and part.history_ends(TRAIN).tolist() == [3]


@pytest.mark.parametrize(
    ("some", "users"), [(None, [1, 2, 3, 4, 5]), (2, [1, 3]), (3, [1, 2, 4]), (9, [1, 2, 3, 4, 5])]
)
def test_some_users_stand_all_over_the_data(some: int | None, users: list[int]) -> None:
    """Of five users, two are every 2.5th: 0 and 2, counted from 1 in batches; nine are all."""
    sequences = Sequences(torch.arange(1, 26), torch.arange(0, 26, 5))
    feed = workload.PartFeed(sequences, some=some)
    windows = training_windows(sequences, 3, torch.Generator(), "newest")
    batches = feed.shuffled(windows, 2, torch.Generator())
    assert sorted(torch.cat([batch.users for batch in batches]).tolist()) == users


def test_growth_extrapolates_what_does_not_fit() -> None:
    """With no time at all only the pilot's 8 batches of 4 users are timed, of 64: half. With enough, all are."""
    (point,) = workload.growth_point(small(), 64, 50, limit=1e-9)
    assert point["training"]["measured_share"] == point["ranking"]["measured_share"] == 0.5
    (point,) = workload.growth_point(small(), 64, 50, limit=600.0)
    assert point["training"]["measured_share"] == 1.0
    sequences = workload.synthetic(64, 50)
    assert point["interactions"] == len(sequences.items)
    assert point["load"].examples == len(sequences.items) - 3 * 64
