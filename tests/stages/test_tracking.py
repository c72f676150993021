"""MLflow: one run an experiment, nothing twice, and a server that is down."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_project import EVALUATED, TRAINED, digests, found_runs, invoke, points, store, succeed

from iadsr.artifacts import file_digest
from iadsr.ingest.official_files import MOVIELENS_100K, amazon_meta, amazon_reviews
from stages import evaluate, paths, tracking


def models(name: str) -> list[Any]:
    """The logged models of a run."""
    run = found_runs(name)[0]
    client = store(Path.cwd().parents[3])
    return list(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


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
    assert points("")["epoch/loss_ce"] == [0, 1, 2]
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
    assert run.data.metrics["test/ndcg_10_filtered"] == metrics["test_ndcg_10_filtered"]
    assert {"epoch/loss_ce", "epoch/seconds", "noise/auc", "drop/ratio", "bucket_1/drop_ratio"} <= set(run.data.metrics)
    files = {file.path for file in store(chain.parents[3]).list_artifacts(run.info.run_id)}
    assert {"metrics.json", "details.json", "history.csv", "training.png", "buckets_equal_items.csv"} <= files


def test_evaluate_alone_backfills_the_history(copy: Path, unlogged_model: None) -> None:
    """As when `train` came from DVC's cache: this experiment has no run yet. Its name is the run's."""
    assert found_runs(copy.name) == []
    succeed("evaluate")
    assert points(copy.name)["epoch/loss_ce"] == [0, 1, 2]
    assert found_runs(copy.name)[0].info.run_name == copy.name
    with open(paths.HISTORY, newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert found_runs(copy.name)[0].data.metrics["epoch/loss_ce"] == float(last["loss_ce"])


def test_nothing_is_logged_twice(copy: Path) -> None:
    """Both stages run again: epochs are steps 0 to 2, results stand at the best one; one input, one whole model."""
    succeed("train", "evaluate")
    first, best = points(copy.name), json.loads((paths.MODEL / "config.json").read_text())["best_epoch"]
    assert first["epoch/loss_ce"] == first["epoch/validation_ndcg_10_unfiltered"] == [0, 1, 2]
    assert first["test/hr_10_unfiltered"] == first["validation/ndcg_10_unfiltered"] == [best]
    (model,) = models(copy.name)
    succeed("train", "evaluate")
    assert points(copy.name) == first
    assert [each.model_id for each in models(copy.name)] == [model.model_id]
    run = found_runs(copy.name)[0]
    assert len(run.inputs.dataset_inputs) == len(run.outputs.model_outputs) == 1
    assert model.name == "demo-gru4rec-iadsr" and str(model.status) == "READY"
    finals = {name: value for name, value in run.data.metrics.items() if not name.startswith("epoch/")}
    assert {metric.key: metric.value for metric in models(copy.name)[0].metrics} == finals


class Killed(BaseException):
    """As nothing in the project handles it."""


def test_killed_in_logging_the_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any of its files is there: the next call completes the same model, and changed code replaces it."""
    from mlflow import MlflowClient

    def kill(*ignored: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(MlflowClient, "log_model_artifacts", kill)
        invoke("evaluate")
    (half,) = models(copy.name)
    assert str(half.status) == "PENDING"
    succeed("evaluate")
    (whole,) = models(copy.name)
    assert (whole.model_id, str(whole.status)) == (half.model_id, "READY")
    assert len(found_runs(copy.name)[0].outputs.model_outputs) == 1
    monkeypatch.setattr(evaluate, "requirements", lambda kind: ["mlflow"])
    succeed("evaluate")
    (changed,) = models(copy.name)
    assert changed.tags != whole.tags
    assert (
        Path(changed.artifact_location.removeprefix("file://")) / "requirements.txt"
    ).read_text().strip() == "mlflow"


def test_data_and_what_came_out_are_told(copy: Path, unlogged_model: None) -> None:
    """The digest is that of the sequences; a note of somebody's own stays."""
    succeed("evaluate")
    run = found_runs(copy.name)[0]
    (data,) = (each.dataset for each in run.inputs.dataset_inputs)
    assert (data.name, data.digest) == ("demo", file_digest(paths.SEQUENCES)[:32])
    assert data.source_type == "code" and json.loads(data.source)["tags"]["users"] == 60
    metrics = json.loads(paths.METRICS.read_text())
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("iadsr on gru4rec, seed 0, trained on data set demo (")
    assert f"HR@10 {metrics['test_hr_10_unfiltered']:.4f}, NDCG@10 " in note
    assert run.data.tags["mlflow.source.name"] == "stages/train.py"
    store(copy.parents[3]).set_tag(run.info.run_id, "mlflow.note.content", "mine")
    succeed("evaluate")
    assert found_runs(copy.name)[0].data.tags["mlflow.note.content"] == "mine"


def test_official_addresses_are_those_of_ingest() -> None:
    beauty = {"url": amazon_reviews("Beauty").url, "items_url": amazon_meta("Beauty").url}
    assert tracking.described_source({"kind": "amazon-2014", "category": "Beauty"}) == ("http", beauty)
    assert tracking.described_source({"kind": "movielens-100k"}) == ("http", {"url": MOVIELENS_100K.url})
    own = {"kind": "files", "interactions": "own/a.csv", "items": "own/b.csv"}
    assert tracking.described_source(own) == ("local", {"uri": "own/a.csv", "items_uri": "own/b.csv"})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("test_hr_10_unfiltered", "test/hr_10_unfiltered"),
        ("validation_ndcg_5_filtered", "validation/ndcg_5_filtered"),
        ("noise_precision_at_share", "noise/precision_at_share"),
        ("drop_ratio_expected", "drop/ratio_expected"),
        ("bucket_12_noise_auc", "bucket_12/noise_auc"),
        ("bucket_1_drop_ratio", "bucket_1/drop_ratio"),
        ("epoch_seconds", "epoch_seconds"),
        ("noisy", "noisy"),
        ("test_", "test_"),
    ],
)
def test_metrics_in_groups(name: str, shown: str) -> None:
    assert tracking.grouped(name) == shown


def test_no_two_metrics_share_a_name(chain: Path) -> None:
    """With / read as _ each has its own name again; nor do epochs share one with results."""
    names = [*json.loads((chain / paths.METRICS).read_text())]
    names += [name.replace("bucket_1", "bucket_11").replace("_10_", "_100_") for name in names]
    assert [tracking.grouped(name).replace("/", "_") for name in names] == names
    assert not {tracking.grouped(name) for name in names} & {tracking.of_epochs(name) for name in names}


def test_the_last_point_is_that_of_the_model(copy: Path, unlogged_model: None) -> None:
    """MLflow shows it beside the run; the last epoch's is another where an earlier one was better."""
    succeed("evaluate")
    metrics, logged = json.loads(paths.DETAILS.read_text()), found_runs(copy.name)[0].data.metrics
    results = {name: value for name, value in metrics.items() if name not in ("best_epoch", "epochs")}
    assert all(logged[tracking.grouped(name)] == value for name, value in results.items())


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{SECRET}@127.0.0.1:9",
        f"http://{SECRET}@127.0.0.1:9",
        f"http://127.0.0.1:9?token={SECRET}",
        f"http://me:{SECRET}/x@127.0.0.1:9",
        f"http://me:a {SECRET}@127.0.0.1:9",
        f"postgresql://me:{SECRET.replace('3', '%33')}@127.0.0.1:9/db?sslpassword={SECRET}",
        f"nonsense://me:{SECRET}@host",
        f"me:{SECRET}@host",
    ],
)
def test_no_secret_of_the_store_is_shown(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str
) -> None:
    """Whatever the libraries quote of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = invoke("report").output
    tracking.prepare_store()
    said += "".join(capfd.readouterr())
    assert "warning: MLflow tracking failed, going on without it (" in said and "***" in said
    assert SECRET not in said and SECRET.replace("3", "%33") not in said


def test_parts_of_a_secret_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `int('s3cr3t')`, where a library takes the address apart: only the kind of error is left."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:pass:w0rd%21@host")
    assert tracking.reason(ValueError("invalid literal for int(): 'w0rd!'")) == "ValueError"
    assert tracking.reason(ValueError("no  such\nhost")) == "no such host"


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
