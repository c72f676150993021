"""`python -m stages.report`: a table for a person."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small_project import change, invoke

from stages import paths
from stages.report import noise_found


def test_the_report_is_a_table(copy: Path) -> None:
    """Also when the cutoffs of params.yaml are no longer those of details.json."""
    change(evaluate__cutoffs=[7])
    said = invoke("report").stdout
    metrics = json.loads(paths.DETAILS.read_text())
    for part in (
        "Data set demo: ",
        "HR@5",
        "NDCG@20",
        f"{metrics['test_hr_10_unfiltered']:.4f}",
        "Dropped ",
        f"AUC of the drop score   {metrics['noise_auc']:.3f}, ",
        f"calibration error {metrics['noise_calibration_error']:.3f}",
    ):
        assert part in said


def test_how_known_noise_was_found() -> None:
    """Without such numbers nothing is said; without noise on cold items only their part is left out."""
    numbers = {"noise_share": 0.2, "noise_auc": 0.61, "noise_precision": 0.5, "noise_recall": 0.25}
    numbers |= {"noise_precision_at_share": 0.4, "noise_rate_estimated": 0.101, "noise_calibration_error": 0.099}
    assert noise_found(numbers | {"noise_auc_stratified": 0.6, "noise_auc_cold": 0.7})[1:] == [
        "Known noise, 20.0% of training interactions, and how it was found",
        "  AUC of the drop score   0.610, among histories of like length 0.600, cold items 0.700",
        "  dropped by the rule     precision 0.500, recall 0.250",
        "  lowest 20.0% of scores  precision 0.400",
        "  probability of noise    mean 10.1%, calibration error 0.099",
    ]
    assert noise_found(numbers)[2] == "  AUC of the drop score   0.610"
    assert noise_found({"drop_ratio": 0.0}) == []


def test_commands_of_the_report_work_as_they_stand(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an activated environment too: programs stand beside this Python, here in the folder's .venv."""
    monkeypatch.setattr(sys, "executable", str(copy / ".venv" / "bin" / "python"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////my runs/mlflow.db")
    said = invoke("report").stdout
    assert "or `.venv/bin/dvc plots show`\n" in said
    assert said.endswith("MLflow  `.venv/bin/mlflow ui --backend-store-uri 'sqlite:////my runs/mlflow.db'`\n")
    monkeypatch.setattr(sys, "executable", "/elsewhere/bin/python")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://runs.example.org/mlflow")
    said = invoke("report").stdout
    assert "or `/elsewhere/bin/dvc plots show`\n" in said
    assert said.endswith("MLflow  https://runs.example.org/mlflow\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "beauty", "denoiser": "none", "backbone": "sasrec"},
        {"seed": 7},
        {"theta": -0.5},
        {"train__dim": 8},
        {"backbones__gru4rec__dropout": 0.1},
        {"datasets__demo__max_length": 9},
        {"encoders__minilm__pooling": "cls"},
        {"encode__separator": ", "},
    ],
)
def test_the_report_is_of_the_model_whatever_params_yaml_says(copy: Path, changes: dict[str, Any]) -> None:
    """The numbers are those of GRU4Rec under IADSR on the demo; one more line says what `dvc repro` would do."""
    before = invoke("report").stdout
    assert "\niadsr on gru4rec, encoder minilm, seed 0: best epoch " in before
    assert "has changed" not in before
    change(**changes)
    said = "params.yaml has changed since this model was trained: `dvc repro` would train again"
    assert invoke("report").stdout == f"{before}\n{said}\n"
