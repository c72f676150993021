"""How well planted noise of a kind is found by a detector that was trained on other kinds, on a tiny demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_detectors import asked_for, without_encoding
from typer.testing import CliRunner, Result

from benchmarks import noise, prepared
from iadsr.train import run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noise")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, data: Path, one_thread: None) -> None:
    """Away from the repository's cache; texts are not encoded, their vectors are random."""
    monkeypatch.setattr(prepared, "CACHE", data)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))


def invoked(*options: str) -> Result:
    return CliRunner().invoke(noise.app, [*asked_for(), *options])


def test_one_line_with_all_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector is trained on all kinds but the one that is planted; of 6 rows 1 is noise, beside the demo's own."""
    trained_on: list[list[str]] = []
    train = run.train_detector

    def recorded(detector: Any, *more: Any) -> None:
        trained_on.append(detector.params.kinds)
        train(detector, *more)

    monkeypatch.setattr(run, "train_detector", recorded)
    result = invoked("--kind", "popularity", "--ratio", "0.2", "--json")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert trained_on == [found["trained_on"]] == [["uniform", "near_miss", "boundary", "burst"]]
    assert {"auc", "auc_stratified", "auc_cold", "precision_at_rate", "ece"} <= set(found)
    assert all(0 <= found[name] <= 1 for name in (*noise.SHOWN,))
    assert found["rate"] >= 0.15 and found["seconds"] > 0 and found["device"] == "cpu"


def test_of_no_known_noise_there_is_no_measure() -> None:
    result = invoked("--kind", "none", "--set", "datasets.demo.source.noise=0.0", "--all-kinds")
    assert result.exit_code == 1 and "--kind: no noise is known of this data set" in result.stderr
