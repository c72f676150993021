"""One seed in params.yaml, an independent stream for each purpose."""

from __future__ import annotations

import hashlib

from iadsr.errors import UserError
from iadsr.params import Params, lookup


def checked_seed(params: Params) -> int:
    """The `seed` of params.yaml: a whole number of at least 0."""
    seed = lookup(params, "seed")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"params.yaml: seed: expected a whole number of at least 0, found {seed!r}")
    return seed


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed of its own for `purpose`, so that no two purposes and no two seeds share a stream."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1
