"""Who judges whom, and how far the two views of a window agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_detectors import detector, random_texts
from small_models import ITEMS, WIDTH, batch_of
from torch import Tensor
from torch.nn import functional as F

from iadsr.device import pick_dtype
from iadsr.models.denoisers.cloze.detector import Detector
from iadsr.models.denoisers.cloze.signals import NAMES, signals_of

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = batch_of([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])  # users 1 to 4
STRANGERS = replace(BATCH, users=torch.zeros(4, dtype=torch.long))


def by_fold(judge: Detector, number: int) -> tuple[Tensor, ...]:
    """What one fold's model says of everybody."""
    signals = signals_of(judge.model(number), BATCH.items, judge.texts.float(), pick_dtype("auto", torch.device("cpu")))
    probability, parts = judge.weighing.noise_probability(signals), judge.weighing.parts(signals)
    return probability * BATCH.valid, judge.agreement(signals, BATCH.valid), parts * BATCH.valid[..., None]


def test_a_known_user_is_judged_by_the_model_of_his_fold() -> None:
    """Users 1 and 3 are in fold 0, users 2 and 4 in fold 1."""
    judge = detector()
    for found, first, second in zip(judge.judge(BATCH), by_fold(judge, 0), by_fold(judge, 1), strict=True):
        torch.testing.assert_close(found[::2], first[::2])
        torch.testing.assert_close(found[1::2], second[1::2])
        assert not torch.allclose(first[::2], second[::2])


@pytest.mark.parametrize("folds", [2, 3])
def test_a_stranger_is_judged_by_the_mean_of_all(folds: int) -> None:
    judge = detector(folds)
    expected = zip(*(by_fold(judge, number) for number in range(folds)), strict=True)
    for found, each in zip(judge.judge(STRANGERS), expected, strict=True):
        torch.testing.assert_close(found, torch.stack(each).mean(0))


def test_padding_is_no_noise() -> None:
    judge = detector()
    for batch in (BATCH, STRANGERS):
        probability = judge.judge(batch).noise
        assert not probability[~batch.valid].any() and (probability[batch.valid] > 0).all()


def agreement(behaviour: list[float], texts: list[float], real: int) -> float:
    """Of a window whose signals `gap` and `text` count as they are, and no other; the rest of it is padding."""
    judge = detector()
    judge.weighing.knots.copy_(torch.linspace(-9, 9, judge.weighing.knots.shape[1]).expand_as(judge.weighing.knots))
    judge.weighing.heights.zero_()
    signals = torch.zeros(1, len(texts), len(NAMES))
    for name, values in (("gap", behaviour), ("text", texts)):
        judge.weighing.heights[NAMES.index(name)] = judge.weighing.knots[0]
        signals[0, :, NAMES.index(name)] = torch.tensor(values)
    return judge.agreement(signals, (torch.arange(len(texts)) < real)[None]).item()


def test_agreement_by_hand() -> None:
    """With one more item, of which both say 1: (3, 4, 1) and (4, 3, 1) have 25 / 26, (1, 0, 1) and (0, 2, 1)
    1 / sqrt(10), (1, -2, 1) and (-2, 4, 1) -9 / sqrt(126); and views that say nothing agree."""
    assert agreement([3, 4], [4, 3], 2) == pytest.approx(25 / 26)
    assert agreement([1, 0], [0, 2], 2) == pytest.approx(10**-0.5)
    assert agreement([1, -2], [-2, 4], 2) == pytest.approx(-9 * 126**-0.5)
    assert agreement([0, 0], [0, 0], 2) == pytest.approx(1)
    assert agreement([3, 4, 7], [4, 3, -7], 2) == pytest.approx(25 / 26)


def test_agreement_is_never_less_than_the_lowest_theta(monkeypatch: pytest.MonkeyPatch) -> None:
    """At theta -1 everybody is denoised, also a stranger of whom ten models say -1, or a hair less, by rounding."""
    monkeypatch.setattr(Detector, "agreement", lambda self, signals, valid: torch.full((len(valid),), -1.0000001))
    for batch in (BATCH, STRANGERS):
        assert detector(10).judge(batch)[1].tolist() == [-1, -1, -1, -1]


def test_texts_are_centred_and_of_unit_length() -> None:
    """Item 4 has no text; the others' unit vectors less their mean, as unit vectors again."""
    judge, vectors = detector(), random_texts(seed=5) * torch.arange(1, ITEMS + 2)[:, None]
    vectors[4] = 0
    judge.read(vectors)
    known = [item for item in range(1, ITEMS + 1) if item != 4]
    units = F.normalize(vectors[known], dim=1)
    expected = torch.zeros(ITEMS + 1, WIDTH)
    expected[known] = F.normalize(units - units.mean(0), dim=1)
    torch.testing.assert_close(judge.texts.float(), expected, atol=1e-3, rtol=0)
