"""`python -m stages.report`: a table for a person."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small_project import change, invoke

from stages import paths


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
    ):
        assert part in said
    assert f"AUC of the drop score {metrics['noise_auc']:.3f}" in said


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
