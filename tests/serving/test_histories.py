"""Histories as callers write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iadsr.errors import UserError
from iadsr.serving import limits
from iadsr.serving.histories import KnownItems, raw_id
from iadsr.serving.limits import check_limits

CATALOGUE = KnownItems(["3", "b"], ["three", "bee"], {"9": "nine"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *[(value, "3") for value in (3, 3.0, "3", np.int8(3), np.float32(3), np.str_("3"), np.uint64(3))],
        *[("03", "03"), (" 3", " 3"), (True, "true"), (None, "null"), (3.5, "3.5"), (2.0**53, "9007199254740992.0")],
        *[(2**70, str(2**70)), (float("inf"), "inf"), ([3], "[3]"), ({"a": 1}, "{'a': 1}"), ("", "")],
    ],
)
def test_ids(value: Any, expected: str) -> None:
    assert raw_id(value) == expected


@pytest.mark.parametrize(
    "history", [[3, "b"], ("3", "b"), [3.0, "b"], np.array(["3", "b"]), np.array([3, "b"], dtype=object)]
)
def test_lists_of_any_kind(history: Any) -> None:
    found = CATALOGUE.read(history, None, True)
    assert (found.numbers, found.titles, found.own, found.note) == ([1, 2], ["three", "bee"], [False, False], "")


def test_titles() -> None:
    """Of the request, else of the catalogue, else of the other items; blank is none; none of an unknown: left out."""
    found = CATALOGUE.read(["3", "b", "9", "x", "y"], ["III", " ", None, "ex", float("nan")], True)
    assert found.numbers == [1, 2, 0, 0] and found.titles == ["III", "bee", "nine", "ex"]
    assert found.own == [True, False, True, True] and found.unknown == ["9", "x", "y"]


def test_a_model_that_reads_no_titles_reads_no_unknown_items() -> None:
    found = CATALOGUE.read(["3", "9"], ["III", "IX"], False)
    assert (found.numbers, found.titles, found.own) == ([1], ["three"], [False])


@pytest.mark.parametrize(
    ("history", "titles", "note"),
    [
        (None, None, "history: empty; give at least one item id"),
        (np.array([]), None, "history: empty; give at least one item id"),
        ("3,b", None, "history: expected a list of item ids, found '3,b'"),
        ({"3": 1}, None, "history: expected a list of item ids, found {'3': 1}"),
        (np.array(3), None, "history: expected a list of item ids, found array(3)"),
        ("x" * 99, None, f"history: expected a list of item ids, found '{'x' * 39}..."),
        (["3"], "three", "titles: expected a list of texts, found 'three'"),
        (["3"], ["a", "b"], "titles: 2 for a history of 1; give one an item, null where unknown"),
        (["9"], None, "history: the model knows none of the items, as '9'; ids are those of the data set, as 3, b"),
    ],
)
def test_notes(history: Any, titles: Any, note: str) -> None:
    assert CATALOGUE.read(history, titles, True).note == note


@pytest.mark.parametrize(
    ("histories", "titles", "said"),
    [
        ([[]] * 4, None, "4 histories; at most 3 in one request, so send several"),
        ([["a"], ["a"] * 3], None, "history 2: 3 items; at most 2: send the newest ones, since a model reads no more"),
        ([["a"]], [["t"] * 3], "history 1: 3 titles; at most 2, one an item"),
        ([["a"]], [["12345", None]], "history 1: a title of 5 characters; at most 4"),
    ],
)
def test_limits(histories: Any, titles: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("MOST_HISTORIES", 3), ("MOST_ITEMS", 2), ("LONGEST_TITLE", 4)):
        monkeypatch.setattr(limits, name, most)
    with pytest.raises(UserError, match=f"^{said}$"):
        check_limits(histories, titles)
    check_limits([["a", "b"], None, "text"], [["1234"], None, 3])
