"""The best single model of a data set: presets that params.yaml understands, and a tiny one trained once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_detectors import TINY, without_encoding
from typer.testing import CliRunner

from benchmarks import accuracy, gain, prepared
from benchmarks.accuracy import PRESETS, described
from benchmarks.gain import NAMES, Arm
from iadsr.params import read_yaml


@pytest.mark.parametrize("dataset", list(read_yaml(PRESETS)))
def test_presets_are_parameters(dataset: str) -> None:
    own = accuracy.preset(dataset)
    content = prepared.parameters({"dataset": dataset, "denoiser": "none", **own}, [])
    assert content["backbone"] == own["backbone"]


def test_every_official_data_set_has_one() -> None:
    assert set(read_yaml(PRESETS)) == {"ml-100k", "beauty", "sports", "toys"}


def test_a_data_set_without_a_preset() -> None:
    result = CliRunner().invoke(accuracy.app, ["--dataset", "demo"])
    assert result.exit_code == 1 and "--dataset demo: it has no preset; there are ml-100k, beauty" in result.stderr


def test_means_and_deviations_by_hand() -> None:
    """Two seeds, two users: .5 and 1."""
    values = np.array([[0.0, 1.0], [1.0, 1.0]])
    found = described(Arm({name: values for name in NAMES}, []), [2.0, 4.0])
    assert found["ndcg_10_filtered"] == 0.75 and found["seconds"] == 3
    assert found["ndcg_10_filtered_std"] == pytest.approx(0.35355, abs=1e-5)


def test_a_tiny_preset_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], one_thread: None
) -> None:
    (tmp_path / "presets.yaml").write_text("demo: {backbone: gru4rec, train.item_start: text, train.repeat: learned}")
    monkeypatch.setattr(accuracy, "PRESETS", tmp_path / "presets.yaml")
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))

    def line() -> str:
        accuracy.main("demo", "0,1", [*TINY], as_json=True)
        return capfd.readouterr().out.splitlines()[-1]

    printed = line()
    found = json.loads(printed)
    assert {*NAMES, *(f"{name}_std" for name in NAMES), "seconds"} <= set(found) and found["seconds"] > 0
    monkeypatch.setattr(gain, "command", lambda *_: pytest.fail("trained again"))
    assert line() == printed
