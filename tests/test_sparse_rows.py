"""Products with sparse matrices against dense ones."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from iadsr.sparse_rows import SparseRows

DENSE = np.random.default_rng(0).random((7, 5)) * (np.random.default_rng(1).random((7, 5)) < 0.4)
DENSE[2] = 0
MATRIX = SparseRows(sparse.csr_array(DENSE), whole=True)
EXPECTED = torch.from_numpy(DENSE).float()


def grad(product: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    weights = torch.arange(product.numel()).view_as(product) + 1.0
    (found,) = torch.autograd.grad((product * weights).sum(), dense)
    return found


def test_all_rows() -> None:
    dense = torch.randn(5, 3, requires_grad=True)
    torch.testing.assert_close(MATRIX(dense), EXPECTED @ dense)
    torch.testing.assert_close(grad(MATRIX(dense), dense), grad(EXPECTED @ dense, dense))


def test_some_rows() -> None:
    """In any order, again and again, an empty one among them, or none at all."""
    dense = torch.randn(5, 3, requires_grad=True)
    for rows in ([4, 2, 4, 0, 6], [2], []):
        numbers = torch.tensor(rows, dtype=torch.long)
        found, expected = MATRIX.of(numbers, dense), EXPECTED[numbers] @ dense
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(grad(found, dense), grad(expected, dense))


def test_not_saved() -> None:
    assert not MATRIX.state_dict() and not SparseRows(sparse.csr_array((3, 3))).state_dict()
