"""Recommendations from cleaned histories: by hand what they follow from, and which cells can be asked for."""

from __future__ import annotations

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
    own = {"inputs": "raw", "targets": "raw", "detector": detector_params().model_dump()}
    model = build(small_config("cloze", "gru4rec", **own))
    assert isinstance(model, Cloze)
    model.params = model.params.model_copy(update={"theta": -1.0})
    spread_out(model, 0.5).eval().detector.load_state_dict(detector().state_dict())
    histories = [[item % ITEMS + 1 for item in range(start, start + 6)] for start in range(8)]
    clean = model.clean_probability(batch_of(*histories))
    model.params = model.params.model_copy(update={"drop_above": 1 - float(clean.median())})
    left = [
        [item for item, keep in zip(history, own_clean >= clean.median(), strict=True) if keep] or history
        for history, own_clean in zip(histories, clean, strict=True)
    ]
    assert any(len(each) < 6 for each in left)
    expected = [Cloze.states(model, batch_of(each))[0] for each in left]
    model.__class__ = FromCleaned
    torch.testing.assert_close(model.states(batch_of(*histories)), torch.stack(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["planted-20/beauty/sasrec/none/0", "planted-20/beauty"])
def test_one_cell_with_a_detector_is_asked_for(name: str) -> None:
    with pytest.raises(UserError, match="name one cell of method cloze"):
        chosen(name)
