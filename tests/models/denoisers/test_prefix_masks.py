"""Prefixes each under its own mask, against prefixes encoded one by one; and how few are encoded again."""

from __future__ import annotations

import pytest
import torch
from small_models import EVERY_BACKBONE, alone, batch_of, plain
from torch import Tensor

from iadsr.models.denoisers import prefix_masks
from iadsr.models.denoisers.prefix_masks import states_under_prefix_masks
from iadsr.models.recommender import Recommender
from iadsr.sequences.windows import Batch

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)


def random_masks(batch: Batch, seed: int = 0, keep: float = 0.6) -> Tensor:
    """keep[window, p, t]; items after p and padding are kept, as MaskTable gives them."""
    drawn = torch.rand(*batch.items.shape, batch.items.shape[1], generator=torch.Generator().manual_seed(seed)) < keep
    time = torch.arange(batch.items.shape[1])
    seen = (time[None, :] <= time[:, None]) & batch.valid[:, :, None] & batch.valid[:, None, :]
    return drawn | ~seen


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
@pytest.mark.parametrize(("expanded", "keep"), [(4096, 0.6), (3, 0.6), (1, 0.9), (4096, 0.0), (4096, 1.0)])
def test_prefixes_under_their_masks_equal_prefixes_alone(
    backbone: str, expanded: int, keep: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where few are encoded at once, where everything and where nothing is dropped."""
    monkeypatch.setattr(prefix_masks, "EXPANDED", expanded)
    model, masks = plain(backbone).eval(), random_masks(BATCH, keep=keep)
    states = states_under_prefix_masks(model, BATCH, masks)
    for window, items in enumerate(WINDOWS):
        for p in range(len(items)):
            expected = alone(model, items[: p + 1], masks[window, p, : p + 1])
            torch.testing.assert_close(states[window, p], expected)


def encoded(
    model: Recommender, masks: Tensor, monkeypatch: pytest.MonkeyPatch, batch: Batch = BATCH
) -> list[tuple[int, ...]]:
    """The shapes that the backbone is asked to encode for prefixes under `masks`."""
    shapes: list[tuple[int, ...]] = []

    def remember(items: Tensor, *rest: Tensor | None) -> Tensor:
        shapes.append(tuple(items.shape))
        return Recommender.prefix_states(model, items, *rest)

    monkeypatch.setattr(model, "prefix_states", remember)
    states_under_prefix_masks(model, batch, masks)
    return shapes


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_prefixes_whose_masks_agree_are_encoded_in_one_pass(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Item 1 dropped by every prefix that holds it, or by none: one sequence a window, whatever is dropped."""
    masks = torch.ones(4, 5, 5, dtype=torch.bool)
    masks[:, :, 1] = False
    assert encoded(plain(backbone), masks, monkeypatch) == [(4, 5)]
    assert encoded(plain(backbone), torch.ones_like(masks), monkeypatch) == [(4, 5)]


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_prefixes_that_say_otherwise_are_encoded_again(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first window prefixes 3 and 4 drop item 2, which 2 keeps: most drop it, so prefix 2 is encoded again.

    Caser, with a window of 3, needs all of its items; what prefix 4 says of item 0 alone comes too late for it.
    """
    masks = torch.ones(4, 5, 5, dtype=torch.bool)
    masks[0, 3:, 2] = False
    assert encoded(plain(backbone), masks, monkeypatch) == [(4, 5), (1, 3)]
    masks[0, 3:, 2], masks[0, 4, 0] = True, False
    assert encoded(plain(backbone), masks, monkeypatch) == [(4, 5), *([] if backbone == "caser" else [(1, 5)])]


@pytest.mark.parametrize(("dropped", "shapes"), [([(3, 2)], [(1, 3)]), ([(4, 1)], []), ([(3, 1), (4, 2)], [(2, 3)])])
def test_runs_of_a_finite_reach(dropped: list[tuple[int, int]], shapes: list[tuple[int, int]]) -> None:
    """Caser's window of 3 over five items: prefix 3 sees items 1 to 3, so one verdict on item 2 is a run of these; what

    prefix 4 says of item 1 is none. Prefixes 3 and 4 that are odd for different items are two runs."""
    model, batch = plain("caser"), batch_of([3, 1, 4, 1, 5])
    masks = torch.ones(1, 5, 5, dtype=torch.bool)
    for place in dropped:
        masks[0][place] = False
    with pytest.MonkeyPatch.context() as patch:
        assert encoded(model, masks, patch, batch) == [(1, 5), *shapes]


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_odd_prefixes_that_agree_are_one_run(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the four prefixes that hold item 2 the last two drop it: at a tie it stays, and these two are one sequence.

    Caser's window begins with item 2 for the last of them, and with item 1 for the first.
    """
    batch, masks = batch_of([3, 1, 4, 1, 5, 9]), torch.ones(1, 6, 6, dtype=torch.bool)
    masks[0, 4:, 2] = False
    again = encoded(plain(backbone), masks, monkeypatch, batch)[1:]
    assert again == ([(1, 3)] if backbone == "caser" else [(1, 6)])


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_prefixes_under_their_masks_have_the_gradient_of_prefixes_alone(backbone: str) -> None:
    model, masks = plain(backbone), random_masks(BATCH)
    states = states_under_prefix_masks(model, BATCH, masks)
    (found,) = torch.autograd.grad(states[BATCH.valid].square().sum(), model.items.weight)
    total = sum(
        alone(model, items[: p + 1], masks[window, p, : p + 1]).square().sum()
        for window, items in enumerate(WINDOWS)
        for p in range(len(items))
    )
    (expected,) = torch.autograd.grad(total, model.items.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
