"""Multiply-adds by hand, on one window of three items and a catalogue of ten."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.multiply_adds import Load, Shape, encoder, ranking, training

# one window of 3 items in a row of 4 places, two of them with a target; 1 + 2 + 3 pairs; (3 - 1)^2 + 1^2 contrasts
LOAD = Load(windows=1, places=4, tokens=3, pairs=6, examples=2, contrasts=5)
PARAMS: dict[str, dict[str, Any]] = {
    "gru4rec": {"hidden": 6, "layers": 2, "dropout": 0.0},
    "caser": {"hidden": 6, "window": 3, "horizontal": 5, "vertical": 2, "dropout": 0.0},
    "sasrec": {"layers": 2, "heads": 2, "feed_forward": 7, "dropout": 0.0},
    "ligr": {"layers": 2, "heads": 2, "feed_forward": 7, "dropout": 0.0},
}


def shape(backbone: str, text_width: int = 0) -> Shape:
    return Shape(backbone, PARAMS[backbone], items=10, dim=4, text_width=text_width)


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        # a token: layer one 3 gates x 6 x (4 + 6) = 180, layer two 3 x 6 x (6 + 6) = 216; three tokens
        ("gru4rec", 3 * (180 + 216)),
        # a token: heights 1 + 2 + 3 of 5 filters of width 4: 120; vertical 2 x 3 x 4 = 24; fuse (15 + 8) x 6 = 138
        ("caser", 3 * (120 + 24 + 138)),
        # a layer: a token 3 x 4 x 4 + 4 x 4 = 64 and 2 x 4 x 7 = 56; a pair 2 x 4 = 8, of which there are 6
        ("sasrec", 2 * (3 * (64 + 56) + 6 * 8)),
        # the same, and a token 2 x 4 x 4 = 32 for the gates of both layers and 4 x 7 = 28 for the switch
        ("ligr", 2 * (3 * (64 + 56 + 32 + 28) + 6 * 8)),
    ],
)
def test_encoders(backbone: str, expected: int) -> None:
    assert encoder(LOAD, shape(backbone)) == expected


def test_training_of_a_plain_backbone() -> None:
    """Loss: 3 products of 2 examples x 10 items x 4. SASRec has no head; GRU4Rec's: 2 examples x 6 x 4, thrice."""
    assert training(LOAD, shape("sasrec")) == {"loss": 240, "encoder": 3 * 816}
    assert training(LOAD, shape("gru4rec")) == {"loss": 240, "encoder": 3 * (1188 + 48)}


def test_training_of_iadsr() -> None:
    """Two projections 8 -> 6 of 3 tokens, 288, forward and for their weights; InfoNCE: 5 of width 6, thrice."""
    assert training(LOAD, shape("gru4rec", text_width=8))["alignment"] == 2 * 288 + 3 * 30


def test_ranking_goes_forward_alone() -> None:
    """Scores: 1 window x 10 items x 4; the encoder once, its head for the newest state alone: 6 x 4."""
    assert ranking(LOAD, shape("gru4rec")) == {"scores": 40, "encoder": 1188 + 24}


def test_loads_add_up() -> None:
    """Two passes over the window: twice of everything, and so the same share of padding, 2 of 8."""
    both = sum([LOAD, LOAD], Load())
    expected = Load(windows=2, places=8, tokens=6, pairs=12, examples=4, contrasts=10)
    assert both == expected and both.padding_share(both.places) == 0.25
    assert Load().padding_share(0) == 0.0
