"""Stage `evaluate`: names of metrics, what they are made of, and plots that appear together or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from small_project import EPOCHS, EVALUATED, assert_one_error, digests, invoke, succeed

from stages import paths

ON_NOISE = ("noise_auc", "noise_precision", "noise_recall")


def test_names_of_the_metrics(chain: Path) -> None:
    metrics = json.loads((chain / paths.DETAILS).read_text())
    accuracy = {
        f"{split}_{metric}_{k}_{protocol}"
        for split in ("validation", "test")
        for metric in ("hr", "ndcg")
        for k in (5, 10, 20)
        for protocol in ("unfiltered", "filtered")
    }
    cold = {name.replace("test", "test_cold") for name in accuracy if name.startswith("test")} | {"test_cold_targets"}
    buckets = {
        f"bucket_{bucket}_{figure}"
        for bucket in range(1, 6)
        for figure in ("ndcg_5_unfiltered", "drop_ratio", "drop_ratio_expected", *ON_NOISE)
    }
    detection = {f"noise_{figure}{way}" for figure in ("precision", "recall") for way in ("", "_expected")}
    detection |= {
        "noise_auc",
        "noise_auc_stratified",
        "noise_auc_cold",
        "noise_auc_at_place",
        "noise_average_precision",
    }
    detection |= {"noise_share", "noise_rate_estimated", "noise_precision_at_share", "noise_calibration_error"}
    training = {"best_epoch", "epochs", "drop_ratio", "drop_ratio_expected", "drop_ratio_drift"}
    assert set(metrics) == accuracy | cold | buckets | detection | training
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert metrics["epochs"] == EPOCHS


def test_ranks_reproduce_every_accuracy(chain: Path) -> None:
    """HR@k is the share of ranks up to k; NDCG@k the mean of 1 / log2(rank + 1) over them, 0 beyond."""
    metrics = json.loads((chain / paths.DETAILS).read_text())
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


def test_drop_ratios_are_those_of_the_denoised_sequences(chain: Path) -> None:
    metrics = json.loads((chain / paths.DETAILS).read_text())
    judged = pl.read_parquet(chain / paths.VERDICTS).filter(pl.col("split") != "test")
    assert metrics["drop_ratio"] == pytest.approx((~judged["kept"]).to_numpy().mean(), abs=1e-12)
    assert metrics["drop_ratio_expected"] == pytest.approx((1 - judged["keep_probability"].to_numpy()).mean(), rel=1e-5)


def test_evaluating_twice_gives_the_same_bytes(copy: Path, unlogged_model: None) -> None:
    before = digests(*EVALUATED)
    succeed("evaluate")
    assert digests(*EVALUATED) == before


def test_a_full_disk_in_drawing_leaves_the_old_plots(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and the results that belong to them; a picture was cut off before."""
    from iadsr.evaluate import plots

    def cut_off(history: Any) -> Any:
        class Chart:
            def save(self, path: Path, **options: Any) -> None:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, "No space left on device", str(path))

        return Chart()

    monkeypatch.setattr(plots, "training_curves", cut_off)
    (paths.PLOTS / "old.csv").touch()
    before = digests(copy)
    assert_one_error(invoke("evaluate"), "no space left on the disk")
    assert digests(copy) == before


def test_plots_of_an_earlier_run_are_gone(copy: Path, unlogged_model: None) -> None:
    (paths.PLOTS / "old.csv").touch()
    succeed("evaluate")
    assert not (paths.PLOTS / "old.csv").exists()
