"""Two recommenders that learn nothing: their matrices by hand and against regressions, and both on a tiny demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_detectors import TINY, asked_for, random_texts, without_encoding
from small_models import batch_of, random_histories, sequences_of
from typer.testing import CliRunner

from benchmarks import controls, prepared
from benchmarks.controls import ItemToItem, cooccurrence, following, like_titles, linear_model, shares, transitions
from iadsr.models.ranking import rank_targets
from iadsr.schemas import TEST
from iadsr.sequences.windows import Feed

pytestmark = pytest.mark.usefixtures("one_thread")


def test_shares_of_what_came_next_by_hand() -> None:
    """After item 1 came item 2 twice and item 3 once, one of four being kept back; users end histories."""
    users, items = np.array([0, 0, 0, 0, 1, 1]), np.array([1, 2, 1, 3, 1, 2])
    counts = following(users, items, 4)
    assert counts.toarray()[1].tolist() == [0, 0, 2, 1] and counts.toarray()[3].tolist() == [0] * 4
    assert shares(counts).toarray()[1].tolist() == [0, 0, 0.5, 0.25]


def test_an_item_that_follows_itself_is_no_transition() -> None:
    assert not following(np.array([0, 0]), np.array([2, 2]), 3).count_nonzero()


def test_titles_that_are_alike() -> None:
    """Weights fall with the fourth power of the cosine, sum to 1, and are no item's own; padding has none."""
    texts = random_texts()
    found, cosines = like_titles(texts).toarray(), (texts @ texts.T).clamp(min=0).fill_diagonal_(0) ** 4
    expected = cosines / cosines.sum(1, keepdim=True).clamp(min=1e-9)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


def test_the_linear_model_is_a_ridge_regression_of_each_item_on_all_others() -> None:
    held = (torch.rand(40, 6, generator=torch.Generator().manual_seed(0)) < 0.4).double()
    found = linear_model(held.T @ held, 2.0)
    for item in range(6):
        others = [other for other in range(6) if other != item]
        given = held[:, others]
        expected = torch.linalg.solve(given.T @ given + 2.0 * torch.eye(5), given.T @ held[:, item])
        torch.testing.assert_close(found[others, item], expected)
    assert not found.diagonal().any()


def test_scores_are_sums_over_the_history() -> None:
    """Of [2, 1, 3] with a decay of a half: rows 3, 1 and 2 count 1, 1/2 and 1/4; row 2 does not if but two do."""
    matrix, batch = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)), batch_of([2, 1, 3], [1])
    for reach, expected in ((0, matrix[3] + matrix[1] / 2 + matrix[2] / 4), (2, matrix[3] + matrix[1] / 2)):
        model = ItemToItem(matrix, reach, 0.5)
        found = model.scores(model.states(batch), model.item_table(), batch.items)
        torch.testing.assert_close(found, torch.stack([expected, matrix[1]])[:, 1:])


def test_held_out_items_change_nothing() -> None:
    """Neither matrix sees validation or test items."""
    texts = random_texts()
    one, other = (sequences_of(*([*history, *held] for history in random_histories(9, 6))) for held in ([1, 2], [7, 8]))
    for ways in (cooccurrence, lambda sequences: transitions(sequences, texts)):
        for (_, first), (_, second) in zip(ways(one), ways(other), strict=True):
            assert torch.equal(first.matrix, second.matrix)


def test_a_matrix_that_knows_what_comes_next() -> None:
    """Everybody goes round: what followed before ranks first."""
    feed = Feed(sequences_of(*([(start + n) % 8 + 1 for n in range(7)] for start in range(8))))
    users, items = np.repeat(np.arange(8), 7), feed.sequences.items.numpy()
    matrix = torch.from_numpy(shares(following(users, items, 9)).toarray()).float()
    assert rank_targets(ItemToItem(matrix, 1, 1.0), feed, TEST, 5).unfiltered.tolist() == [1] * 8


def test_both_on_a_tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))
    result = CliRunner().invoke(controls.app, [*asked_for(TINY), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    for control in ("transitions", "cooccurrence"):
        assert 0 < found[control]["test_hr_10_unfiltered"] <= found[control]["test_hr_10_filtered"] < 1
