"""Verdicts on a whole data set: from which window each row is judged, and what no verdict may have seen."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import (
    DIM,
    ITEMS,
    iadsr,
    plain,
    random_histories,
    sequences_of,
    small_backbone,
    write_means,
)
from torch import Tensor

from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.recommender import Recommender, Verdicts
from iadsr.models.verdicts import insertions, judge_all, training_rows
from iadsr.sequences.text_vectors import PrefixVectors
from iadsr.sequences.windows import Batch, Feed

pytestmark = pytest.mark.usefixtures("one_thread")
HISTORIES = random_histories(7, 12)
LIMIT = 4


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    sequences = sequences_of(*HISTORIES)
    return Feed(sequences, write_means(tmp_path, sequences, LIMIT))


def trained(**changes: Any) -> IADSR:
    model = iadsr("gru4rec", **changes)
    model.eval()
    return model


def alone(model: IADSR, feed: Feed, rows: list[int]) -> Verdicts:
    """The verdicts of one window, by itself."""
    assert isinstance(feed.vectors, PrefixVectors)
    index = torch.tensor([rows])
    items = feed.sequences.items[index]
    with torch.no_grad():
        return model.judge(
            Batch(index, items, torch.zeros_like(items), torch.ones(1, dtype=torch.long), feed.vectors.rows(index))
        )


def test_each_row_is_judged_from_its_own_window(feed: Feed) -> None:
    """Training rows from the end of their tile, tiles of 4 laid from the end; the validation row from itself.

    A history of 8 training rows is judged as rows 4-7 and 0-3, one of 6 as rows 2-5 and 0-1.
    """
    model = trained()
    verdicts = judge_all(model, feed, LIMIT, batch_size=3)
    begin = 0
    for history in HISTORIES:
        end = begin + len(history) - 2
        stop = end
        while stop > begin:
            rows = list(range(max(begin, stop - LIMIT), stop))
            compare(verdicts, rows, alone(model, feed, rows), slice(None))
            stop -= LIMIT
        rows = list(range(max(begin, end + 1 - LIMIT), end + 1))
        compare(verdicts, [end], alone(model, feed, rows), slice(len(rows) - 1, None))
        test_row = begin + len(history) - 1
        assert verdicts.kept[test_row]
        assert all(getattr(verdicts, f.name)[test_row].isnan() for f in fields(Verdicts) if f.name != "kept")
        begin += len(history)
    assert 0 < (~verdicts.kept).sum() < len(verdicts.kept)


def compare(verdicts: Verdicts, rows: list[int], own: Verdicts, places: slice) -> None:
    for entry in fields(Verdicts):
        torch.testing.assert_close(getattr(verdicts, entry.name)[rows], getattr(own, entry.name)[0, places])


def test_one_user_with_three_items(tmp_path: Path) -> None:
    sequences = sequences_of([1, 2, ITEMS])
    verdicts = judge_all(trained(), Feed(sequences, write_means(tmp_path, sequences)), LIMIT)
    assert verdicts.score.isfinite().tolist() == [True, True, False]


def test_no_verdict_has_seen_what_is_predicted_after_it(feed: Feed, tmp_path: Path) -> None:
    """Other test items leave all verdicts, other validation items those on training rows, as they were."""
    model, ends = trained(), feed.sequences.offsets[1:]
    expected, training = judge_all(model, feed, LIMIT), training_rows(feed)
    for back in (1, 2):
        items = feed.sequences.items.clone()
        items[ends - back] = items[ends - back] % ITEMS + 1
        changed = replace(feed.sequences, items=items)
        found = judge_all(model, Feed(changed, write_means(tmp_path / str(back), changed, LIMIT)), LIMIT)
        same = torch.ones_like(training) if back == 1 else training
        torch.testing.assert_close(found.score[same], expected.score[same], equal_nan=True)
        assert torch.equal(found.kept[same], expected.kept[same])
    assert not torch.equal(
        found.score[~training & ~expected.score.isnan()], expected.score[~training & ~expected.score.isnan()]
    )


def test_order_of_batches_does_not_matter(feed: Feed) -> None:
    one, other = (judge_all(trained(), feed, LIMIT, batch_size=size) for size in (1, 512))
    torch.testing.assert_close(one.score, other.score, equal_nan=True)


def test_a_plain_recommender_keeps_everything(feed: Feed) -> None:
    verdicts = judge_all(plain("gru4rec"), Feed(feed.sequences), LIMIT)
    test_rows = feed.sequences.offsets[1:] - 1
    assert verdicts.kept.all() and verdicts.score.isnan().all()
    assert verdicts.probability[test_rows].isnan().all() and verdicts.probability.nansum() == len(verdicts.kept) - 7


def test_without_masks_everything_is_kept_but_scored(feed: Feed) -> None:
    verdicts = judge_all(trained(masks="none"), feed, LIMIT)
    assert verdicts.kept.all() and (verdicts.score < 0).any() and verdicts.probability.nanmean() == 1


def test_training_rows_by_hand() -> None:
    """All but each user's last two."""
    feed = Feed(sequences_of([1, 2, 3, 4], [5, 6, 7]))
    assert training_rows(feed).tolist() == [True, True, False, False, True, False, False]


class Copying(Recommender):
    """Inserts the window's first and last item before each item, and so shows what it has seen."""

    def insertions(self, batch: Batch) -> Tensor:
        ends = torch.stack([batch.items[:, 0], batch.items[batch.newest]], 1)
        return ends[:, None] * batch.valid[..., None]


@pytest.mark.parametrize("size", [1, 512])
def test_insertions_by_hand(size: int) -> None:
    """Windows of 2: training rows (1), (2, 3) and (5), validation from (3, 4) and (5, 6); nothing before test rows."""
    feed = Feed(sequences_of([1, 2, 3, 4, 12], [5, 6, 7]))
    found = insertions(Copying(ITEMS, DIM, small_backbone("gru4rec")), feed, 2, size)
    assert found is not None
    assert found.tolist() == [[1, 1], [2, 3], [2, 3], [3, 4], [0, 0], [5, 5], [5, 6], [0, 0]]


@pytest.mark.parametrize("back", [1, 2])
def test_insertions_have_seen_nothing_that_is_predicted_after_them(feed: Feed, back: int) -> None:
    """Other test items leave all, other validation items those before training rows, as they were."""
    model, training = Copying(ITEMS, DIM, small_backbone("gru4rec")), training_rows(feed)
    items = feed.sequences.items.clone()
    ends = feed.sequences.offsets[1:] - back
    items[ends] = items[ends] % ITEMS + 1
    found = [
        insertions(model, Feed(replace(feed.sequences, items=each)), LIMIT) for each in (feed.sequences.items, items)
    ]
    assert found[0] is not None and found[1] is not None
    same = torch.ones_like(training) if back == 1 else training
    assert torch.equal(found[0][same], found[1][same])
    assert torch.equal(found[0], found[1]) == (back == 1)


def test_most_models_insert_nothing(feed: Feed) -> None:
    assert insertions(trained(), feed, LIMIT) is None
