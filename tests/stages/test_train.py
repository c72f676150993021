"""Stage `train`: outputs, kills and errors on the way, seeds side by side, and other choices."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import safetensors
from small_project import (
    EPOCHS,
    TRAINED,
    assert_one_error,
    change,
    digests,
    found_runs,
    invoke,
    noted_again,
    points,
    some_ids,
    succeed,
)

from iadsr.artifacts import file_digest, read_json
from iadsr.errors import UserError
from stages import paths


def test_verdicts(chain: Path) -> None:
    """A row for each interaction, under the source's ids; test rows are never judged, and stay."""
    verdicts = pl.read_parquet(chain / paths.VERDICTS)
    judged = ["c1", "c2", "c3", "score", "keep_probability", "kept", "kept_sampled"]
    assert verdicts.columns == ["user", "item", "position", "timestamp", "split", "is_noise", *judged]
    sequences = pl.read_parquet(chain / paths.SEQUENCES)
    users, items = pl.read_parquet(chain / paths.USERS), pl.read_parquet(chain / paths.ITEMS)
    named = sequences.join(users, on="user", maintain_order="left").join(items, on="item", maintain_order="left")
    expected = named.select("raw_user", "raw_item", "position", "timestamp", "split", "is_noise").rows()
    assert verdicts.select(verdicts.columns[:6]).rows() == expected
    test = verdicts.filter(pl.col("split") == "test")
    assert test.height == users.height
    assert test["kept"].all() and test["kept_sampled"].all()
    assert test.select(judged[:-2]).null_count().row(0) == (test.height,) * 5
    others = verdicts.filter(pl.col("split") != "test")
    assert others.null_count().sum_horizontal().item() == 0
    assert others["keep_probability"].is_between(0, 1).all()
    assert not others["kept"].all()
    assert others["kept_sampled"].mean() == pytest.approx(others["keep_probability"].mean(), abs=0.1)
    raw = pl.read_parquet(chain / paths.RAW_INTERACTIONS).select("user", "item", "timestamp")
    rows = pl.read_parquet(chain / paths.ROWS)["row"]
    assert verdicts.select("user", "item", "timestamp").rows() == raw[rows].rows()


def test_history_has_a_row_an_epoch(chain: Path) -> None:
    with open(chain / paths.HISTORY, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    named = {"loss_ce", "loss_info", "loss_recon", "drop_rate", "qualified", "validation_ndcg_10_unfiltered"}
    assert named <= set(rows[0])
    config = json.loads((chain / paths.MODEL / "config.json").read_text())
    curve = [float(row["validation_ndcg_10_unfiltered"]) for row in rows]
    assert config["best_epoch"] == curve.index(max(curve))


KILLED = """
import os, signal, sys
from iadsr.train import fit
save, kill_after, done = fit.save_checkpoint, int(sys.argv[1]), 0
def save_and_die(path, model, progress):
    global done
    save(path, model, progress)
    done += 1
    if done == kill_after:
        (path.parent / ".checkpoint.safetensors.1.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
fit.save_checkpoint = save_and_die
from stages.train import app
app([], standalone_mode=False)
print("epochs:", done)
"""


def test_a_model_that_was_being_replaced_is_not_kept(copy: Path) -> None:
    """Killed between the weights and config.json of another run, the model of this one is trained again."""
    from iadsr.params import read_params
    from iadsr.train.run import Training
    from stages.train import files

    training = Training.of(read_params(paths.PARAMS), files())
    assert training.is_done()
    (paths.MODEL / "config.json").unlink()  # what `finish` does first
    assert not training.is_done()
    assert "best epoch" in invoke("train", "--skip-trained").stdout
    assert "trained already" in invoke("train", "--skip-trained").stdout


def test_seeds_side_by_side_are_single_runs(copy: Path) -> None:
    """Seed 0 ends with the bytes and metrics of the chain's own run; a second call trains nothing.

    A seed that fails is named, with its log.
    """
    expected = file_digest(paths.MODEL / "model.safetensors"), read_json(paths.DETAILS)
    result = invoke("train", "--seeds", "0,1")
    assert result.exit_code == 0, result.stderr
    folders = [paths.SEEDS / "0", paths.SEEDS / "1"]
    models = [file_digest(folder / paths.MODEL / "model.safetensors") for folder in folders]
    assert models[0] == expected[0] != models[1]
    found = read_json(paths.SEEDS / "summary.json")
    assert found["seeds"]["0"] == expected[1] and found["std"]["test_ndcg_10_unfiltered"] > 0
    assert "| mean |" in result.stdout and "seed 1 is done" in result.stdout
    written = [(folder / paths.MODEL / "config.json").stat().st_mtime_ns for folder in folders]
    (folders[1] / paths.DETAILS).unlink()
    change(train__threads=2)  # a run goes on with the number that it began with
    assert invoke("train", "--seeds", "1").exit_code == 0
    assert [(folder / paths.MODEL / "config.json").stat().st_mtime_ns for folder in folders] == written
    assert read_json(folders[1] / paths.DETAILS) == found["seeds"]["1"]
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
    assert points(copy.name)["epoch/loss_ce"] == [0, 1, 2]


def test_under_dvc_a_training_ends_with_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that began it is gone after the second of three epochs; by hand that means nothing."""
    from stages.train import while_wanted

    reports: Any = [SimpleNamespace(epoch=number) for number in range(3)]
    parents = iter([7, 7, 1, 1])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setenv("DVC_STAGE", "train")
    going = while_wanted(iter(reports))
    assert next(going).epoch == 0
    with pytest.raises(UserError, match="dvc has ended, and so does this training; `dvc repro` goes on after epoch 1"):
        next(going)
    parents = iter([7, 1, 1, 1])
    monkeypatch.delenv("DVC_STAGE")
    assert list(while_wanted(iter(reports))) == reports


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
    from iadsr.train import checkpoint

    def full(*ignored: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    shutil.rmtree("models")
    result = invoke("train")
    assert result.exit_code == 1
    assert "no space left on the disk" in next(line for line in result.stderr.split("\n") if line.startswith("error: "))
    assert not Path("models").exists()


def test_an_error_in_training_leaves_no_output(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next run goes on from the finished epoch: only two of three epochs are trained again."""
    from iadsr.train import fit

    weights, save, trained = digests(paths.MODEL / "model.safetensors", paths.HISTORY), fit.save_checkpoint, 0
    shutil.rmtree("models")

    def save_and_fail(path: Path, model: Any, progress: Any) -> None:
        nonlocal trained
        save(path, model, progress)
        trained += 1
        if trained == 1:
            raise RuntimeError("power cut")

    monkeypatch.setattr(fit, "save_checkpoint", save_and_fail)
    with pytest.raises(RuntimeError, match="power cut"):
        invoke("train")
    assert not Path("models").exists()
    assert found_runs(copy.name)[0].info.status == "FAILED"
    succeed("train")
    assert trained == EPOCHS
    assert digests(paths.MODEL / "model.safetensors", paths.HISTORY) == weights


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
    verdicts = pl.read_parquet(paths.VERDICTS)
    assert verdicts["kept"].all() and verdicts["score"].null_count() == verdicts.height
    metrics = json.loads(paths.DETAILS.read_text())
    assert metrics["drop_ratio"] == metrics["drop_ratio_expected"] == 0
    assert not [name for name in metrics if name.startswith("noise_")]
    assert invoke("recommend", "--history", some_ids(1)[0], "--k", "3").exit_code == 0


def test_a_model_that_carries_its_vectors_needs_no_encodings_any_more(copy: Path, unlogged_model: None) -> None:
    """It is evaluated and recommends without them, whatever the encoder is by now."""
    change(denoiser="text_rule", denoisers__text_rule__share=0.2, train__max_epochs=1)
    succeed("train")
    shutil.rmtree(paths.ENCODED)
    change(encoders__minilm__pooling="cls")
    succeed("evaluate", "report")
    metrics = json.loads(paths.DETAILS.read_text())
    assert 0.1 < metrics["drop_ratio"] < 0.3 and 0 < metrics["noise_auc"] < 1
    verdicts = pl.read_parquet(paths.VERDICTS).drop_nulls("score")
    assert verdicts["kept"].to_list() == (verdicts["score"] > 0).to_list()
    assert invoke("recommend", "--history", some_ids(1)[0], "--k", "3").exit_code == 0


def test_a_denoiser_of_targets(copy: Path, unlogged_model: None) -> None:
    """Its first items have no score; noise is looked for among the others."""
    shutil.rmtree(paths.ENCODED)
    change(denoiser="adt", denoisers__adt__gradual_steps=1, denoisers__adt__largest_share=0.2, train__max_epochs=2)
    succeed("train", "evaluate", "report")
    metrics = json.loads(paths.DETAILS.read_text())
    assert 0 < metrics["drop_ratio"] < 0.5 and 0 < metrics["noise_auc"] < 1


def test_a_combination_that_does_not_exist(copy: Path) -> None:
    """It is refused with the list of what does."""
    change(backbone="none", denoiser="hsd")
    said = invoke("train").stderr
    assert "backbone: hsd does not go with 'none'; there are: none with gru4rec, caser, sasrec, ligr; iadsr" in said


def test_ids_that_are_missing_are_noticed_before_the_training(copy: Path) -> None:
    pl.read_parquet(paths.USERS).head(3).write_parquet(paths.USERS)
    noted_again(paths.FILTERED)
    assert_one_error(invoke("train"), "users.parquet: 3 rows, but the sequences have ")
    assert not paths.TRAIN_WORK.exists()
