"""Pictures of how noise was found, as what is told to Vega."""

from __future__ import annotations

from typing import Any

import pytest

from iadsr.evaluate.plots import drawn

BIN = {"bin": 1, "predicted": 0.0, "share": 0.0, "rows": 3}
LENGTHS = [
    {"shortest": 5, "longest": 5, "rows": 40, "noise_auc": 0.7},
    {"shortest": 21, "longest": 40, "rows": 60, "noise_auc": 0.3},
]


def spec(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return drawn(name, rows, 5).to_dict()


def test_lengths_in_words_and_in_order() -> None:
    bars, _ = spec("noise_by_length", LENGTHS)["layer"]
    assert [row["span"] for row in bars["data"]["values"]] == ["5", "21-40"]
    assert bars["encoding"]["x"]["sort"] is None


def test_worse_than_chance_is_in_the_picture() -> None:
    _, (line, chance) = (layer.get("layer", layer) for layer in spec("noise_by_length", LENGTHS)["layer"])
    assert line["encoding"]["y"]["scale"]["domain"] == [0.3, 1]
    assert chance["data"]["values"] == [{"noise_auc": 0.5}]


@pytest.mark.parametrize(("predicted", "top"), [(0.0, 1.0), (0.25, 0.25)])
def test_the_diagonal_reaches_the_farthest_bin(predicted: float, top: float) -> None:
    """Also where nothing is predicted and nothing found."""
    same, _ = spec("noise_calibration", [{**BIN, "predicted": predicted}])["layer"]
    assert same["data"]["values"][1] == {"predicted": top, "share": top}


def test_pictures_say_what_they_are_of() -> None:
    tables = {
        "noise_equal_items": [{"bucket": 2, "rows": 40, "noise_auc": 0.7}],
        "noise_by_length": LENGTHS,
        "noise_calibration": [BIN],
        "noise_scores": [{"score": 0.5, "noise": 1.0, "real": 0.0}, {"score": 1.5, "noise": 0.0, "real": 1.0}],
    }
    assert [spec(name, rows)["title"] for name, rows in tables.items()] == [
        "Known noise by popularity, equal items",
        "Known noise by length of history",
        "Is noise as frequent as predicted?",
        "Scores of known noise and of the rest",
    ]
