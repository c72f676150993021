"""MLflow: one run an experiment, nothing twice, and a server that is down."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from small_project import EVALUATED, TRAINED, digests, found_runs, invoke, points, store, succeed

from stages import paths, tracking


def test_the_store_is_the_projects_also_for_temporary_copies(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain ran in project/.dvc/tmp/exps/chain, which DVC would delete: store and files lie in project/."""
    monkeypatch.chdir(chain)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # mlflow itself has set it meanwhile
    project = chain.parents[3]
    assert tracking.tracking_uri() == f"sqlite:///{project / 'mlflow.db'}"
    assert store(project).get_experiment_by_name("iadsr").artifact_location == (project / "mlruns").as_uri()
    assert not (chain / "mlflow.db").exists() and not (chain / "mlruns").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
    assert tracking.tracking_uri() == "http://server"


def test_one_run_with_epochs_results_and_files(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`train` logs an epoch at a time, `evaluate` the results, to the same run."""
    monkeypatch.chdir(chain)
    assert points("")["loss_ce"] == [0, 1, 2]
    run = found_runs("")[0]
    config = json.loads((paths.MODEL / "config.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"demo-gru4rec-iadsr-{config['run'][:6]}"
    described = {"dataset": "demo", "backbone": "gru4rec", "denoiser": "iadsr", "iadsr.run": config["run"]}
    assert described.items() <= run.data.tags.items()
    used = {"theta": "-0.9", "datasets.core": "5", "backbones.hidden": "16", "encoders.kind": "transformer"}
    assert used.items() <= run.data.params.items()
    assert not [name for name in run.data.params if "sports" in name or "sasrec" in name]
    metrics = json.loads(paths.DETAILS.read_text())
    assert run.data.metrics["test_ndcg_10_filtered"] == metrics["test_ndcg_10_filtered"]
    assert {"loss_ce", "epoch_seconds", "noise_auc"} <= set(run.data.metrics)
    files = {file.path for file in store(chain.parents[3]).list_artifacts(run.info.run_id)}
    assert {"metrics.json", "details.json", "history.csv", "training.png", "buckets_equal_items.csv"} <= files


def test_evaluate_alone_backfills_the_history(copy: Path, unlogged_model: None) -> None:
    """As when `train` came from DVC's cache: this experiment has no run yet. Its name is the run's."""
    assert found_runs(copy.name) == []
    succeed("evaluate")
    assert points(copy.name)["loss_ce"] == [0, 1, 2]
    assert found_runs(copy.name)[0].info.run_name == copy.name
    with open(paths.HISTORY, newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert found_runs(copy.name)[0].data.metrics["loss_ce"] == float(last["loss_ce"])


def test_nothing_is_logged_twice(copy: Path, unlogged_model: None) -> None:
    """Both stages run again directly: an epoch's metrics have steps 0 to 2, results step 3, once each."""
    succeed("train", "evaluate")
    first = points(copy.name)
    assert first["loss_ce"] == [0, 1, 2]
    assert first["test_hr_10_unfiltered"] == [3]
    succeed("train", "evaluate")
    assert points(copy.name) == first


def test_the_last_point_is_that_of_the_model(copy: Path, unlogged_model: None) -> None:
    """MLflow shows it beside the run; the last epoch's is another where an earlier one was better."""
    succeed("evaluate")
    metrics, logged = json.loads(paths.DETAILS.read_text()), found_runs(copy.name)[0].data.metrics
    assert all(logged[name] == value for name, value in metrics.items() if name not in ("best_epoch", "epochs"))


def test_a_server_that_is_down_costs_one_warning(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    before = digests(*EVALUATED, paths.MODEL / "model.safetensors")
    for path in (*EVALUATED, *TRAINED):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for stage in ("train", "evaluate"):
        result = invoke(stage)
        assert result.exit_code == 0
        warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 1 and "MLflow tracking failed, going on without it" in warnings[0]
        assert "Traceback" not in result.stderr
    after = digests(*EVALUATED, paths.MODEL / "model.safetensors")
    assert {name: digest for name, digest in after.items() if name != str(paths.METRICS)}.items() <= before.items()
    assert after == before
