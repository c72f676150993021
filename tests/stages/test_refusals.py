"""Wrong parameters, missing and damaged inputs: one line that names them, and nothing changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_project import assert_one_error, change, digests, invoke, noted_again, some_ids

from stages import paths


@pytest.mark.parametrize(
    ("stage", "key", "value", "said"),
    [
        ("ingest", "dataset", "huge", "unknown dataset 'huge'; known (under `datasets`) are demo, "),
        ("ingest", "ingest.max_rejects", "few", "ingest.max_rejects: "),
        ("ingest", "datasets.demo.source.usres", 5, "datasets.demo.source.usres: unknown parameter"),
        ("filter", "dataset", "huge", "unknown dataset 'huge'"),
        (
            "filter",
            "datasets.demo.core",
            -1,
            "datasets.demo.core: input should be greater than or equal to 0, found -1",
        ),
        ("filter", "datasets.demo.core", 50, "core: the 50-core of "),
        ("filter", "datasets.demo.core", "5", "datasets.demo.core: "),
        ("filter", "filter.ties", "random", "filter.ties: input should be 'raw' or 'shuffled', found 'random'"),
        ("filter", "filter.duplicate", "keep", "filter.duplicate: unknown parameter"),
        ("filter", "noise.kind", "odd", "noise.kind: input should be 'uniform', 'popularity', "),
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
        (
            "encode",
            "datasets.demo.max_length",
            0,
            "datasets.demo.max_length: input should be greater than or equal to 1",
        ),
        ("train", "dataset", "huge", "unknown dataset 'huge'"),
        ("train", "backbone", "bert4rec", "unknown backbone 'bert4rec'; known (under `backbones`) are none, gru4rec, "),
        ("train", "denoiser", "magic", "unknown denoiser 'magic'; known (under `denoisers`) are none, iadsr"),
        ("train", "theta", 1.5, "theta: input should be less than or equal to 1, found 1.5"),
        ("train", "theta", -1.5, "theta: input should be greater than or equal to -1, found -1.5"),
        ("train", "theta", "low", "theta: input should be a valid number, found 'low'"),
        ("train", "seed", -1, "seed: expected a whole number of at least 0, found -1"),
        ("train", "seed", "zero", "seed: expected a whole number of at least 0, found 'zero'"),
        ("train", "denoisers.iadsr.masks", "all", "denoisers.iadsr.masks: "),
        ("train", "denoisers.iadsr.theta", 0.5, "denoisers.iadsr.theta: unknown parameter"),
        (
            "train",
            "denoisers.iadsr.gumbel_temperature",
            0,
            "denoisers.iadsr.gumbel_temperature: input should be greater than 0",
        ),
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
    ("report", paths.DETAILS, "dvc repro"),
    ("report", paths.INGEST_METRICS, "dvc repro"),
    ("report", paths.DATASET_DETAILS, "dvc repro"),
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
        ("report", paths.DETAILS),
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


def test_a_file_in_the_place_of_a_folder_is_named(copy: Path) -> None:
    shutil.rmtree("data")
    Path("data").touch()
    assert_one_error(invoke("ingest"), "data/raw: a file is in the way of this folder; move it elsewhere")


def test_a_history_too_short_to_split_is_an_error(copy: Path) -> None:
    """Without a core nothing keeps a user with two interactions out."""
    raw = pl.read_parquet(paths.RAW_INTERACTIONS)
    user = raw["user"][0]
    pl.concat([raw.filter(pl.col("user") != user), raw.filter(pl.col("user") == user).head(2)]).write_parquet(
        paths.RAW_INTERACTIONS
    )
    noted_again(paths.RAW)
    change(datasets__demo__core=0)
    assert_one_error(invoke("filter"), "1 users have fewer than 3 interactions")


def test_an_item_without_a_row_in_the_item_table_is_an_error(copy: Path) -> None:
    missing = some_ids(1)[0]
    pl.read_parquet(paths.RAW_ITEMS).filter(pl.col("item") != missing).write_parquet(paths.RAW_ITEMS)
    noted_again(paths.RAW)
    before = digests(copy)
    assert_one_error(invoke("filter"), f"items.parquet: no row for item {missing!r}")
    assert digests(copy) == before
