"""A plain backbone that leaves out interactions at random, against histories without them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import EVERY_BACKBONE, batch_of, small_config, spread_out
from torch import Tensor

from iadsr.models.assembly import build
from iadsr.models.denoisers.plain import Plain
from iadsr.models.recommender import Recommender

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2, 7], [6, 8])
BATCH = batch_of(*WINDOWS)
DRAWN = torch.tensor([[0.5, 0.1, 0.9, 0.2, 0.3, 0.0], [0.0, 0.2, 0.3, 0.0, 0.0, 0.0], [0.1, 0.1, 0.0, 0.0, 0.0, 0.0]])
LEFT = ([3, 4, 1, 5], [2, 7])  # where less than .2 is left out; of the last window nothing is


def plain(random_drop: float, backbone: str = "gru4rec") -> Plain:
    model = build(small_config("none", backbone, random_drop=random_drop))
    assert isinstance(model, Plain)
    return spread_out(model, 0.5).eval()


def drawing(monkeypatch: pytest.MonkeyPatch, drawn: Tensor) -> None:
    def rand(*shape: int, **_: Any) -> Tensor:
        assert shape == drawn.shape
        return drawn

    monkeypatch.setattr(torch, "rand", rand)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_what_is_random_drop_was_never_there(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain(0.2, backbone)
    expected = Recommender.loss(model, batch_of(*LEFT))["ce"]
    drawing(monkeypatch, DRAWN)
    torch.testing.assert_close(model.loss(BATCH)["ce"], expected)


def test_a_target_after_the_window_is_random_drop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile in the middle of a history the last target is the next tile's first item."""
    batch = batch_of([3, 1, 4])
    batch.targets[0, 2] = 5
    whole, tile = plain(0.2), batch_of([3, 1, 4])
    expected = Recommender.loss(whole, tile)["ce"]
    drawing(monkeypatch, torch.tensor([[0.9, 0.9, 0.9, 0.1]]))
    torch.testing.assert_close(whole.loss(batch)["ce"], expected)


def test_by_default_nothing_is_random_drop() -> None:
    model = plain(0.0)
    before = torch.get_rng_state()
    assert torch.equal(model.loss(BATCH)["ce"], Recommender.loss(model, BATCH)["ce"])
    assert torch.equal(torch.get_rng_state(), before)
    assert Plain.params_type.model_validate({}).model_dump() == {"random_drop": 0.0}


def test_others_are_random_drop_each_time() -> None:
    model = plain(0.5)
    torch.manual_seed(1)
    first, second = (model.loss(BATCH)["ce"].item() for _ in range(2))
    torch.manual_seed(1)
    assert model.loss(BATCH)["ce"].item() == first != second
