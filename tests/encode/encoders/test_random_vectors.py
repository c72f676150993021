"""Random vectors: the same for the same text, whatever stands beside it, and else unlike one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iadsr.encode.batches import Budget, encoded
from iadsr.encode.encoders.interface import Encoder, RandomVectorsParams
from iadsr.encode.encoders.registry import identity, open_encoder
from iadsr.errors import UserError

CPU = torch.device("cpu")


def opened(seed: int = 0, separator: str = "") -> Encoder:
    return open_encoder(RandomVectorsParams(kind="random", dim=64, seed=seed), CPU, torch.bfloat16, separator)


def test_a_text_has_its_vector() -> None:
    texts = [f"title {number}" for number in range(500)]
    found = encoded(opened(), texts, Budget(64)).vectors
    again = encoded(opened(), texts[::-7], Budget(1024)).vectors
    np.testing.assert_array_equal(found[::-7], again)
    assert found.shape == (500, 64)


def test_vectors_are_normal_and_unlike_one_another() -> None:
    found = encoded(opened(), [f"title {number}" for number in range(500)], Budget(1024)).vectors
    assert abs(found.mean()) < 0.02 and abs(found.std() - 1) < 0.02
    cosines = np.corrcoef(found)[np.triu_indices(500, 1)]
    assert abs(cosines).max() < 0.7 and abs(cosines.mean()) < 0.01  # of 64 dimensions: standard deviation .125


def test_another_seed_has_others() -> None:
    first, second = (encoded(opened(seed), ["title"], Budget(64)).vectors for seed in (0, 1))
    assert abs(np.corrcoef(first[0], second[0])[0, 1]) < 0.5
    spec = RandomVectorsParams(kind="random", dim=64, seed=0)
    others = {identity(spec.model_copy(update=change)).fingerprint for change in ({"seed": 1}, {"dim": 8}, {})}
    assert len(others) == 3 and identity(spec).fingerprint in others


def test_there_is_nothing_to_share() -> None:
    with pytest.raises(UserError, match="random vectors share nothing"):
        opened(separator="; ")
