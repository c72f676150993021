"""Every method tries the same, and keeps what validates best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iadsr.errors import UserError
from study.cells import Declared, cells_of, read_declared, tunable
from study.results import add, read_results
from study.run import missing
from study.tuning import BY, choices, keep, require_kept, trials_of

DECLARED = """
settings: {train.dim: 8}
datasets: {demo: {}}
backbones: {gru4rec: {train.learning_rate: 0.1}}
methods: {none: {denoiser: none}, hsd: {denoiser: hsd}}
budget: {seed: 7, trials: [{train.learning_rate: 0.2}, {train.learning_rate: 0.3}, {train.dim: 16}]}
groups:
  one: {about: a, datasets: [demo], backbones: [gru4rec], methods: [none, hsd], seeds: [0, 1], tuned: true}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """The declaration, what is kept, and the trials."""
    (tmp_path / "cells.yaml").write_text(DECLARED, encoding="utf-8")
    return tmp_path / "cells.yaml", tmp_path / "tuned.json", tmp_path / "trials.jsonl"


def tried(declared: Declared, path: Path, *values: float) -> None:
    """Lines of the plain backbone's trials."""
    for trial, value in zip(trials_of(tunable(declared, ["*/none"])[0], declared), values, strict=False):
        line: dict[str, Any] = {"cell": trial.name, "metrics": {BY: value}, "params": trial.decisive()}
        add(path, line)


def test_the_best_of_equal_budgets_is_kept(files: tuple[Path, Path, Path]) -> None:
    """Of three trials the second; then both seeds have it, and the method that has tried nothing is no cell yet."""
    path, kept, trials = files
    declared = read_declared(path, kept)
    assert [cell.method for cell in tunable(declared)] == ["none", "hsd"] and not cells_of(declared)
    tried(declared, trials, 0.1, 0.3)
    assert choices(tunable(declared), declared, read_results(trials)) == {}  # the third is missing
    tried(declared, trials, 0.1, 0.3, 0.3)
    found = choices(tunable(declared), declared, read_results(trials))
    assert found["demo/gru4rec/none"] == ({"train.learning_rate": 0.3}, [0.1, 0.3, 0.3])
    keep(found, kept)
    keep({}, kept)
    declared = read_declared(path, kept)
    assert [(cell.name, cell.settings["train.learning_rate"]) for cell in cells_of(declared)] == [
        ("one/demo/gru4rec/none/0", 0.3),
        ("one/demo/gru4rec/none/1", 0.3),
    ]
    require_kept(tunable(declared), declared, read_results(trials), kept)
    tried(declared, trials, 0.4)
    with pytest.raises(UserError, match=r"not what .*trials\.jsonl gives; write it again"):
        require_kept(tunable(declared), declared, read_results(trials), kept)


def test_trials_are_the_same_for_all_and_of_a_seed_of_their_own(files: tuple[Path, Path, Path]) -> None:
    declared = read_declared(*files[:2])
    plain, other = (trials_of(cell, declared) for cell in tunable(declared))
    assert [trial.name for trial in other] == [f"trial-{number}/demo/gru4rec/hsd/7" for number in range(3)]
    for one, two in zip(plain, other, strict=True):
        assert {**one.settings, "denoiser": "hsd"} == two.settings and one.content()["seed"] == 7
    assert [trial.settings["train.learning_rate"] for trial in plain] == [0.2, 0.3, 0.1]
    assert len(missing([*plain, *other], files[2])) == 6


def test_what_is_chosen_already_is_tried_anew_from_what_is_declared(files: tuple[Path, Path, Path]) -> None:
    """The choice of a first search is no part of a second one."""
    files[1].write_text(json.dumps({"demo/gru4rec/none": {"settings": {"train.dim": 16}, "found": []}}))
    declared = read_declared(*files[:2])
    assert [trial.settings["train.dim"] for trial in trials_of(tunable(declared)[0], declared)] == [8, 8, 16]


def test_without_a_budget_or_a_tuned_group_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "cells.yaml").write_text(DECLARED.replace("tuned: true", "preset: false"), encoding="utf-8")
    with pytest.raises(UserError, match="no cell of a group that is `tuned`"):
        tunable(read_declared(tmp_path / "cells.yaml", tmp_path / "none.json"))
    text = "\n".join(line for line in DECLARED.splitlines() if not line.startswith("budget"))
    (tmp_path / "cells.yaml").write_text(text, encoding="utf-8")
    declared = read_declared(tmp_path / "cells.yaml", tmp_path / "none.json")
    with pytest.raises(UserError, match="budget: missing"):
        trials_of(tunable(declared)[0], declared)
