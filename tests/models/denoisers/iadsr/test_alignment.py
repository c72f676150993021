"""InfoNCE against double loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers.iadsr.alignment import alignment_loss, info_nce

pytestmark = pytest.mark.usefixtures("one_thread")


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def literal(anchors: Tensor, positives: Tensor, temperature: float) -> float:
    """Eq. 9 and 10 as printed."""
    total, count = 0.0, len(anchors)
    for i in range(count):
        above = math.exp(torch.cosine_similarity(anchors[i], positives[i], dim=0).item() / temperature)
        below = sum(
            math.exp(torch.cosine_similarity(anchors[i], positives[j], dim=0).item() / temperature)
            for j in range(count)
        )
        total -= math.log(above / below)
    return total / count


def test_by_hand() -> None:
    """Two orthogonal pairs: cosine 1 with the own positive, 0 with the other: -ln(e / (e + 1)) at temperature 1."""
    pairs = torch.eye(2)
    assert info_nce(pairs, pairs, 1.0).item() == pytest.approx(-math.log(math.e / (math.e + 1)))
    assert info_nce(pairs, pairs.flip(0), 1.0).item() == pytest.approx(-math.log(1 / (math.e + 1)))


@pytest.mark.parametrize("pairs", [0, 1])
def test_nothing_to_tell_apart_costs_nothing(pairs: int) -> None:
    anchors = unit(pairs, 3).requires_grad_()
    loss = info_nce(anchors, unit(pairs, 3, seed=1), 0.1)
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("pairs", [2, 7])
def test_equals_the_double_loop(pairs: int, temperature: float) -> None:
    anchors, positives = unit(pairs, 4), unit(pairs, 4, seed=1)
    assert info_nce(anchors, positives, temperature).item() == pytest.approx(
        literal(anchors, positives, temperature), rel=1e-4
    )


def test_one_direction_only() -> None:
    """The denominator runs over positives: (0, 1) and (1, 0) against twice (1, 0) is not the same the other way."""
    anchors, positives = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert info_nce(anchors, positives, 1.0).item() != pytest.approx(info_nce(positives, anchors, 1.0).item())


def test_long_and_short_prefixes() -> None:
    """Windows of 3, 1 and 2 items: long pairs are positions 2, 0, 1; short ones (0,0), (0,1) and (2,0)."""
    states, long_states, long_semantic, short_semantic = (unit(3, 4, 5, seed=seed) for seed in range(4))
    valid = torch.arange(4) < torch.tensor([3, 1, 2])[:, None]
    newest, shorter = ([0, 1, 2], [2, 0, 1]), ([0, 0, 2], [0, 1, 0])
    expected = literal(long_states[newest], long_semantic[newest], 0.1) + literal(
        states[shorter], short_semantic[shorter], 0.1
    )
    found = alignment_loss(states, long_states, long_semantic, short_semantic, valid, 0.1)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_one_user_with_one_item_costs_nothing() -> None:
    one = unit(1, 1, 4)
    assert alignment_loss(one, one, one, one, torch.ones(1, 1, dtype=torch.bool), 0.1).item() == 0
