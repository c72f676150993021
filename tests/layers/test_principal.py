"""Principal components of text vectors: uncorrelated, few or none where there are no more, and directions by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iadsr.layers.principal import SPREAD, centred, principal_map

pytestmark = pytest.mark.usefixtures("one_thread")
ITEMS, WIDTH = 30, 6


def vectors() -> Tensor:
    return torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, WIDTH + 1)


def mapped(given: Tensor, dim: int) -> Tensor:
    return given @ principal_map(given, dim).T


def test_components_are_uncorrelated_and_fall() -> None:
    """So many that all of the vectors' dimensions are there, and one more; deviations are roots of what they were."""
    covariance = torch.cov(mapped(vectors(), WIDTH + 1).T)
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=1e-7, rtol=0)
    variances = covariance.diag()
    assert (variances[:WIDTH].diff() < 0).all() and variances[WIDTH] == 0
    before = torch.linalg.eigvalsh(torch.cov(vectors().T)).flip(0)
    torch.testing.assert_close(variances[:WIDTH] / variances[0], (before / before[0]).sqrt())


def test_what_is_mapped_has_one_spread() -> None:
    assert mapped(vectors(), 3).std().item() == pytest.approx(SPREAD) == mapped(1000 * vectors(), 3).std().item()


def test_few_components() -> None:
    """Vectors on one line have one component, and all others are 0."""
    rows = mapped(torch.linspace(-1, 1, ITEMS)[:, None] * torch.ones(WIDTH), 4)
    assert (rows[:, 0].diff().abs() > 1e-3).all() and not rows[:, 1:].any()


@pytest.mark.parametrize("items", [1, 2, ITEMS])
def test_vectors_that_are_all_alike_say_nothing(items: int) -> None:
    assert not mapped(torch.ones(items, WIDTH), 4).any()


def test_directions_from_the_mean_by_hand() -> None:
    """(3, 0) and (0, 5) have the mean direction (1/2, 1/2); what has no vector keeps none and is no part of it."""
    found = centred(torch.tensor([[0.0, 0], [3, 0], [0, 5]]))
    half = 0.5**0.5
    torch.testing.assert_close(found, torch.tensor([[0.0, 0], [half, -half], [-half, half]]))
