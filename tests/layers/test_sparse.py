"""Sparse products against dense ones, forth and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from iadsr.layers.sparse import Neighbours, SparseMatrix, SparseRows

pytestmark = pytest.mark.usefixtures("one_thread")


def random_matrix(size: int = 9, seed: int = 0) -> sparse.csr_array:
    """A third of all entries, not symmetric; row 0 and column 0 are empty, as padding is."""
    draw = np.random.default_rng(seed)
    dense = draw.normal(size=(size, size)) * (draw.random((size, size)) < 0.35)
    dense[0] = dense[:, 0] = 0
    return sparse.csr_array(dense)


def test_products_equal_dense_ones() -> None:
    """Of the matrix's own values and of others; the gradient is that of the dense product."""
    matrix = random_matrix()
    graph, dense = SparseMatrix(matrix), torch.from_numpy(matrix.toarray()).float()
    inputs = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for values in (graph.values, graph.values * torch.rand(matrix.nnz)):
        same = dense.clone()
        same[dense != 0] = values
        assert torch.equal(same != 0, dense != 0)
        found, expected = graph.product(inputs, values), same @ inputs
        torch.testing.assert_close(found, expected)
        weights = torch.randn(9, 4)
        one, other = (torch.autograd.grad((result * weights).sum(), inputs) for result in (found, expected))
        torch.testing.assert_close(one, other)


def test_products_of_products() -> None:
    """Two steps, with a gradient that is not contiguous."""
    matrix = random_matrix(seed=1)
    graph, dense = SparseMatrix(matrix), torch.from_numpy(matrix.toarray()).float()
    inputs = torch.randn(9, 4, requires_grad=True)
    twice = graph.product(graph.product(inputs))
    (found,) = torch.autograd.grad(twice.T[:2].sum(), inputs)
    (expected,) = torch.autograd.grad((dense @ dense @ inputs).T[:2].sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_of_any_shape() -> None:
    """Seven rows, five columns, without a value of its own given."""
    matrix = sparse.csr_array(np.random.default_rng(0).random((7, 5)) * (np.random.default_rng(1).random((7, 5)) < 0.4))
    graph, dense = SparseMatrix(matrix), torch.from_numpy(matrix.toarray()).float()
    inputs = torch.randn(5, 3, requires_grad=True)
    torch.testing.assert_close(graph.product(inputs), dense @ inputs)
    grads = [torch.autograd.grad((result**2).sum(), inputs) for result in (graph.product(inputs), dense @ inputs)]
    torch.testing.assert_close(*grads)
    found = graph.values_at(graph.values, torch.arange(7)[:, None], torch.arange(5))
    torch.testing.assert_close(found, dense)


def test_some_rows() -> None:
    """In any order, again and again, an empty one among them, or none at all."""
    matrix = random_matrix()
    graph, dense = SparseRows(matrix), torch.from_numpy(matrix.toarray()).float()
    inputs = torch.randn(9, 3, requires_grad=True)
    for rows in ([4, 2, 4, 0, 6], [2], []):
        numbers = torch.tensor(rows, dtype=torch.long)
        found, expected = graph.of(numbers, inputs), dense[numbers] @ inputs
        torch.testing.assert_close(found, expected)
        grads = [torch.autograd.grad((result**2).sum(), inputs) for result in (found, expected)]
        torch.testing.assert_close(*grads)


def test_values_by_place() -> None:
    """Those of the dense matrix at every place, 0 where there is no entry."""
    matrix = random_matrix()
    graph, places = SparseMatrix(matrix), torch.arange(9)
    found = graph.values_at(2 * graph.values, places[:, None], places)
    torch.testing.assert_close(found, 2 * torch.from_numpy(matrix.toarray()).float())


def test_a_saved_model_holds_no_graph() -> None:
    assert not any(kind(random_matrix()).state_dict() for kind in (SparseMatrix, SparseRows, Neighbours))


def test_neighbours_by_hand() -> None:
    """Row 1 holds 0.5 at 1 (itself), 0.2 at 2, 0.9 at 3, 0.2 at 4; row 2 nothing but itself; row 3 one other."""
    dense = np.zeros((5, 5))
    dense[1, 1:], dense[2, 2], dense[3, 1] = (0.5, 0.2, 0.9, 0.2), 1, 1
    neighbours = Neighbours(sparse.csr_array(dense))
    rows = torch.tensor([1, 2, 3, 4, 1])
    assert neighbours.first(rows, 2).tolist() == [[3, 2], [0, 0], [1, 0], [0, 0], [3, 2]]
    assert neighbours.first(rows[:1], 4).tolist() == [[3, 2, 4, 0]]
