"""The commands one after another: what they leave, and that they do so for every denoiser."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from small_project import BEFORE_TRAINING, EVALUATED, TRAINED, change, digests, invoke, succeed

from iadsr.models.assembly import backbones_of
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.files import load_config
from stages import paths

ON_NOISE = ("by_length", "calibration", "equal_interactions", "equal_items", "scores")


def test_every_artifact_is_there(chain: Path) -> None:
    for path in (*BEFORE_TRAINING, *TRAINED, *EVALUATED):
        assert (chain / path).exists(), path
    assert sorted(path.name for path in (chain / paths.MODEL).iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(path.name for path in (chain / paths.PLOTS).iterdir()) == [
        "buckets_equal_interactions.csv",
        "buckets_equal_interactions.png",
        "buckets_equal_items.csv",
        "buckets_equal_items.png",
        *(f"noise_{name}.{kind}" for name in ON_NOISE for kind in ("csv", "png")),
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
    assert 0 < json.loads(paths.DETAILS.read_text())["test_hr_20_unfiltered"] <= 1
    assert pl.read_parquet(paths.VERDICTS)["keep_probability"].drop_nulls().is_between(0, 1).all()
    (item,) = pl.read_parquet(paths.ITEMS)["raw_item"].head(1)
    assert invoke("recommend", "--history", item, "--k", "3").exit_code == 0
    named = "no denoiser" if denoiser == "none" else denoiser
    reported = invoke("report").stdout
    assert f"\n{named}{'' if backbone == 'none' else f' on {backbone}'}" in reported and "has changed" not in reported


@pytest.mark.parametrize("stage", ["ingest", "filter", "encode"])
def test_preparing_twice_gives_the_same_bytes(copy: Path, stage: str) -> None:
    before = digests(*BEFORE_TRAINING)
    succeed(stage)
    assert digests(*BEFORE_TRAINING) == before
