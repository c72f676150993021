"""What cells.yaml declares, and what of its parameters decides a cell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.accuracy import preset
from benchmarks.prepared import ROOT, parameters
from iadsr.errors import UserError
from iadsr.params import read_yaml
from study.cells import Cell, cells_of, of_kind, read_declared
from study.settings import decisive

DECLARED = """
settings: {train.dim: 8}
datasets: {demo: {train.dim: 16}, ml-100k: {}}
backbones: {gru4rec: {train.learning_rate: 0.1}}
tuned: {ml-100k/gru4rec: {train.dim: 32}}
methods: {none: {denoiser: none}, clean: {denoiser: none, noise.ratio: 0.0}}
groups:
  one: {about: a, datasets: [demo, ml-100k], backbones: [gru4rec], methods: [none, clean], seeds: [0, 1],
        settings: {noise.ratio: 0.5, train.learning_rate: 0.2}}
"""


def declared(tmp_path: Path, text: str = DECLARED) -> Path:
    path = tmp_path / "cells.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_declared_cell_goes_together() -> None:
    """What the study declares is what params.yaml takes, and names are unlike."""
    cells = of_kind(Cell, cells_of(read_declared()))
    assert all(cell.content()["train"]["threads"] == 1 for cell in cells)
    assert len({cell.name for cell in cells}) == len(cells)


def test_a_detector_never_trains_on_the_kind_that_is_planted() -> None:
    planted = [cell.content() for cell in cells_of(read_declared()) if cell.settings.get("noise.ratio")]
    assert planted
    for content in planted:
        assert content["noise"]["kind"] not in content["denoisers"]["cloze"]["detector"]["kinds"]


def test_later_settings_win(tmp_path: Path) -> None:
    """Settings, data set, backbone, both, group, method: of a width 8 a data set makes 16, a group of a rate .1 .2."""
    first, second, tuned, *_ = cells_of(read_declared(declared(tmp_path)))
    assert first.name == "one/demo/gru4rec/none/0"
    assert first.settings["train.dim"] == 16 and first.settings["train.learning_rate"] == 0.2
    assert tuned.name == "one/ml-100k/gru4rec/none/0" and tuned.settings["train.dim"] == 32
    assert (first.settings["noise.ratio"], second.settings["noise.ratio"]) == (0.5, 0.0)


def test_a_group_of_presets_trains_what_accuracy_does(tmp_path: Path) -> None:
    """They stand in place of what is declared of the data set and of the backbone."""
    (cell,) = cells_of(read_declared(), ["accuracy/beauty/sasrec/none/3"])
    assert isinstance(cell, Cell)
    expected = parameters({"dataset": "beauty", "denoiser": "none", "seed": 3, **preset("beauty")}, [])
    assert cell.decisive() == decisive(expected)
    changed = DECLARED.replace(
        "groups:",
        "groups:\n  two: {about: b, datasets: [ml-100k], backbones: [sasrec], "
        "methods: [none], seeds: [0], preset: true}",
    ).replace("gru4rec: {train.l", "sasrec: {train.dim: 4}, gru4rec: {train.l")
    (other,) = cells_of(read_declared(declared(tmp_path, changed)), ["two"])
    assert "train.dim" not in preset("ml-100k") and other.settings["train.dim"] == 8


@pytest.mark.parametrize(("pattern", "count"), [("*", 8), ("one", 8), ("one/demo", 4), ("*/none/1", 2), ("one/*/0", 4)])
def test_patterns_name_cells_and_folders_of_them(tmp_path: Path, pattern: str, count: int) -> None:
    assert len(cells_of(read_declared(declared(tmp_path)), [pattern])) == count


def test_a_pattern_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cells two: no cell of this name"):
        cells_of(read_declared(declared(tmp_path)), ["two"])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("about: a,", "", r"groups\.one\.about: Field required"),
        ("about: a,", "about: a, aim: b,", r"groups\.one\.aim: Extra"),
        ("seeds: [0, 1]", "seeds: [x]", r"groups\.one\.seeds\.0: Input should be a valid integer"),
        ("{noise.ratio: 0.5,", "{noise.kind: burst,", "methods: of bursts there is no `clean`"),
        ("[none, clean], s", "[none, cloze], s", r"groups\.one\.methods: cloze is not declared under `methods`"),
    ],
)
def test_a_wrong_declaration_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_declared(declared(tmp_path, DECLARED.replace(old, new)))


def test_what_a_cell_does_not_use_does_not_decide_it() -> None:
    """A plain backbone from random embeddings reads neither texts nor noise of ratio 0, and no entry but its own."""
    plain = {"dataset": "demo", "backbone": "gru4rec", "denoiser": "none"}
    found = decisive(parameters(plain, ["train.threads=1"]))
    for change in (
        *("train.threads=2", "denoisers.cloze.random_drop=0.1", "backbones.sasrec.heads=1", "noise.seed=1"),
        *("theta=0.5", "datasets.beauty.core=4", "encoders.minilm.pooling=cls"),
    ):
        assert decisive(parameters(plain, ["train.threads=1", change])) == found, change


@pytest.mark.parametrize(
    "change",
    [
        *("seed=1", "theta=0.5", "denoisers.cloze.detector.seed=1", "backbones.gru4rec.layers=1", "noise.ratio=0.1"),
        *("train.dim=32", "datasets.demo.core=4", "encode.item_template=x {title}", "encoders.minilm.max_tokens=8"),
    ],
)
def test_what_a_cell_uses_decides_it(change: str) -> None:
    chosen = {"dataset": "demo", "backbone": "gru4rec", "denoiser": "cloze"}
    assert decisive(parameters(chosen, [change])) != decisive(parameters(chosen, []))


@pytest.mark.parametrize("denoiser", ["cloze", "iadsr"])
def test_what_decides_a_cell_is_what_dvc_yaml_lists(denoiser: str) -> None:
    """Every parameter of the stages up to `train` that the denoiser reads, but no other denoiser's or encoder's."""
    content = parameters({"dataset": "demo", "denoiser": denoiser, "noise.ratio": 0.1}, [])
    found = decisive(content)
    of_others = () if denoiser == "iadsr" else ("encode.prefixes", "encode.prefix_template", "encode.separator")
    renamed = {"datasets.demo": "dataset", f"encoders.{content['encoder']}": "encoder"}
    for stage in ("ingest", "filter", "encode", "train"):
        for entry in read_yaml(ROOT / "dvc.yaml")["stages"][stage]["params"]:
            key = re.sub(r"\$\{(\w+)\}", lambda match: content[match[1]], entry)
            for long, short in renamed.items():
                key = key.replace(long, short)
            if entry not in of_others and entry not in ("encoder",):
                assert any(name == key or name.startswith(f"{key}.") for name in found), entry
