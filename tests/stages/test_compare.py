"""Whether denoising helps: numbers by hand, a whole comparison of a tiny demo, and clear errors."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from small_project import assert_one_error, change, invoke, succeed

from iadsr.artifacts import write_json
from iadsr.params import read_params
from stages import paths
from stages.compare import Found, compared, conclusion, found_of_planted, lines, with_plants

USERS = 40


def seed_folder(place: Path, hits: int) -> Path:
    """A training in which so many users have their item first, the others nowhere."""
    ranks = [1.0] * hits + [99.0] * (USERS - hits)
    table = pa.table({"split": ["test"] * USERS, "rank_unfiltered": ranks, "rank_filtered": ranks})
    (place / paths.RANKS).parent.mkdir(parents=True)
    pyarrow.parquet.write_table(table, place / paths.RANKS)
    write_json(place / paths.DETAILS, {"drop_ratio": 0.25})
    return place


def of_hits(tmp_path: Path, **by_seed: list[int]) -> Found:
    """Methods whose seeds have so many hits."""
    return compared(
        {
            name: [seed_folder(tmp_path / f"{name}-{i}", each) for i, each in enumerate(some)]
            for name, some in by_seed.items()
        }
    )


def test_numbers_by_hand(tmp_path: Path) -> None:
    """Of 40 users 10 and 10 without, 20 and 22 with: .25 and .525 on average, with a deviation of .05 / sqrt(2)."""
    found = of_hits(tmp_path, none=[10, 10], cloze=[20, 22])
    test = found["cloze"]["hr_10_unfiltered"]
    assert found["none"]["hr_10_unfiltered"] == {"mean": 0.25, "std": 0.0}
    assert test["mean"] == pytest.approx(0.525) and test["std"] == pytest.approx(0.05 / 2**0.5)
    assert test["gained"] == pytest.approx(0.275) and test["low"] < 0.275 < test["high"] and 0 < test["p"] < 0.01
    assert found["cloze"]["dropped"] == 0.25


def test_p_values_are_corrected_over_methods(tmp_path: Path) -> None:
    alone, beside = of_hits(tmp_path / "a", none=[10], a=[16]), of_hits(tmp_path / "b", none=[10], a=[16], b=[16])
    assert beside["a"]["ndcg_10_filtered"]["p"] == pytest.approx(2 * alone["a"]["ndcg_10_filtered"]["p"])


@pytest.mark.parametrize(
    ("hits", "said"),
    [
        ({"none": [10], "a": [20], "b": [30]}, "b helps: NDCG@10 is +200% over none, and no less than +0."),
        (
            {"none": [20], "a": [20]},
            "No method is better than none beyond chance (p < 0.05), and none is measurably worse.",
        ),
        (
            {"none": [20], "a": [5], "b": [21]},
            "No method is better than none beyond chance (p < 0.05); a cost accuracy.",
        ),
        ({"none": [0], "a": [20]}, "a helps, and no less than +0."),
    ],
)
def test_the_conclusion(hits: dict[str, list[int]], said: str, tmp_path: Path) -> None:
    assert conclusion(of_hits(tmp_path, **hits)).startswith(said)


def test_the_table_marks_what_is_no_chance(tmp_path: Path) -> None:
    found = of_hits(tmp_path, none=[10], better=[20], worse=[2], alike=[10])
    shown = {
        line.split()[0]: line for line in lines({"dataset": "d", "seeds": [0], "methods": found, "conclusion": ""})[1:5]
    }
    assert [shown[name].count(mark) for name, mark in (("better", "+"), ("worse", "-"), ("alike", "+"))] == [4, 4, 0]


def test_a_whole_comparison(copy: Path) -> None:
    """Of the project's own data, also of a method that takes no backbone; asked again, nothing is trained again."""
    change(train__max_epochs=1, denoiser="cloze")
    options = ("--methods", "dcrec,cloze", "--seeds", "0", "--json")
    first = invoke("compare", *options)
    assert first.exit_code == 0, first.stderr
    found = json.loads(first.stdout)
    assert list(found["methods"]) == ["dcrec", "cloze"]
    assert "planted" not in found and found["conclusion"]  # the demo's accidents are known
    assert json.loads(invoke("compare", *options).stdout) == found
    log = (copy / ".cache/compare/cloze/models/seeds/0/log.txt").read_text()
    assert log.count("best epoch") == 1 and "trained already" in log
    assert not (copy / "models/seeds").exists()


def test_noise_is_planted_where_none_is_known(copy: Path) -> None:
    """Here into a demo without accidents; the detector is trained on the other kinds."""
    change(datasets__demo__source__noise=0.0, denoiser="cloze", train__max_epochs=1)
    succeed("ingest", "filter")
    content = with_plants(read_params(paths.PARAMS))
    assert content and "uniform" not in content["denoisers"]["cloze"]["detector"]["kinds"]
    assert 0 < found_of_planted(content)["noise_auc"] < 1
    change(denoisers__cloze__detector__kinds=["uniform"])
    assert_one_error(invoke("compare", "--methods", "none,cloze"), "denoisers.cloze.detector.kinds")


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("none,best", "--methods best: no entry of `denoisers`"),
        ("none", "expected two different"),
        ("none,none", "two different"),
    ],
)
def test_wrong_methods(copy: Path, methods: str, said: str) -> None:
    assert_one_error(invoke("compare", "--methods", methods), said)


def test_methods_need_a_backbone(copy: Path) -> None:
    change(backbone="none", denoiser="dcrec")
    assert_one_error(invoke("compare", "--methods", "none,cloze"), "backbone: none, but none needs one")


def test_data_must_be_there(copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "params.yaml").write_bytes((copy / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path / "new")
    assert_one_error(invoke("compare", "--methods", "none,cloze"), "data/filtered: missing; run `dvc repro` first")
