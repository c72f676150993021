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


@pytest.mark.parametrize("threads", [1, 3])
def test_one_thread_for_each_part(threads: int) -> None:
    """Every part is done once, on one thread; the number of threads is what it was; an error comes through."""
    torch.set_num_threads(threads)
    done: list[tuple[int, int]] = []
    device.one_thread_each(lambda part: done.append((part, torch.get_num_threads())), range(20), torch.device("cpu"))
    assert sorted(done) == [(part, 1) for part in range(20)]
    assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError):
        device.one_thread_each(lambda part: 1 // part, range(3), torch.device("cpu"))
    assert torch.get_num_threads() == threads
