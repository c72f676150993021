"""Products of a fixed sparse matrix, or of some of its rows, with a dense one; differentiable in the dense one.

torch.nn.functional.embedding_bag computes them, on a CPU several times as fast as torch's sparse tensors.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F


class SparseRows(nn.Module):
    """A matrix as buffers that move with a model and are not saved with it."""

    offsets: Tensor
    columns: Tensor
    values: Tensor
    back_offsets: Tensor
    back_rows: Tensor
    back_values: Tensor

    def __init__(self, matrix: sparse.csr_array, whole: bool = False) -> None:
        """Products of all rows can go back only where `whole` is set, for which the transposed matrix is kept, too."""
        super().__init__()
        self.keep("", matrix)
        if whole:
            self.keep("back_", sparse.csr_array(matrix.T))

    def keep(self, prefix: str, matrix: sparse.csr_array) -> None:
        names = ("offsets", "rows" if prefix else "columns", "values")
        dtypes = (torch.int32, torch.int32, torch.float32)
        for name, content, dtype in zip(names, (matrix.indptr, matrix.indices, matrix.data), dtypes, strict=True):
            self.register_buffer(prefix + name, torch.from_numpy(content).to(dtype), persistent=False)

    def forward(self, dense: Float[Tensor, "columns width"]) -> Float[Tensor, "rows width"]:
        """The matrix times `dense`."""
        result: Tensor = _Product.apply(dense, self)
        return result

    def of(self, rows: Int[Tensor, " some"], dense: Float[Tensor, "columns width"]) -> Float[Tensor, "some width"]:
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


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: SparseRows) -> Tensor:
        ctx.matrix = matrix
        return _multiplied(matrix.offsets, matrix.columns, matrix.values, dense)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        matrix = ctx.matrix
        return _multiplied(matrix.back_offsets, matrix.back_rows, matrix.back_values, grads[0].contiguous()), None


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


def _multiplied(offsets: Tensor, columns: Tensor, values: Tensor, dense: Tensor) -> Tensor:
    return F.embedding_bag(
        columns, dense, offsets, mode="sum", per_sample_weights=values.to(dense.dtype), include_last_offset=True
    )
