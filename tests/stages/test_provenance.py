"""Files of different runs, and files that somebody changed: refused by name, before anything is overwritten."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.torch
from small_project import assert_one_error, change, digests, invoke, noted_again, resealed, set_params, some_ids

from iadsr.artifacts import write_array
from iadsr.models.files import CONFIG, WEIGHTS
from iadsr.provenance import digest_of, read_sealed
from iadsr.sequences.text_vectors import MANIFEST
from stages import paths

MANIFEST_FILE, CONFIG_FILE, WEIGHTS_FILE = paths.ENCODED / MANIFEST, paths.MODEL / CONFIG, paths.MODEL / WEIGHTS


def refused(stage: str, said: str) -> None:
    """One error, and no file is another than before."""
    before = digests(Path())
    assert_one_error(invoke(stage, *(("--history", some_ids(1)[0]) if stage == "recommend" else ())), said)
    assert digests(Path()) == before


# --- files of different runs ---


def run(*stages: str) -> None:
    for stage in stages:
        assert invoke(stage).exit_code == 0


OTHER_ROWS = [
    ("train", "data/encoded: made from another filtered/sequences.parquet than is there now; run `dvc repro encode`"),
    ("evaluate", "models/model: made from another filtered/sequences.parquet than is there now; run `dvc repro train`"),
    ("recommend", "models/model: made from another filtered/"),
    ("report", "models/model: made from another filtered/sequences.parquet than is there now; run `dvc repro train`"),
]


@pytest.mark.parametrize(("stage", "said"), OTHER_ROWS)
def test_the_same_log_in_another_order(copy: Path, stage: str, said: str) -> None:
    """As many users, items and rows as before, so that only their content tells: the first and the last user of the
    log have changed places, and with them the numbers of their items."""
    raw = pl.read_parquet(paths.RAW_INTERACTIONS)
    raw.reverse().write_parquet(paths.RAW_INTERACTIONS)
    noted_again(paths.RAW)
    run("filter")
    refused(stage, said)


@pytest.mark.parametrize("stage", ["evaluate", "recommend"])
def test_encodings_of_another_recipe(copy: Path, stage: str) -> None:
    change(encode__separator=" | ")
    run("encode")
    change(encode__separator="; ")
    refused(stage, "data/encoded: made anew since the model was trained; run `dvc repro train` again")


@pytest.mark.parametrize("stage", ["train", "evaluate", "recommend"])
def test_prefixes_that_were_not_encoded(copy: Path, stage: str) -> None:
    """As after `encode` by hand for another denoiser; encoded again they are as the model was trained with them."""
    before = digests(paths.ENCODED)
    change(denoiser="text_rule")
    run("encode")
    change(denoiser="iadsr")
    refused(
        stage,
        "data/encoded: holds no vectors of prefixes, which this denoiser reads; run the stage `encode` again (`dvc rep",
    )
    run("encode")
    assert digests(paths.ENCODED) == before


def test_items_are_the_same_training_beside_prefixes_and_alone(copy: Path) -> None:
    """However prefixes would be made, as params.yaml has it, plays no part; nor does it for the report."""
    change(denoiser="text_rule", train__max_epochs=1, encode__prefixes="joint", encode__separator=" | ")
    run("train", "evaluate")
    before = digests(paths.MODEL, paths.HISTORY, paths.VERDICTS)
    assert "has changed" not in invoke("report").stdout
    run("encode", "train", "evaluate")
    assert digests(paths.MODEL, paths.HISTORY, paths.VERDICTS) == before
    assert "has changed" not in invoke("report").stdout


def test_metrics_of_another_model(copy: Path) -> None:
    change(seed=1)
    run("train")
    refused(
        "report", "metrics/details.json: made from another model/config.json than is there now; run `dvc repro eval"
    )


def test_a_model_copied_from_another_project(copy: Path, chain: Path) -> None:
    change(datasets__demo__source__seed=5)
    run("ingest", "filter", "encode", "train")
    shutil.rmtree(paths.MODEL)
    shutil.copytree(chain / paths.MODEL, paths.MODEL)
    for stage in ("evaluate", "recommend"):
        refused(stage, "models/model: made from another filtered/")


OTHER_PARAMETERS = [
    (
        "filter",
        {"dataset": "ml-100k"},
        "data/raw: made with dataset: 'demo', but params.yaml has 'ml-100k'; run `dvc rep",
    ),
    ("filter", {"datasets.demo.source.seed": 3}, "data/raw: made with datasets.demo.source: {"),
    ("encode", {"datasets.demo.core": 4}, "data/filtered: made with datasets.demo.core: 5, but params.yaml has 4; run"),
    (
        "train",
        {"dataset": "ml-100k"},
        "data/filtered: made with dataset: 'demo', but params.yaml has 'ml-100k'; run `dvc",
    ),
    ("train", {"noise.ratio": 0.2}, "data/filtered: made with noise: {'kind': 'uniform', 'ratio': 0"),
    (
        "train",
        {"encode.prefixes": "joint"},
        "data/encoded: made with encode.prefixes: 'mean', but params.yaml has 'joint'",
    ),
    ("train", {"encode.item_template": "a {title}"}, "data/encoded: made with encode.item_template: '{title}', but"),
    ("train", {"encoders.minilm.max_tokens": 9}, "data/encoded: made with encoders.minilm.max_tokens: 256, but"),
    ("evaluate", {"filter.duplicates": "first"}, "data/filtered: made with filter: {'duplicates': 'keep'"),
    ("evaluate", {"theta": 0.5}, "models/model: made with theta: -0.9, but params.yaml has 0.5; run `dvc repro train`"),
    (
        "evaluate",
        {"train.learning_rate": 0.5},
        "models/model: made with train.learning_rate: 0.001, but params.yaml has",
    ),
]


@pytest.mark.parametrize(("stage", "changes", "said"), OTHER_PARAMETERS)
def test_data_made_with_other_parameters(copy: Path, stage: str, changes: dict[str, Any], said: str) -> None:
    """Else results of one data set would stand in MLflow under the name and the settings of another."""
    set_params(Path(), changes)
    refused(stage, said)


# --- changed files whose digests tell ---

READERS = [
    ("filter", paths.RAW_INTERACTIONS),
    ("filter", paths.RAW_ITEMS),
    ("encode", paths.SEQUENCES),
    ("encode", paths.ITEMS),
    *(("train", path) for path in (paths.SEQUENCES, paths.USERS, paths.ITEMS, MANIFEST_FILE)),
    *(("train", paths.ENCODED / name) for name in ("items.npy", "prefixes.npy", "rows.npy")),
    *(("evaluate", path) for path in (paths.SEQUENCES, paths.ITEMS, MANIFEST_FILE, CONFIG_FILE, WEIGHTS_FILE)),
    ("recommend", paths.ITEMS),
    ("recommend", paths.ENCODED / "items.npy"),
    *(("evaluate", path) for path in (paths.HISTORY, *(paths.ENCODED / name for name in ("prefixes.npy", "rows.npy")))),
    *(("report", path) for path in (paths.DETAILS, paths.DATASET_DETAILS, paths.INGEST_METRICS, CONFIG_FILE)),
]


@pytest.mark.parametrize(("stage", "path"), READERS)
def test_one_changed_bit_is_named(copy: Path, stage: str, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)
    refused(stage, str(path))


# --- changed files with digests that are right, as by somebody who knows how they are made ---


def column(path: Path, **columns: pl.Expr | None) -> None:
    """Replace columns of a table, or leave them out, and note the digest anew."""
    table = pl.read_parquet(path)
    gone = [name for name, expression in columns.items() if expression is None]
    new = {name: expression for name, expression in columns.items() if expression is not None}
    table.with_columns(**new).drop(gone).write_parquet(path)
    noted_again(path.parent)


def array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path = paths.ENCODED / name
    write_array(path, change(np.load(path)))
    sums = read_sealed(MANIFEST_FILE, "any")["sha256"]
    resealed(MANIFEST_FILE, sha256={**sums, name: digest_of(path)})


def weights(change: Callable[[dict[str, Any]], object]) -> None:
    tensors = safetensors.torch.load_file(WEIGHTS_FILE)
    change(tensors)
    safetensors.torch.save_file(tensors, WEIGHTS_FILE)
    outputs = read_sealed(CONFIG_FILE, "any")["outputs"]
    resealed(CONFIG_FILE, outputs={**outputs, WEIGHTS: digest_of(WEIGHTS_FILE)})


def test_a_zip_file_in_the_place_of_vectors(copy: Path) -> None:
    (paths.ENCODED / "items.npy").write_bytes(b"PK\3\4xx")
    for stage in ("train", "evaluate", "recommend"):
        refused(stage, "data/encoded/items.npy: missing, or not ")


def text_for_a_number() -> None:
    paths.DETAILS.write_text('{"test_hr_10_unfiltered": "high"}')
    noted_again(paths.EVALUATED)


FORGED: list[tuple[str, Callable[[], object], str]] = [
    ("filter", lambda: column(paths.RAW_INTERACTIONS, user=pl.lit(1)), "data/raw/interactions.parquet"),
    ("filter", lambda: column(paths.RAW_INTERACTIONS, timestamp=pl.lit("now")), "data/raw/interactions.parquet"),
    ("filter", lambda: column(paths.RAW_INTERACTIONS, timestamp=None), "data/raw/interactions.parquet"),
    ("filter", lambda: column(paths.RAW_INTERACTIONS, item=pl.lit(None, pl.String)), "data/raw/interactions.parquet"),
    ("filter", lambda: column(paths.RAW_INTERACTIONS, is_noise=pl.lit("yes")), "data/raw/interactions.parquet"),
    ("filter", lambda: column(paths.RAW_ITEMS, title=pl.lit(7)), "data/raw/items.parquet"),
    ("filter", lambda: column(paths.RAW_ITEMS, categories=None), "data/raw/items.parquet"),
    *(
        (stage, forge, "data/filtered/")
        for stage in ("encode", "train")
        for forge in (
            lambda: column(paths.SEQUENCES, item=pl.col("item").cast(pl.String)),
            lambda: column(paths.SEQUENCES, item=pl.col("item").cast(pl.Float64)),
            lambda: column(paths.SEQUENCES, item=pl.col("item") + 10**6),
            lambda: column(paths.SEQUENCES, item=pl.col("item") - 1),
            lambda: column(paths.SEQUENCES, item=pl.when(pl.col("item") > 1).then("item")),
            lambda: column(paths.SEQUENCES, position=pl.lit(0)),
            lambda: column(paths.SEQUENCES, split=None),
        )
    ),
    ("train", lambda: column(paths.SEQUENCES, split=pl.lit("train")), "data/filtered/sequences.parquet"),
    ("train", lambda: column(paths.SEQUENCES, user=pl.col("user") + 1), "data/filtered/sequences.parquet"),
    ("train", lambda: column(paths.USERS, raw_user=pl.lit(1)), "data/filtered/users.parquet"),
    ("train", lambda: column(paths.ITEMS, raw_item=None), "data/filtered/items.parquet"),
    ("encode", lambda: column(paths.ITEMS, title=pl.lit(" ")), "data/filtered/items.parquet"),
    ("encode", lambda: column(paths.ITEMS, item=pl.col("item").reverse()), "data/filtered/items.parquet"),
    ("train", lambda: array("items.npy", lambda old: old[:-1]), "data/encoded/items.npy"),
    ("train", lambda: array("items.npy", lambda old: old.astype(np.float64)), "data/encoded/items.npy"),
    ("train", lambda: array("prefixes.npy", lambda old: old[:, 1:]), "data/encoded/prefixes.npy"),
    ("train", lambda: array("rows.npy", lambda old: old[:-2]), "data/encoded/rows.npy"),
    ("train", lambda: array("rows.npy", lambda old: old + 10**6), "data/encoded: rows.npy points beyond"),
    ("train", lambda: array("rows.npy", lambda old: old.astype(np.float32)), "data/encoded/rows.npy"),
    ("train", lambda: array("rows.npy", lambda old: np.full_like(old, -1)), "data/encoded/rows.npy"),
    ("evaluate", lambda: array("prefixes.npy", lambda old: old * np.float16("nan")), "data/encoded"),
    ("recommend", lambda: array("items.npy", lambda old: old[:, 1:]), "data/encoded"),
    ("train", lambda: resealed(MANIFEST_FILE, dim="wide"), "data/encoded/manifest.json"),
    ("train", lambda: resealed(MANIFEST_FILE, dim=None), "data/encoded/manifest.json"),
    ("train", lambda: resealed(MANIFEST_FILE, sha256=None), "data/encoded/"),
    ("train", lambda: resealed(MANIFEST_FILE, inputs=None), "data/encoded"),
    ("evaluate", lambda: weights(lambda found: found["items.weight"].fill_(float("nan"))), str(WEIGHTS_FILE)),
    ("evaluate", lambda: weights(lambda found: found.pop("items.weight")), str(WEIGHTS_FILE)),
    ("evaluate", lambda: weights(lambda found: found.update(more=found["items.weight"] * 2)), str(WEIGHTS_FILE)),
    ("evaluate", lambda: resealed(CONFIG_FILE, backbone="sasrec"), str(CONFIG_FILE)),
    ("evaluate", lambda: resealed(CONFIG_FILE, denoiser="none", encodings=None), str(CONFIG_FILE)),
    ("evaluate", lambda: resealed(CONFIG_FILE, item_count=10**9), str(WEIGHTS_FILE)),
    ("evaluate", lambda: resealed(CONFIG_FILE, user_count=3), "data/filtered/sequences.parquet"),
    ("evaluate", lambda: resealed(CONFIG_FILE, inputs={}), "models/model"),
    ("recommend", lambda: resealed(CONFIG_FILE, encodings="minilm"), str(CONFIG_FILE)),
    ("report", lambda: resealed(CONFIG_FILE, max_length=-1), str(CONFIG_FILE)),
    ("report", text_for_a_number, str(paths.DETAILS)),
]


@pytest.mark.parametrize(("stage", "forge", "said"), FORGED)
def test_forged_files_are_named(copy: Path, stage: str, forge: Callable[[], object], said: str) -> None:
    forge()
    refused(stage, said)


# --- what is in the way of an output ---


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("ingest", paths.RAW_REJECTS),
        ("filter", paths.DATASET_DETAILS),
        ("filter", paths.SEQUENCES),
        ("train", WEIGHTS_FILE),
        ("train", CONFIG_FILE),
        ("train", paths.HISTORY),
        ("train", paths.VERDICTS),
        ("evaluate", paths.METRICS),
        ("evaluate", paths.RANKS),
    ],
)
def test_a_folder_in_the_way_of_an_output(copy: Path, stage: str, path: Path) -> None:
    path.unlink()
    path.mkdir()
    refused(stage, f"{path}: a folder is in the way of this file; move it elsewhere")


@pytest.mark.parametrize(("stage", "path"), [("train", paths.MODEL), ("evaluate", paths.PLOTS)])
def test_a_file_in_the_way_of_a_folder(copy: Path, stage: str, path: Path) -> None:
    shutil.move(path, "aside")
    path.touch()
    if stage == "evaluate":
        refused(stage, f"{path}: a file is in the way of this folder; move it elsewhere")
    else:
        refused(stage, "models/model")
