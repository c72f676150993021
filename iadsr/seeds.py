"""One seed in params.yaml, an independent stream for each purpose."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed of its own for `purpose`, so that no two purposes and no two seeds share a stream."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1
