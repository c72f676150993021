"""Cells are trained once, their lines and ranks belong together, and tables say what they show."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from small_detectors import TINY, without_encoding
from typer.testing import CliRunner

from benchmarks import prepared
from iadsr.errors import UserError
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.schemas import SPLIT, TEST, VALIDATION
from study.__main__ import app
from study.cells import Cell, cells_of, of_kind, read_declared, with_changes
from study.drops import READINGS
from study.found import found_table
from study.paper import beside_paper, read_paper
from study.pictures import charts, draw, gains
from study.plantings import Planting
from study.results import CUTOFFS, add, read_results
from study.run import missing, run
from study.table import as_fields, rows_of, table

RANKS = {"none": [1.0, 30.0, 30.0, 30.0] * 9, "clean": [1.0, 1.0, 1.0, 30.0] * 9, "cloze": [1.0, 1.0, 30.0, 30.0] * 9}


def evaluated(folder: Path, ranks: list[float]) -> Path:
    """As the stage `evaluate` writes them: rows of both splits."""
    splits, place = [VALIDATION] * len(ranks) + [TEST] * len(ranks), folder / "ranks.parquet"
    columns = {f"rank_{protocol}": [1.0] * len(ranks) + ranks for protocol in PROTOCOLS}
    pyarrow.parquet.write_table(pa.table({SPLIT: splits, **columns}), place)
    return place


def line(cell: Cell, ranks: list[float]) -> dict[str, Any]:
    metrics = {
        metric_name(name, cutoff, protocol, TEST): float(function(np.array(ranks), cutoff).mean())
        for protocol in PROTOCOLS
        for name, function in METRICS.items()
        for cutoff in CUTOFFS
    }
    machine = {"device": "cpu", "cpu": "one", "dtype": "float32", "torch": "2", "commit": "abc"}
    return {"cell": cell.name, "metrics": metrics, "machine": machine, "params": cell.decisive()}


def trainings(*patterns: str) -> list[Cell]:
    return of_kind(Cell, cells_of(read_declared(), patterns))


def of_planted(*methods: str, seed: int = 0) -> list[Cell]:
    return trainings(*(f"planted-20/beauty/sasrec/{method}/{seed}" for method in methods))


def plantings(*patterns: str) -> list[Planting]:
    return of_kind(Planting, cells_of(read_declared(), patterns))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Lines of three cells, whose users are hit once, three times and twice of four."""
    path = tmp_path / "study.jsonl"
    for cell in of_planted(*RANKS):
        add(path, line(cell, RANKS[cell.method]), evaluated(tmp_path, RANKS[cell.method]))
    return path


def test_a_table_by_hand(written: Path) -> None:
    """HR@10 is 1/4 without, 3/4 where nothing was planted, and 2/4: half is won back; over 36 users that is no chance.
    One seed has no deviation."""
    found = "\n".join(table(of_planted(*RANKS), read_results(written)))
    assert "| beauty, sasrec, none | 0 | .2500 |" in found
    assert "| beauty, sasrec, cloze | 0 | .5000 + (.50) |" in found
    assert "`cloze` against `none` in 1 of 1 rows: better in 1 / 1 / 1 / 1, worse in 0 / 0 / 0 / 0." in found
    assert "Trained on: cpu (one), float32, torch 2. Revisions: abc." in found


def test_all_numbers_behind_a_table(written: Path) -> None:
    """Of the same: the method gains 1/4, and its p-value and the interval of what it wins back are there."""
    plain, _, cloze = as_fields(of_planted(*RANKS), read_results(written))
    found = cloze["hr_10_filtered"]
    assert plain["hr_10_filtered"] == {"mean": 0.25, "std": None} and cloze["seeds"] == [0]
    assert (found["gained"], found["recovered"]) == (0.25, 0.5) and 0 < found["p"] < 0.01
    assert found["recovered_95"][0] < 0.5 < found["recovered_95"][1]


def test_what_was_not_run_shows(written: Path) -> None:
    cells = trainings("planted-20/beauty")
    found = list(table(cells, read_results(written)))
    assert found[-1] == "Not run yet: `random`." and not any(", random |" in line for line in found)
    both = list(table(trainings("planted-20/beauty", "planted-20/toys"), read_results(written)))
    assert both[-1] == ("Not run yet: `random`; `none` on toys sasrec; `clean` on toys sasrec; `cloze` on toys sasrec.")


def test_methods_are_compared_on_the_seeds_that_they_share(written: Path, tmp_path: Path) -> None:
    """A second seed of the plain backbone, as good as the method, changes its mean but not the comparison."""
    cell = of_planted("none", seed=1)[0]
    add(written, line(cell, RANKS["cloze"]), evaluated(tmp_path, RANKS["cloze"]))
    found = "\n".join(table(trainings("planted-20/beauty"), read_results(written)))
    assert "| beauty, sasrec, none | 0, 1 | .3750 ± .1768 |" in found
    assert "| beauty, sasrec, cloze | 0 | .5000 + (.50) |" in found


def test_ranks_beyond_all_cutoffs_count_for_nothing(written: Path) -> None:
    results = read_results(written)
    found = results.values(results.lines["planted-20/beauty/sasrec/none/0"])
    assert found[metric_name("ndcg", 20, PROTOCOLS[0])].tolist() == [1.0, 0.0, 0.0, 0.0] * 9


def test_ranks_of_another_training_are_refused(written: Path, tmp_path: Path) -> None:
    results = read_results(written)
    one, other = (results.ranks / f"planted-20/beauty/sasrec/{name}/0.parquet" for name in ("none", "cloze"))
    one.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match="gives another hr_5_unfiltered than the line"):
        list(table(of_planted(*RANKS), results))
    one.unlink()
    with pytest.raises(UserError, match=r"none/0\.parquet: missing"):
        list(table(of_planted(*RANKS), results))


def test_a_line_with_other_parameters_is_none(written: Path) -> None:
    """The learning rate has changed since: the cell is missing. A parameter that is new since is not held against it;
    and what the clean cell found is also what a cell without noise would."""
    lines = [json.loads(each) for each in written.read_text().splitlines()]
    none = next(each for each in lines if each["cell"].endswith("none/0"))
    del none["params"]["train.dim"]
    written.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert missing(of_planted(*RANKS), written) == []
    assert missing(trainings("unplanted/beauty/sasrec/none/0"), written) == []
    none["params"]["train.learning_rate"] = 0.5
    written.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert [cell.method for cell in missing(of_planted(*RANKS), written)] == ["none"]


def test_cells_are_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tiny cells, side by side; asked again, both are there, and each has the ranks that its line says."""
    monkeypatch.setattr(prepared, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))
    cells = trainings("quick/demo/gru4rec/none/0", "quick/demo/gru4rec/random/0")
    path = tmp_path / "study.jsonl"
    cells = with_changes(cells, TINY)
    assert {cell.method for cell in run(cells, path, 2)} == {"none", "random"}
    assert missing(cells, path) == []
    results = read_results(path)
    assert len(results.lines) == 2
    for each in results.lines.values():
        assert each["seconds"] > 0 and each["machine"]["threads"] == 1 and each["memory_bytes"] > 1e8
        assert [len(each["popularity"][equal]) for equal in READINGS] == [5, 5] and "cases" not in each
        results.values(each)


def test_an_older_line_of_another_cell_is_as_good(written: Path) -> None:
    """What was found before `train.average` was there is also what a cell of equal parameters would find; a planting,
    whose parameters are some of a training's, is none."""
    lines = [json.loads(each) for each in written.read_text().splitlines()]
    for each in lines:
        del each["params"]["train.average"]
    of_detector = next(line["params"] for line in lines if line["cell"].endswith("cloze/0"))
    some = {key: of_detector[key] for key in plantings("detection/beauty/uniform/0")[0].decisive()}
    lines.append({"cell": "detection/beauty/uniform/7", "params": some})
    written.write_text("".join(json.dumps(each) + "\n" for each in lines))
    assert missing(trainings("unplanted/beauty/sasrec/none/0"), written) == []
    results = read_results(written)
    found = results.line_of(of_planted("cloze")[0]._replace(group="planted-40"))
    assert found and found["cell"] == "planted-20/beauty/sasrec/cloze/0"


def test_a_trial_is_no_part_of_the_study() -> None:
    done = CliRunner().invoke(app, ["run", "--cells", "quick", "--set", "train.max_epochs=1"])
    assert done.exit_code and "give --results FILE as well" in done.output


def test_a_trial_keeps_the_names_of_its_cells() -> None:
    done = CliRunner().invoke(app, ["run", "--cells", "quick", "--set", "seed=1", "--results", "trial.jsonl"])
    assert done.exit_code and "--set seed=1: cells have a seed of their own" in done.output


def test_cells_of_equal_parameters_are_trained_once(tmp_path: Path) -> None:
    """What 20% and 40% of noise are compared with is the same."""
    cells = trainings("*/beauty/sasrec/clean/3")
    assert len(cells) == 2 and missing(cells, tmp_path / "none.jsonl") == cells[:1]


def test_a_new_parameter_that_a_cell_sets_is_held_against_a_line(written: Path) -> None:
    """A line from before there was `random_drop` is of the plain backbone, and of no method that sets it."""
    lines = [json.loads(each) for each in written.read_text().splitlines()]
    for each in lines:
        each["params"].pop("denoisers.none.random_drop", None)
    written.write_text("".join(json.dumps(each) + "\n" for each in lines))
    absent = missing(of_planted("none", "random"), written)
    assert [cell.method for cell in absent] == ["random"]


def test_an_unknown_group_is_refused() -> None:
    done = CliRunner().invoke(app, ["table", "nothing"])
    assert done.exit_code and "nothing: no group of cells.yaml; there are quick" in done.output


PLANTED = {"auc": 0.9, "auc_stratified": 0.8, "auc_cold": 0.7, "precision_at_rate": 0.5, "ece": 0.04}


def test_what_detectors_found_by_hand(tmp_path: Path) -> None:
    """Two plantings of one kind, whose AUC is .9 and .7; nothing is known of the others."""
    path = tmp_path / "study.jsonl"
    of_gap = {"alone": {"auc": 0.6}, "without": {"auc": 0.5}}
    learnt = {"learnt_from": {"truth": {"auc": 0.95}}, "signals": {"gap": of_gap}}
    machine = {"device": "cpu", "cpu": "one", "dtype": "float32", "torch": "2", "commit": "abc"}
    cells = plantings("detection/beauty")
    for cell, auc in zip(plantings("detection/beauty/burst")[:2], (0.9, 0.7), strict=True):
        line = {"cell": cell.name, **PLANTED, **learnt, "auc": auc, "machine": machine, "params": cell.decisive()}
        add(path, line)
    found = list(found_table(cells, read_results(path)))
    assert "| beauty, burst (2) | .800 ± .141 | .800 ± .000 | .700 ± .000 | .500 ± .000 | .040 ± .000 |" in found
    assert "Not run yet: beauty uniform, beauty popularity, beauty near_miss." in found
    assert "| truth | .950 ± .000 |" in found and "| gap, without | .500 ± .000 |" in found
    assert len(missing(cells, path)) == len(cells) - 2


def test_a_planting_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command is that of benchmarks.noise, whose JSON becomes the line; nothing of training decides it."""
    asked: list[list[str]] = []

    def measured(command: list[str], **_: Any) -> CompletedProcess[str]:
        asked.append(command)
        machine = {"device": "cpu", "cpu": "one", "threads": 1, "torch": "2", "commit": "abc", "dtype": "float32"}
        told = {**PLANTED, "kind": "burst", "seconds": 1.0, **machine, "learnt_from": {}, "signals": {}}
        return CompletedProcess(command, 0, json.dumps(told))

    monkeypatch.setattr("study.plantings.subprocess.run", measured)
    monkeypatch.setattr("study.run.prepared", lambda content: None)
    cells, path = plantings("detection/beauty/burst/1"), tmp_path / "study.jsonl"
    assert [cell.name for cell in run(cells, path, 1)] == ["detection/beauty/burst/1"]
    assert missing(cells, path) == [] and missing(with_changes(cells, ["train.learning_rate=0.5"]), path) == []
    for change in ("denoisers.cloze.detector.folds=3", "theta=0.5", "denoisers.cloze.drop_above=0.6"):
        assert missing(with_changes(cells, [change]), path), change
    assert "Trained on: cpu (one), float32, torch 2. Revisions: abc." in found_table(cells, read_results(path))
    (command,) = asked
    assert command[1:7] == ["-m", "benchmarks.noise", "--dataset", "beauty", "--kind", "burst"]
    assert "--set=train.threads=1" in command and not any("noise.kind" in part for part in command)


def test_every_planting_goes_together() -> None:
    """A detector never trains on the kind that is planted."""
    cells = plantings("detection")
    assert cells and not any(cell.name.startswith("detection/sports/near_miss") for cell in cells)
    for cell in cells:
        content = cell.content()
        assert content["noise"]["kind"] == cell.kind
        assert cell.kind not in content["denoisers"]["cloze"]["detector"]["kinds"]


def test_a_trial_changes_nothing_that_a_plantings_name_says() -> None:
    cells = plantings("detection/beauty/burst/1")
    for change in ("noise.kind=uniform", "noise.seed=3", "seed=3"):
        with pytest.raises(UserError, match=r"cells have a .* of their own"):
            with_changes(cells, [change])


def test_pictures_show_what_there_is(tmp_path: Path, written: Path) -> None:
    """Gains of the three cells that were run; with a planting also detection and calibration; of nothing none."""
    cells = cells_of(read_declared())
    assert charts(read_results(tmp_path / "none.jsonl"), cells) == {}
    assert list(charts(read_results(written), cells)) == ["gains"]
    chart = gains(rows_of(trainings("planted-20"), read_results(written)))
    assert chart and len(chart.to_dict()["data"]["values"]) == 3 * 2
    for cell in plantings("detection/beauty/burst"):
        line = {
            "cell": cell.name,
            **PLANTED,
            "learnt_from": {"truth": {"auc": 0.95}},
            "calibration": [[0.1, 0.2, 9, 1]],
        }
        add(written, {**line, "machine": {}, "params": cell.decisive()})
    drawn = list(draw(tmp_path, charts(read_results(written), cells)))
    assert [path.name for path in drawn] == ["detection.png", "calibration.png", "gains.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_numbers_of_the_paper_stand_beside_ours(written: Path, tmp_path: Path) -> None:
    """Of the same data set, backbone and method, where the print has them; a fourth of our users is hit."""
    (tmp_path / "paper.csv").write_text(
        "table,dataset,backbone,method,HR@10,NDCG@10\n2,beauty,sasrec,none,0.0385,\n2,beauty,sasrec,iadsr,.05,.03\n"
    )
    rows = rows_of(of_planted("none", "cloze"), read_results(written))
    found = list(beside_paper(rows, read_paper(tmp_path / "paper.csv")))
    assert found[2:3] == ["| beauty, sasrec, none | .2500 | .0385 | .2500 |  |"] and len(found) == 5
    released = list(beside_paper([rows[0]._replace(method="released")], read_paper(tmp_path / "paper.csv")))
    assert released[2:3] == ["| beauty, sasrec, released | .2500 | .0385 | .2500 |  |"]
    assert not list(beside_paper(rows, {}))
