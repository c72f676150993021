"""Vectors that are kept, and which titles make up a prefix."""

from __future__ import annotations

import numpy as np
import pytest

from iadsr.serving.texts import KeptVectors, TitleRuns, size


def test_the_vectors_unused_for_longest_go_first() -> None:
    """There is room for two; a is used again, so b goes."""
    one = np.zeros(4, dtype=np.float16)
    kept = KeptVectors(2 * size("a", one))
    for text in ("a", "b", "a", "c"):
        if kept.get(text) is None:
            kept.keep(text, one)
    assert [kept.get(text) is not None for text in "abc"] == [True, False, True]
    assert kept.bytes == 2 * size("a", one)


def test_a_vector_larger_than_all_room_is_not_kept() -> None:
    kept = KeptVectors(10)
    kept.keep("a", np.zeros(400, dtype=np.float16))
    assert kept.get("a") is None and kept.bytes == 0


@pytest.mark.parametrize(
    ("numbers", "most", "found"),
    [
        ([5, 6, 7], 2, [(0, 2), (1, 3)]),  # the newest two items, of up to two titles each
        ([0, 5, 0, 6, 0], 9, [(0, 2), (0, 5)]),  # 0: a title alone; the newest item's prefix goes to the end
        ([5, 0, 0, 0], 2, [(2, 4)]),
        ([0, 0, 5], 9, [(0, 3)]),
    ],
)
def test_prefixes(numbers: list[int], most: int, found: list[tuple[int, int]]) -> None:
    prefixes = TitleRuns.of([numbers], most)
    assert list(zip(prefixes.starts[0].tolist(), prefixes.ends[0].tolist(), strict=True)) == found
