"""Products of a fixed sparse matrix, or of some of its rows, with a dense one; differentiable in the dense one.

torch.nn.functional.embedding_bag computes them, on a CPU four times as fast as torch's sparse tensors. The backward
pass of a whole matrix is the same product with the transposed one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F


class SparseMatrix(nn.Module):
    """A matrix as buffers that move with a model and are not saved with it.

    An entry's number is its place in `values`, which go row by row with rising columns. Callers may multiply by other
    values, such as these under dropout.
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor
    back_offsets: Tensor
    back_rows: Tensor
    back_order: Tensor
    keys: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        numbers = sparse.csr_array((np.arange(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
        back = numbers.T.tocsr()
        rows = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        self.width = matrix.shape[1]
        for name, content, dtype in (
            ("offsets", matrix.indptr, torch.int32),
            ("columns", matrix.indices, torch.int32),
            ("values", matrix.data, torch.float32),
            ("back_offsets", back.indptr, torch.int32),
            ("back_rows", back.indices, torch.int32),
            ("back_order", back.data, torch.int64),
            ("keys", rows * self.width + matrix.indices, torch.int64),
        ):
            self.register_buffer(name, torch.from_numpy(content).to(dtype), persistent=False)

    def product(
        self, dense: Float[Tensor, "columns dim"], values: Float[Tensor, " entries"] | None = None
    ) -> Float[Tensor, "rows dim"]:
        """The matrix, or one with other values in the same places, times `dense`; the values have no gradient."""
        result: Tensor = _Product.apply(self.values if values is None else values, dense, self)
        return result

    def values_at(
        self, values: Float[Tensor, " entries"], rows: Int[Tensor, "..."], columns: Int[Tensor, "..."]
    ) -> Float[Tensor, "..."]:
        """The entry of `values` at each (row, column), 0 where the matrix has no entry; shapes are broadcast."""
        wanted = rows * self.width + columns
        numbers = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[numbers] == wanted, values[numbers], 0)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, dense: Tensor, matrix: SparseMatrix) -> Tensor:
        ctx.matrix = matrix
        ctx.save_for_backward(values)
        return _multiplied(matrix.offsets, matrix.columns, values, dense)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        (values,), matrix = ctx.saved_tensors, ctx.matrix
        turned = values.index_select(0, matrix.back_order)
        return None, _multiplied(matrix.back_offsets, matrix.back_rows, turned, grads[0].contiguous()), None


def _multiplied(offsets: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    return F.embedding_bag(
        columns, dense, offsets, mode="sum", per_sample_weights=values.to(dense.dtype), include_last_offset=True
    )


class SparseRows(nn.Module):
    """A matrix, as buffers, of which few rows are multiplied at a time; its transpose is not kept."""

    offsets: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        for name, content, dtype in (
            ("offsets", matrix.indptr, torch.int32),
            ("columns", matrix.indices, torch.int32),
            ("values", matrix.data, torch.float32),
        ):
            self.register_buffer(name, torch.from_numpy(content).to(dtype), persistent=False)

    def of(self, rows: Int[Tensor, " some"], dense: Float[Tensor, "columns dim"]) -> Float[Tensor, "some dim"]:
        """These rows of the matrix times `dense`."""
        result: Tensor = _RowsProduct.apply(dense, *self.sliced(rows))
        return result

    def sliced(self, rows: Int[Tensor, " some"]) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets, columns and values of a matrix of these rows alone."""
        begins, counts = self.offsets[rows], self.offsets.diff()[rows]
        offsets = F.pad(counts.cumsum(0), (1, 0)).int()
        places = torch.repeat_interleave(begins - offsets[:-1], counts) + torch.arange(
            int(offsets[-1]), dtype=torch.int32, device=rows.device
        )
        return offsets, self.columns.index_select(0, places), self.values.index_select(0, places)


class _RowsProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, offsets: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(offsets, columns, values)
        ctx.rows = len(dense)
        return _multiplied(offsets, columns, values, dense)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        offsets, columns, values = ctx.saved_tensors
        owners = torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())
        weighed = grads[0].index_select(0, owners).mul_(values[:, None])
        return grads[0].new_zeros(ctx.rows, grads[0].shape[1]).index_add_(0, columns, weighed), None, None, None


class Neighbours(nn.Module):
    """The columns of each row's entries off the diagonal, the largest first, of equal ones the lower first."""

    offsets: Tensor
    columns: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        found = sparse.coo_array(matrix)
        other = found.row != found.col
        row, column, value = found.row[other], found.col[other], found.data[other]
        order = np.lexsort((column, -value, row))
        offsets = np.searchsorted(row[order], np.arange(matrix.shape[0] + 1))
        self.register_buffer("offsets", torch.from_numpy(offsets), persistent=False)
        self.register_buffer("columns", torch.from_numpy(column[order].astype(np.int64)), persistent=False)

    def first(self, rows: Int[Tensor, " some"], count: int) -> Int[Tensor, "some count"]:
        """The first `count` of each row; 0 where there are no more."""
        places = self.offsets[rows, None] + torch.arange(count, device=rows.device)
        return torch.where(
            places < self.offsets[rows + 1, None], self.columns[places.clamp(max=len(self.columns) - 1)], 0
        )
