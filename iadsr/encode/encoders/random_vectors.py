"""Vectors that say nothing: the control to every encoder (how much of a gain is in what titles mean?)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from iadsr.encode.encoders.interface import Identity, RandomVectorsParams, Tokens
from iadsr.errors import UserError


class RandomVectors:
    """A vector of a normal distribution for each text, drawn from its digest: equal texts have equal vectors."""

    dtype = "float32"

    def __init__(self, spec: RandomVectorsParams, device: torch.device, separator: str = "") -> None:
        """UserError where texts are to be computed together: there is nothing to share."""
        if separator:
            raise UserError("params.yaml: encode.prefixes: shared, but random vectors share nothing; use joint or mean")
        self.dim, self.seed, self.device = spec.dim, spec.seed, device
        self.model: Any = nn.Identity()

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """The digest of each text, in four numbers."""
        digests = [hashlib.sha256(f"{self.seed} {text}".encode()).digest()[:16] for text in texts]
        return [Tokens(np.frombuffer(digest, np.int32), 4, False) for digest in digests]

    def vectors(self, batch: Sequence[Tokens]) -> Float[Tensor, "batch dim"]:
        drawn = [np.random.default_rng(tokens.ids.view(np.uint32)).standard_normal(self.dim) for tokens in batch]
        return torch.from_numpy(np.stack(drawn)).float().to(self.device)

    def together(self, batch: Sequence[Sequence[Tokens]]) -> Float[Tensor, "texts dim"]:
        return torch.cat([self.vectors(chain) for chain in batch])


def identity(spec: RandomVectorsParams) -> Identity:
    """What the vectors depend on."""
    return Identity(hashlib.sha256(f"{spec.dim} {spec.seed}".encode()).hexdigest(), None)
