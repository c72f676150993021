"""Whether scores tell low from high ratings, by hand, and data sets without ratings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_detectors import asked_for, without_encoding
from typer.testing import CliRunner

from benchmarks import prepared, ratings
from benchmarks.ratings import areas

pytestmark = pytest.mark.usefixtures("one_thread")


def test_areas_by_hand() -> None:
    """Of 15 pairs of a low and a high rating the low one scores lower in 11, and its item is rarer in 6, as rare in 7;
    among the 4 pairs of the rare item the low one scores lower in 2, among the 3 of the other in all."""
    low = np.array([True, True, False, False, True, False, False, False])
    score = np.array([1.0, 4.0, 2.0, 3.0, 10.0, 11.0, 12.0, 13.0])
    found = areas(low, score, np.repeat([3, 8], 4))
    assert found == pytest.approx({"auc": 11 / 15, "like_popularity": 5 / 7, "popularity": 9.5 / 15}, abs=1e-4)


def test_a_data_set_without_ratings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))
    result = CliRunner().invoke(ratings.app, ["--dataset", "demo", *asked_for()])
    assert result.exit_code == 1 and "--dataset demo: its interactions have no ratings" in result.stderr
