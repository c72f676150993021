"""The whole of params.yaml at once: every mistake is found, with the path of its key, wherever it stands."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from iadsr.params import Params, read_params
from iadsr.params_check import problems

COMMITTED = read_params(Path(__file__).parents[1] / "params.yaml")


def changed(**values: Any) -> Params:
    """The committed parameters with other values; `__` in a name stands for a dot."""
    content = deepcopy(COMMITTED)
    for name, value in values.items():
        *way, last = name.replace("__", ".").split(".")
        entry = content
        for part in way:
            entry = entry[part]
        entry[last] = value
    return content


def test_nothing_is_wrong_with_the_committed_file() -> None:
    assert problems(COMMITTED) == []


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bogus", 1, "unknown parameter 'bogus'; known are dataset, "),
        ("dataset", "nope", "unknown dataset 'nope'; known (under `datasets`) are demo, ml-100k, "),
        ("backbone", "nope", "unknown backbone 'nope'; known (under `backbones`) are none, gru4rec, caser, sasrec"),
        ("encoder", "nope", "unknown encoder 'nope'; known (under `encoders`) are minilm, llm2vec"),
        ("denoiser", "nope", "unknown denoiser 'nope'; known (under `denoisers`) are none, iadsr"),
        ("seed", -1, "seed: expected a whole number of at least 0, found -1"),
        ("theta", 5, "theta: input should be less than or equal to 1, found 5"),
        ("denoisers.iadsr.theta", 0.5, "denoisers.iadsr.theta: unknown parameter; theta stands at top level"),
        ("noise.kind", None, "noise.kind: input should be 'uniform', 'popularity', "),
        ("noise.ratio", float("inf"), "noise.ratio: input should be a finite number, found inf"),
        ("ingest.max_rejects", -1, "ingest.max_rejects: input should be greater than or equal to 0, found -1"),
        ("filter", None, "filter: expected a mapping, found None"),
        ("train.max_epoch", 99, "train.max_epoch: unknown parameter"),
        ("train.learning_rate", float("inf"), "train.learning_rate: input should be a finite number, found inf"),
        ("train.threads", 10**8, "train.threads: expected 0 to "),
        ("encode.device", "cpu:9x", "encode.device: device 'cpu:9x' is not available here; available are auto, "),
        ("evaluate.buckets", 0, "evaluate.buckets: input should be greater than or equal to 1, found 0"),
        ("datasets", [], "datasets: expected a mapping, found []"),
        ("datasets.demo.bogus", 1, "datasets.demo.bogus: unknown parameter"),
        ("datasets.beauty", None, "datasets.beauty: expected a mapping, found None"),
        ("datasets.beauty.core", -1, "datasets.beauty.core: input should be greater than or equal to 0, found -1"),
        ("datasets.toys.max_length", "32", "datasets.toys.max_length: input should be a valid integer, found '32'"),
        ("datasets.toys.source", None, "datasets.toys.source: expected a mapping, found None"),
        ("datasets.toys.source.kind", "ftp", "datasets.toys.source.kind: expected one of demo, "),
        ("datasets.files.source.columns.usr", "u", "datasets.files.source.columns.usr: unknown parameter"),
        (
            "encoders.minilm.kind",
            ["a"],
            "encoders.minilm.kind: expected one of transformer, llm2vec, random, found",
        ),
        ("encoders.llm2vec.max_tokens", 1, "encoders.llm2vec.max_tokens: input should be greater than or equal to 8"),
        ("backbones.caser.window", 0, "backbones.caser.window: input should be greater than or equal to 1, found 0"),
        ("backbones.bert4rec", {}, "backbones.bert4rec: unknown backbone; known are gru4rec, caser, sasrec"),
        ("denoisers.magic", {}, "denoisers.magic: unknown denoiser; known are none, iadsr, hsd, ssdrec, dcrec, "),
        ("denoisers.none.share", 0.5, "denoisers.none.share: unknown parameter"),
        ("hsd", {"cooling": 0.1}, "unknown parameter 'hsd'; it is denoisers.hsd now"),
    ],
)
def test_a_mistake_is_named_by_its_key(key: str, value: Any, said: str) -> None:
    found = problems(changed(**{key: value}))
    assert len(found) == 1 and found[0].startswith(said), found


@pytest.mark.parametrize("name", [7, True, "two.parts"])
def test_a_name_that_no_key_can_hold(name: Any) -> None:
    """`datasets.two.parts.core` would be looked up elsewhere."""
    content = changed()
    content["datasets"][name] = content["datasets"]["toys"]
    assert problems(content) == [f"datasets: a name is text without a dot, found {name!r}"]


def test_all_mistakes_are_found_at_once() -> None:
    content = changed(train__max_epoch=99, train__dim=0, datasets__demo__bogus=1, theta=5, bogus=1)
    content[5] = 1
    found = problems(content)
    assert [message.split(";")[0].split(":")[0] for message in found] == [
        "unknown parameter 5",
        "unknown parameter 'bogus'",
        "train.dim",
        "train.max_epoch",
        "datasets.demo.bogus",
        "theta",
    ]


@pytest.mark.parametrize("key", sorted(COMMITTED))
def test_a_missing_key_at_top_level_is_named(key: str) -> None:
    content = changed()
    del content[key]
    assert any(f"no parameter {key!r}" in message for message in problems(content))


def test_parts_that_do_not_fit_each_other() -> None:
    """64 / 3 is no whole number; only the chosen backbone has to fit."""
    heads = changed(backbones__sasrec__heads=3)
    assert problems(heads) == []
    assert problems({**heads, "backbone": "sasrec"}) == ["backbones.sasrec.heads: 3 does not divide train.dim 64"]


@pytest.mark.parametrize("name", ["steam", "dcrec"])
def test_what_stands_alone_must_fit_too(name: str) -> None:
    heads = changed(**{f"denoisers__{name}__heads": 3})
    assert problems(heads) == []
    assert problems({**heads, "denoiser": name, "backbone": "none"}) == [
        f"denoisers.{name}.heads: 3 does not divide train.dim 64"
    ]


@pytest.mark.parametrize(("denoiser", "backbone"), [("steam", "sasrec"), ("dcrec", "gru4rec"), ("hsd", "none")])
def test_combinations_that_do_not_exist(denoiser: str, backbone: str) -> None:
    """Are refused with a list of what does."""
    (found,) = problems({**COMMITTED, "denoiser": denoiser, "backbone": backbone})
    assert found.startswith(f"backbone: {denoiser} does not go with {backbone!r}; there are: none with gru4rec, ")
    assert "; dcrec with none; steam with none; adt with gru4rec, caser, sasrec" in found
