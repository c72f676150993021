"""From text vectors to item embeddings: their principal components, half-whitened."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

SPREAD = 0.05  # standard deviation of what is mapped


@torch.no_grad()
def principal_map(vectors: Float[Tensor, "items width"], dim: int) -> Float[Tensor, "dim width"]:
    """A linear map of vectors to their `dim` largest components, each divided by the root of its deviation.

    So those that tell much apart do so still, but not alone. Rows beyond the components that there are, are 0; all are
    if all vectors are alike.
    """
    mapping = vectors.new_zeros(dim, vectors.shape[1])
    _, sizes, axes = torch.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    found = min(len(axes), dim, int((sizes > max(1e-4 * float(sizes[0]), 1e-6)).sum()))
    if not found:
        return mapping
    mapping[:found] = axes[:found] / sizes[:found, None].sqrt()
    spread = (vectors @ mapping[:found].T).std().clamp(min=1e-9)
    return mapping * (SPREAD / spread)


def centred(vectors: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
    """Directions from the mean direction, of unit length; rows that are zero, as of what has no text, stay zero."""
    return from_centre(vectors, mean_direction(vectors))


@torch.no_grad()
def mean_direction(vectors: Float[Tensor, "rows width"]) -> Float[Tensor, " width"]:
    """Of the rows that are not zero; zero if all are."""
    known = vectors[vectors.any(1)]
    return F.normalize(known, dim=1).sum(0) / max(1, len(known))


@torch.no_grad()
def from_centre(vectors: Float[Tensor, "rows width"], centre: Float[Tensor, " width"]) -> Float[Tensor, "rows width"]:
    """Directions of the rows from a centre of directions, of unit length; rows that are zero stay zero."""
    return F.normalize(F.normalize(vectors, dim=1) - centre, dim=1) * vectors.any(1)[:, None]
