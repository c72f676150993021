"""What a log's verdicts follow from: whose window, which title is nearest, and that a named view moves the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_detectors import detector, detector_params
from small_models import ITEMS, LENGTH, WIDTH, batch_of, small_config, spread_out

from iadsr.models.assembly import build
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.denoisers.cloze.signals import NAMES, TEXT
from iadsr.serving import log_verdicts
from iadsr.serving.log_verdicts import (
    FEWEST,
    SIDES,
    TOO_SHORT,
    UNKNOWN,
    Log,
    ascending,
    in_blocks,
    judged,
    kept,
    likest,
    of_views,
    reasons_of,
    shares_that_fit_better,
    threshold_for,
)

pytestmark = pytest.mark.usefixtures("one_thread")
NAN = float("nan")


def cloze() -> Cloze:
    own: dict[str, Any] = {"inputs": "raw", "targets": "raw", "detector": detector_params().model_dump()}
    model = build(small_config("cloze", "gru4rec", **own))
    assert isinstance(model, Cloze)
    model.params = model.params.model_copy(update={"theta": -1.0})
    spread_out(model, 0.5).detector.load_state_dict(detector().state_dict())
    return model.eval()


def log(users: list[int], items: list[int], known_as: list[int], others: torch.Tensor | None = None) -> Log:
    return Log(
        np.array(users), np.array(items), np.array(known_as), torch.zeros(0, WIDTH) if others is None else others
    )


def test_rows_of_users_that_stand_between_each_other() -> None:
    """As each history alone; unknown items are none of it."""
    model, users, items = cloze(), [0, 1, 0, 1, 0, 1, 0, 0], [3, 5, 1, 8, 0, 2, 4, 9]
    found = judged(model, log(users, items, [0, 2]), LENGTH).noise
    for user, number in ((0, 0), (1, 2)):
        own = [row for row, each in enumerate(users) if each == user and items[row]]
        alone = judged(model, log([0] * len(own), [items[row] for row in own], [number]), LENGTH).noise
        np.testing.assert_allclose(found[own], alone, rtol=1e-5)
    assert np.isnan(found[4]) and not np.isnan(found[[0, 1]]).any()


def test_a_stranger_and_a_known_user_are_judged_by_others() -> None:
    found = [judged(cloze(), log([0] * 4, [3, 1, 4, 9], [number]), LENGTH).noise for number in (0, 1, 2)]
    np.testing.assert_allclose(found[0], (found[1] + found[2]) / 2, rtol=1e-5)
    assert not np.allclose(found[1], found[2])


def test_what_is_not_judged() -> None:
    users, items = [0] * (FEWEST - 1) + [1] * FEWEST + [2], [1, 2, 3, 4, 5, 0]
    entries, model = log(users, items, [0, 0, 0]), cloze()
    verdicts = judged(model, entries, LENGTH)
    keep = kept(verdicts.noise, 1.0)
    found = reasons_of(model, entries, verdicts, keep, ["title"] * ITEMS, LENGTH)
    assert keep.all() and found.tolist() == [TOO_SHORT, TOO_SHORT, "", "", "", UNKNOWN]
    assert np.isnan(judged(model, log([0], [0], [0]), LENGTH).noise).all()


@pytest.mark.parametrize("block", [1, 7, 25])
def test_users_are_judged_the_same_some_at_a_time(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 users whose rows stand among each other's; some have too few, some rows are of unknown items."""
    model, draw = cloze(), np.random.default_rng(2)
    entries = log(draw.integers(0, 12, 60).tolist(), draw.integers(0, ITEMS + 1, 60).tolist(), [0, 1, 2] * 4)
    whole = judged(model, entries, LENGTH)
    keep = kept(whole.noise, threshold_for(whole.noise, 0.3))
    reasons = reasons_of(model, entries, whole, keep, ["title"] * ITEMS, LENGTH)
    monkeypatch.setattr(log_verdicts, "BLOCK", block)
    in_parts = judged(model, entries, LENGTH)
    assert len(list(log_verdicts.in_blocks(entries))) > 1
    np.testing.assert_allclose(in_parts.noise, whole.noise, rtol=1e-5)
    np.testing.assert_allclose(in_parts.views, whole.views, rtol=1e-2)
    assert reasons_of(model, entries, whole, keep, ["title"] * ITEMS, LENGTH).tolist() == reasons.tolist()
    assert sum("; fits worse" in reason for reason in reasons) == (~keep).sum() > 3


def test_an_item_beyond_the_catalogue_is_judged_by_its_text() -> None:
    """As one of the catalogue that has the same text, no row of its own, and the bias of rare ones."""
    model = cloze()
    with torch.no_grad():
        for fold in range(2):
            model.detector.model(fold).own.weight[5] = 0
            model.detector.model(fold).bias.weight.fill_(0.3)
    within, beyond = (
        judged(model, log([0] * 4, [3, 1, item, 9], [0], model.detector.texts[5:6].float()), LENGTH).noise
        for item in (5, ITEMS + 1)
    )
    np.testing.assert_allclose(within, beyond, rtol=0.05)
    assert np.isfinite(beyond).all()


def test_the_named_view_moves_the_verdict() -> None:
    """With the view neutral that is named first, the probability of noise falls more than with the other neutral."""
    model, draw = cloze(), np.random.default_rng(0)
    entries = log(np.repeat(np.arange(30), 8).tolist(), draw.integers(1, ITEMS + 1, 240).tolist(), [0] * 30)
    (histories,) = in_blocks(entries)
    (batch,) = histories.batches(LENGTH)
    parts = model.examined(batch, entries.others)[1][batch.valid].float()
    weighing, of_text = model.detector.weighing, torch.tensor(np.isin(NAMES, TEXT))

    def noise(left: torch.Tensor) -> torch.Tensor:
        fit = (parts * left).sum(1)
        at = torch.searchsorted(weighing.points, fit.contiguous()).clamp(max=len(weighing.noise) - 1)
        return weighing.noise[at]

    without_text, without_behaviour = noise(~of_text), noise(of_text)
    text, behaviour = of_views(parts.numpy())
    named = torch.from_numpy(text < behaviour)
    assert named.any() and not named.all()
    assert (without_text <= without_behaviour)[named].all() and (without_behaviour <= without_text)[~named].all()


def test_the_named_side_speaks_against_the_item() -> None:
    """Judged beside it alone, as a history of its own, behaviour says less for the item than beside the other side.

    Users are known: another fold would say otherwise.
    """
    model, draw = cloze(), np.random.default_rng(1)
    items = draw.integers(1, ITEMS + 1, (20, 6))
    items[0] = [1, 1, 2, 3, 4, 5]  # before the second nothing else stands
    entries = log(np.repeat(np.arange(20), 6).tolist(), items.flatten().tolist(), [1, 2] * 10)
    verdicts = judged(model, entries, LENGTH)
    reasons = reasons_of(model, entries, verdicts, kept(verdicts.noise, -1.0), ["title"] * ITEMS, LENGTH)
    seen = [0, 0]
    for row in range(len(reasons)):
        history, place, user = items[row // 6].tolist(), row % 6, [1, 2][row // 6 % 2]
        parts = (history[: place + 1], place), (history[place:], 0)
        if any(set(part) == {history[place]} for part, _ in parts):
            assert not any(side in reasons[row] for side in SIDES)
        elif any(named := [side in reasons[row] for side in SIDES]):
            batches = [replace(batch_of(part), users=torch.tensor([user])) for part, _ in parts]
            found = [of_views(model.detector.judge(each, entries.others).parts.numpy())[1] for each in batches]
            fits = [float(fit[0, at]) for fit, (_, at) in zip(found, parts, strict=True)]
            assert named == [fits[0] < fits[1], fits[1] < fits[0]]
            seen[named.index(True)] += 1
    assert min(seen) > 5


def test_nearest_kept_titles_by_hand() -> None:
    """Of [1, 2, 3, 2] the last is dropped: its like are 3, then 1; not itself, nor 2, which is kept but is the same."""
    texts = torch.tensor([[0.0, 0], [0, 1], [1, 0], [0.6, 0.8]])
    items, dropped = torch.tensor([[1, 2, 3, 2]]), torch.tensor([[False, True, False, True]])
    assert likest(items, dropped, ~dropped, texts) == [(3, 1), (3, 1)]


def test_how_unusual_a_row_is() -> None:
    found = shares_that_fit_better(ascending(np.array([0.5, NAN, 0.1, 0.9, 0.1])), np.array([0.5, 0.1, 0.9]))
    assert found.tolist() == [0.5, 0, 0.75]


@pytest.mark.parametrize(("budget", "dropped"), [(0.0, 0), (0.25, 1), (0.5, 2), (0.74, 2), (1.0, 3)])
def test_thresholds_of_budgets(budget: float, dropped: int) -> None:
    """What is equal to the threshold is kept, so that of a budget of all one is kept."""
    noise = np.array([0.5, NAN, 0.1, 0.9, 0.2])
    assert (noise > threshold_for(noise, budget)).sum() == dropped
    assert threshold_for(np.array([NAN]), 0.5) == 1
