"""What finds noise of one kind, on a tiny demo: every row and signal, and signals against the detector's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_detectors import asked_for, detector, without_encoding
from small_models import sequences_of
from typer.testing import CliRunner

from benchmarks import noise, prepared
from benchmarks.transfer import signals_by_row
from iadsr.device import pick_dtype
from iadsr.evaluate.calibration import BINS
from iadsr.models.denoisers.cloze.signals import NAMES, signals_of
from iadsr.sequences.windows import Feed

pytestmark = pytest.mark.usefixtures("one_thread")


def test_signals_by_row_are_those_of_each_users_fold() -> None:
    """Users 1 and 3 are in fold 0, user 2 in fold 1; the last two items are held out."""
    histories, judge = [[3, 1, 4, 9, 9], [9, 2, 9, 9], [5, 9, 9]], detector()
    found = signals_by_row(judge, Feed(sequences_of(*histories))).split([5, 4, 3])
    dtype = pick_dtype("auto", torch.device("cpu"))
    for own, history, fold in zip(found, histories, (0, 1, 0), strict=True):
        expected = signals_of(judge.model(fold), torch.tensor([history[:-2]]), judge.texts.float(), dtype)[0]
        torch.testing.assert_close(own[:-2], expected)
        assert not own[-2:].any()


def test_every_row_and_signal_of_a_tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))
    result = CliRunner().invoke(noise.app, [*asked_for(), "--kind", "burst", "--details", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert {"uniform", "popularity", "burst", "others", "all", "truth"} <= set(found["learnt_from"])
    assert set(found["signals"]) == set(NAMES)
    areas = [*found["learnt_from"].values(), *(each[way] for each in found["signals"].values() for way in each)]
    assert all(0 < area["auc"] < 1 for area in areas)
    assert found["learnt_from"]["others"]["auc"] == pytest.approx(found["auc"], abs=0.02)
    assert sum(rows for _, _, rows, _ in found["calibration"]) > 0
    numbers = [number for *_, number in found["calibration"]]
    assert numbers == sorted(set(numbers)) and numbers[0] >= 1 and numbers[-1] <= BINS
