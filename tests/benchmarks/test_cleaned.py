"""Recommendations from cleaned histories: by hand what they follow from, and which cells can be asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_detectors import detector, detector_params
from small_models import ITEMS, batch_of, small_config, spread_out

from benchmarks.cleaned import FromCleaned, chosen
from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.denoisers.cloze.model import Cloze

pytestmark = pytest.mark.usefixtures("one_thread")


def test_states_are_those_of_what_is_left() -> None:
    """Each history as if what is dropped had never been there; one of which nothing is left as it is."""
    own: dict[str, Any] = {"inputs": "raw", "targets": "raw", "detector": detector_params().model_dump()}
    model = build(small_config("cloze", "gru4rec", **own))
    assert isinstance(model, Cloze)
    model.params = model.params.model_copy(update={"theta": -1.0})
    spread_out(model, 0.5).eval().detector.load_state_dict(detector().state_dict())
    histories = [[item % ITEMS + 1 for item in range(start, start + 2 + start % 5)] for start in range(12)]
    batch = batch_of(*histories)
    clean = [row[: len(history)] for row, history in zip(model.clean_probability(batch), histories, strict=True)]
    lowest = min(float(each.max()) for each in clean) + 1e-4  # at which one history loses everything
    model.params = model.params.model_copy(update={"drop_above": 1 - lowest})
    kept = [
        [item for item, worth in zip(history, each.tolist(), strict=True) if worth >= lowest]
        for history, each in zip(histories, clean, strict=True)
    ]
    lengths = [len(each) for each in kept]
    assert 0 in lengths and any(0 < left < len(history) for left, history in zip(lengths, histories, strict=True))
    expected = [
        Cloze.states(model, batch_of(each or history))[0] for each, history in zip(kept, histories, strict=True)
    ]
    model.__class__ = FromCleaned
    torch.testing.assert_close(model.states(batch), torch.stack(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["planted-20/beauty/sasrec/none/0", "planted-20/beauty"])
def test_one_cell_with_a_detector_is_asked_for(name: str) -> None:
    with pytest.raises(UserError, match="name one cell of method cloze"):
        chosen(name)
