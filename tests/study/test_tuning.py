"""Every method tries the same, and keeps what validates best."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from iadsr.errors import UserError
from study.cells import Declared, cells_of, read_declared, tunable
from study.page import document, undecided
from study.results import add, read_results
from study.run import missing
from study.tuning import BY, choices, require_choices, trials_of, validated, write_choices

DECLARED = """
settings: {train.dim: 8}
datasets: {demo: {}}
backbones: {gru4rec: {train.learning_rate: 0.1}}
methods: {none: {denoiser: none}, hsd: {denoiser: hsd}}
budget: {seed: 7, trials: [{train.learning_rate: 0.2}, {train.learning_rate: 0.3}, {train.dim: 16}]}
groups:
  one: {about: a, datasets: [demo], backbones: [gru4rec], methods: [none, hsd], seeds: [0, 1], chooses: true}
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
    write_choices(tunable(declared), declared, read_results(trials), kept)
    declared = read_declared(path, kept)
    assert [(cell.name, cell.settings["train.learning_rate"]) for cell in cells_of(declared)] == [
        ("one/demo/gru4rec/none/0", 0.3),
        ("one/demo/gru4rec/none/1", 0.3),
    ]
    require_choices(tunable(declared), declared, read_results(trials), kept)
    tried(declared, trials, 0.4)
    with pytest.raises(UserError, match=r"not what .*trials\.jsonl gives; write it again"):
        require_choices(tunable(declared), declared, read_results(trials), kept)


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
    assert declared.choices and [
        trial.settings["train.dim"] for trial in trials_of(tunable(declared)[0], declared)
    ] == [8, 8, 16]


def test_without_a_budget_or_a_tuned_group_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "cells.yaml").write_text(DECLARED.replace("chooses: true", "preset: false"), encoding="utf-8")
    with pytest.raises(UserError, match="no cell of a group that `chooses`"):
        tunable(read_declared(tmp_path / "cells.yaml", tmp_path / "none.json"))
    text = "\n".join(line for line in DECLARED.splitlines() if not line.startswith("budget"))
    (tmp_path / "cells.yaml").write_text(text, encoding="utf-8")
    declared = read_declared(tmp_path / "cells.yaml", tmp_path / "none.json")
    with pytest.raises(UserError, match="budget: missing"):
        trials_of(tunable(declared)[0], declared)


def test_a_choice_among_other_settings_is_none(files: tuple[Path, Path, Path]) -> None:
    """So the cell is missing until its method has chosen again, and whoever asks for it learns how."""
    files[1].write_text(json.dumps({"demo/gru4rec/none": {"settings": {"train.dim": 99}, "found": []}}))
    declared = read_declared(*files[:2])
    assert declared.choices == {} and cells_of(declared) == []
    with pytest.raises(UserError, match=r"its settings are yet to be chosen: .python -m study tune"):
        cells_of(declared, ["one"])
    found = {"none": 1, "hsd": 1}
    assert Counter(cell.method for cell in undecided(declared, "one")) == found
    assert "`none` in 1, `hsd` in 1" in document(declared, read_results(files[2]))


def test_a_trial_says_nothing_of_test_items(files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {BY: 0.1, "test_ndcg_10_unfiltered": 0.2, "epochs": 3, "best_epoch": 2}
    whole = {"cell": "c", "seconds": 1.0, "machine": {}, "params": {}, "metrics": metrics, "popularity": {}}
    monkeypatch.setattr("study.tuning.trained", lambda cell, content: (whole, Path("ranks")))
    (trial, *_) = trials_of(tunable(read_declared(*files[:2]))[0], read_declared(*files[:2]))
    line, ranks = validated(trial, {})
    assert ranks is None and "popularity" not in line
    assert line["metrics"] == {BY: 0.1, "epochs": 3, "best_epoch": 2}
