"""How many threads compute: what was asked for, or what is fastest; and what was set before stays."""

from __future__ import annotations

import pytest
import torch

from iadsr import device

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [({4: 1.0, 2: 2.0, 1: 4.0}, 4), ({4: 9.0, 2: 8.0, 1: 4.0}, 1), ({4: 3.0, 2: 2.0, 1: 4.0}, 2)],
)
def test_the_fastest_number_of_threads(
    seconds: dict[int, float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four processors, tried with 4, 2 and 1 threads; the choice changes nothing by itself."""
    torch.set_num_threads(4)
    monkeypatch.setattr(device, "_piece_of_work", lambda: seconds[torch.get_num_threads()])
    assert device.fastest_threads() == expected
    assert torch.get_num_threads() == 4


def test_the_choice_is_quick_and_possible() -> None:
    torch.set_num_threads(2)
    assert device.fastest_threads() in (1, 2)
    assert 0 < device._piece_of_work() < 60
