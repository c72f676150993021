"""Training of the detector: who is trained on whom, what it cannot know, kills, seeds, and noise that it plants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small_detectors import counted, detector_params, random_texts
from small_models import ITEMS, LENGTH, WIDTH, random_histories, sequences_of

from iadsr.errors import UserError
from iadsr.models.denoisers.cloze.detector import Detector, DetectorParams
from iadsr.sequences.noise_kinds import Plants, TrainingHistories
from iadsr.train import detector as training
from iadsr.train.detector import (
    drawn,
    examples_of,
    pace_at,
    planted,
    popularity,
    signals_with,
    together,
    train_detector,
)
from iadsr.train.source import Source, as_it_is, of_users

pytestmark = pytest.mark.usefixtures("one_thread")
HISTORIES = random_histories(24, 8)
NO_CATEGORIES = np.full(ITEMS + 1, -1)
NO_PLANTS = Plants(*(np.array([], dtype=np.int64),) * 3)
PARAMS = detector_params()


def source(histories: list[list[int]] | None = None) -> Source:
    return Source(as_it_is(sequences_of(*(histories or HISTORIES))).histories, NO_CATEGORIES)


def fresh(params: DetectorParams = PARAMS, users: int = len(HISTORIES)) -> Detector:
    torch.manual_seed(0)
    found = Detector(users, ITEMS, WIDTH, LENGTH, params)
    found.read(random_texts())
    return found


def trained(work: Path, histories: list[list[int]] | None = None, **changes: Any) -> Detector:
    found = fresh(detector_params(**changes))
    train_detector(found, source(histories), work)
    return found


def lists(histories: TrainingHistories) -> list[list[int]]:
    return [part.tolist() for part in np.split(histories.items, histories.offsets[1:-1])]


class Killed(Exception):
    """Stands for the end of the process."""


def dying(function: Any, at: int) -> Any:
    """The function, but that its call of this number, from 0, is the end."""
    calls = iter(range(at + 1))

    def replacement(*arguments: Any) -> Any:
        if next(calls) == at:
            raise Killed
        return function(*arguments)

    return replacement


# --- what it is trained on ---


@pytest.mark.parametrize("folds", [2, 3])
def test_no_model_has_seen_the_users_whom_it_judges(
    folds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen the training histories of all others, and folds are as even as can be."""
    seen: list[list[list[int]]] = []
    monkeypatch.setattr(training, "fit_gap_model", lambda model, histories, *_: seen.append(lists(histories)))
    found = trained(tmp_path, folds=folds)
    fold_of = found.fold_of_user[1:].tolist()
    for number, own in enumerate(seen):
        assert own == [HISTORIES[user][:-2] for user, fold in enumerate(fold_of) if fold != number]
    assert len(seen) == folds and set(np.bincount(fold_of)) == {len(HISTORIES) // folds}
    assert found.fold_of_user[0] == -1


def test_held_out_items_change_nothing(tmp_path: Path) -> None:
    """Other validation and test items give the same detector, to the last bit."""
    others = [[*history[:-2], history[-2] % ITEMS + 1, history[-1] % ITEMS + 1] for history in HISTORIES]
    assert max(map(max, others)) == ITEMS
    found = [
        save(trained(tmp_path / str(n), histories=each).state_dict()) for n, each in enumerate((HISTORIES, others))
    ]
    assert found[0] == found[1]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever torch has drawn before, and another seed gives others."""
    found = [save(trained(tmp_path / str(n), seed=seed).state_dict()) for n, seed in enumerate((3, 3, 4))]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("what", ["fit_gap_model", "save", "examples_of"])
@pytest.mark.parametrize("after", [0, 1])
def test_killed_anywhere_it_ends_the_same(
    what: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fold's training, before or after it is written, another process goes on with the folds that are left."""
    whole = save(trained(tmp_path / "whole").state_dict())
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(training, what, dying(getattr(training, what), after))
        trained(tmp_path / "killed")
    torch.manual_seed(99)  # a new process has drawn other numbers
    fits: list[int] = []
    monkeypatch.setattr(training, "fit_gap_model", counted(training.fit_gap_model, fits))
    assert save(trained(tmp_path / "killed").state_dict()) == whole
    assert len(fits) == 2 - after - (what == "examples_of")


def test_a_trained_detector_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = save(trained(tmp_path).state_dict())
    monkeypatch.setattr(training, "gap_model", lambda *_: pytest.fail("trained again"))
    assert save(trained(tmp_path).state_dict()) == expected


def test_every_part_is_trained(tmp_path: Path) -> None:
    """Tables, rates and knots are no longer those of a fresh detector; signals of noise are worth something."""
    found, before = trained(tmp_path), fresh().state_dict()
    same = {name for name, value in found.state_dict().items() if torch.equal(value, before[name])}
    assert same == {"texts", "centre"}
    assert 0 <= found.weighing.rate <= 1 and (found.weighing.noise.diff() <= 0).all()


def test_weights_that_become_infinite_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"denoisers\.cloze\.detector\.learning_rate: .* lower it"):
        trained(tmp_path, learning_rate=1e38)


def test_a_fold_needs_a_user(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"denoisers\.cloze\.detector\.folds: 25, but there are 24 users; lower it"):
        trained(tmp_path, folds=25)


# --- how a gap model is trained ---


def test_popularity_by_hand() -> None:
    """Items 1, 2, 3 stand in 0, 3 and 1 rows: 1/7, 4/7 and 2/7; padding is no item."""
    shares, logarithms = popularity(torch.tensor([2, 3, 2, 2]), 4)
    assert shares.tolist() == logarithms.exp().tolist() == pytest.approx([0, 1 / 7, 4 / 7, 2 / 7])


def test_how_often_negatives_are_drawn() -> None:
    """Half evenly from 3 items, half in proportion to 1/7, 4/7 and 2/7: each as often as it says, and never padding."""
    popular, generator = popularity(torch.tensor([2, 3, 2, 2]), 4), torch.Generator().manual_seed(0)
    items, expected, evenly = drawn(popular, 20000, generator)
    counts, once = torch.bincount(items, minlength=4)[1:], torch.zeros(4)
    once[items] = expected
    assert once[1:].exp().tolist() == pytest.approx([20000 * (1 / 6 + share / 14) for share in (1, 4, 2)], rel=1e-5)
    assert counts.tolist() == pytest.approx(once[1:].exp().tolist(), rel=0.05)
    assert evenly == 10000 and torch.bincount(items[:evenly])[1:].tolist() == pytest.approx([10000 / 3] * 3, rel=0.05)


def test_the_pace_rises_and_falls() -> None:
    assert [pace_at(share) for share in (0.0, 0.025, 0.05, 0.525, 1.0)] == pytest.approx([0, 0.5, 1, 0.5, 0])


# --- noise that it plants ---


def examples(*kinds: str) -> training.Examples:
    return examples_of(fresh(detector_params(kinds=list(kinds))), 0, source().histories, NO_CATEGORIES)


def test_kinds_that_cannot_be_planted_are_skipped() -> None:
    """No item has a category, and 12 items are too few for a user's best 100."""
    assert list(examples("near_miss", "boundary", "uniform").planted) == ["uniform"]


def test_no_kind_that_can_be_planted_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"denoisers\.cloze\.detector\.kinds: none of these kinds"):
        trained(tmp_path, kinds=["near_miss", "boundary"])


def test_what_the_weighing_learns_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real rows of both folds, then those of each kind, known by its number."""
    seen: list[Any] = []
    monkeypatch.setattr(training, "fit_weighing", lambda _, *rows: seen.extend(rows))
    found, kinds = trained(tmp_path), ("uniform", "popularity")
    folds = found.fold_of_user[1:].numpy()
    parts = [
        examples_of(found, number, of_users(source().histories, np.flatnonzero(folds == number)), NO_CATEGORIES)
        for number in range(2)
    ]
    signals, numbers = seen
    of_kinds = [[part.real for part in parts], *([part.planted[kind] for part in parts] for kind in kinds)]
    assert torch.equal(signals, torch.cat([each for kind in of_kinds for each in kind]))
    assert numbers.tolist() == [place - 1 for place, kind in enumerate(of_kinds) for each in kind for _ in each]


def test_a_kind_that_one_fold_offers_counts() -> None:
    one, two, three = torch.zeros(1, 2), torch.ones(1, 2), torch.full((1, 2), 2.0)
    found = together([training.Examples(one, {"burst": two}), training.Examples(three, {})])
    assert torch.equal(found.real, torch.cat([one, three])) and torch.equal(found.planted["burst"], two)


def test_how_much_is_planted() -> None:
    """A fifth of all rows, for each kind, and all real rows once."""
    found, rows = examples("uniform", "popularity"), len(source().histories.items)
    assert len(found.real) == rows
    for rows_of_kind in found.planted.values():
        assert len(rows_of_kind) == pytest.approx(0.2 * rows, rel=0.1) and rows_of_kind.isfinite().all()


def test_real_rows_are_judged_where_nothing_is_planted() -> None:
    """Their signals are those of the histories as they are."""
    judge = fresh(detector_params(kinds=["uniform"])).eval()
    found = examples_of(judge, 0, source().histories, NO_CATEGORIES)
    assert torch.equal(found.real, signals_with(judge, 0, source().histories, NO_PLANTS, of_plants=False))


def test_bursts_come_from_others_who_get_none() -> None:
    """25 histories without a common item: 20 get runs, which the 5 others had in a row."""
    apart = TrainingHistories(np.arange(1, 101), np.arange(0, 101, 4), 100)
    plants = planted(apart, "burst", np.full(101, -1), np.random.default_rng(0))
    assert plants is not None
    histories, (_, _, items) = plants
    assert len(histories.offsets) == 21 and len(items) == 5 * 4
    assert not set(items.tolist()) & set(histories.items.tolist())


def test_plants_stand_where_they_were_planted() -> None:
    """[1, 2] and [3] get 7 before all, 8 between, 9 at the end, and 5 before 3: [7, 1, 8, 2, 9] and [5, 3].

    Their signals are those of these histories, shortest first.
    """
    judge, real = fresh().eval(), TrainingHistories(np.array([1, 2, 3]), np.array([0, 2, 3]), ITEMS)
    plants = Plants(np.array([0, 0, 0, 1]), np.array([0, 1, 2, 0]), np.array([7, 8, 9, 5]))
    whole = TrainingHistories(np.array([7, 1, 8, 2, 9, 5, 3]), np.array([0, 5, 7]), ITEMS)
    expected, flags = signals_with(judge, 0, whole, NO_PLANTS, of_plants=False), torch.tensor([1, 0, 1, 0, 1, 0, 1]) > 0
    torch.testing.assert_close(signals_with(judge, 0, real, plants, of_plants=True), expected[flags])
    torch.testing.assert_close(signals_with(judge, 0, real, plants, of_plants=False), expected[~flags])
