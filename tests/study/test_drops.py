"""What lines say of what was dropped, and the tables of it, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from stages import paths
from study.drop_tables import cases_table, cost, drops_table, popularity_table
from study.drops import OF_BUCKET, READINGS, Case, drops_of, history_of, read_cases
from study.pictures import popularity, thetas
from study.table import Row
from study.target_tables import targets_tables

TITLES = ["Bedhead Hook Up, large", "Serum", "Skinny Cream, small", "Soap"]


def trained(folder: Path, scores: list[float | None]) -> Path:
    """A seed's folder: one user with four items, the last of them the test item, and two buckets of popularity."""
    for path in (paths.VERDICTS, paths.ITEMS, paths.PLOTS / "x"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    items = [f"i{number}" for number in range(4)]
    pl.DataFrame(
        {
            **{"user": "u", "item": items, "position": range(4), "split": ["train", "train", "train", "test"]},
            **{"score": scores, "keep_probability": [0.9, 0.25, 0.8, 1.0], "kept": [True, False, True, True]},
        },
        schema_overrides={"score": pl.Float32, "keep_probability": pl.Float32},
    ).write_parquet(folder / paths.VERDICTS)
    columns = {"item": range(1, 5), "raw_item": items, "title": TITLES, "categories": ""}
    pl.DataFrame(columns).write_parquet(folder / paths.ITEMS)
    for equal in READINGS:
        buckets = pl.DataFrame({"bucket": [1, 2], "judged": [5, 5], **{name: [0.1, 0.3] for name in OF_BUCKET}})
        buckets.write_csv(folder / paths.PLOTS / f"buckets_equal_{equal}.csv")
    return folder


def test_what_is_read_of_a_training(tmp_path: Path) -> None:
    """The score rises with the place but for one exchange of three: a rank correlation of 1/2. The test item is left
    out; on another data set there is none of the paper's users."""
    found = drops_of(trained(tmp_path, [1.0, 3.0, 2.0, None]), "toys")
    assert found["popularity"]["items"][1] == dict.fromkeys(OF_BUCKET, 0.3)
    assert found["place"] == 0.5 and "cases" not in found
    assert "place" not in drops_of(trained(tmp_path, [None] * 4), "toys")
    case = Case("7", "beauty", ["Bedhead", "Skinny"], {})
    histories = pl.read_parquet(tmp_path / paths.VERDICTS).with_columns(title=pl.Series(TITLES))
    expected = {"titles": TITLES[:3], "kept": [True, False, True], "keep_probability": [0.9, 0.25, 0.8]}
    assert history_of(case, histories) == expected
    assert history_of(case._replace(titles=["Bedhead", "Brush"]), histories) == {}


def line(**own: Any) -> dict[str, Any]:
    buckets = [dict.fromkeys(OF_BUCKET, 0.1 * number) for number in range(1, 6)]
    metrics = {"drop_ratio": 0.02, "drop_ratio_expected": 0.1, "noise_auc": 0.75}
    spent = {"seconds": 120.0, "memory_bytes": 1_500_000_000}
    params = {"denoiser": "cloze"}
    return {"metrics": metrics, "popularity": dict.fromkeys(READINGS, buckets), "params": params, **spent, **own}


def test_tables_of_drops_by_hand() -> None:
    """Two seeds; of the plain backbone and of lines from before these numbers were kept nothing is said."""
    rows = [
        Row("beauty", "sasrec", "none", {0: line(params={"denoiser": "none"})}),
        Row("beauty", "sasrec", "cloze", {0: line(place=0.1), 1: line(place=0.3), 2: {"metrics": {}}}),
        Row("beauty", "sasrec", "iadsr", {0: line(metrics={**line()["metrics"], "noise_auc_at_place": 0.5})}),
        Row("toys", "sasrec", "cloze", {0: {"metrics": {"drop_ratio": 0.5}}}),
    ]
    found = list(drops_table(rows))
    assert "| beauty, sasrec, none |  |  | .750 |  | 2, 1.5 |" in found
    assert "| beauty, sasrec, cloze | 2.0% | 10.0% | .750 | .20 | 2, 1.5 |" in found
    assert "| beauty, sasrec, iadsr | 2.0% | 10.0% | .750 (.500) |  | 2, 1.5 |" in found
    assert not any("toys" in each for each in found) and not list(drops_table(rows[3:]))
    figure = list(popularity_table(rows))
    assert "| cloze: dropped, expected | 10.0% | 20.0% | 30.0% | 40.0% | 50.0% |" in figure
    assert figure.count("| none: NDCG@5 U | .1000 | .2000 | .3000 | .4000 | .5000 |") == 2
    assert not any("none: dropped" in each for each in figure) and not list(popularity_table(rows[3:]))
    assert cost([line(seconds=None)]) == ""


def test_the_papers_users_by_hand() -> None:
    """The paper's IADSR drops the first, ours the second, of which it is least sure too."""
    history = {"titles": TITLES[:3], "kept": [True, False, True], "keep_probability": [0.9, 0.25, 0.8]}
    rows = [
        Row("beauty", "gru4rec", method, {0: line(cases={"22099": history})}) for method in ("none", "iadsr", "adt")
    ]
    found = list(cases_table(rows, read_cases()))
    assert found[3:5] == [
        "| 22099, gru4rec, iadsr | 0 Bedhead Hook Up, | 1 Serum | 1 Serum (.25) |",
        "| 22099, gru4rec, adt |  | 1 Serum | 1 Serum (.25) |",
    ]
    sure = {**history, "kept": [True] * 3, "keep_probability": [1.0] * 3}
    (told,) = list(cases_table([Row("beauty", "none", "dcrec", {0: line(cases={"22099": sure})})], read_cases()))[3:4]
    assert told == "| 22099, none, dcrec |  | nothing |  |"


def test_figures_of_the_paper_by_hand() -> None:
    """Figure 1: of one method both readings have five buckets of each metric, of the plain backbone of accuracy alone.
    Figure 3: a point for each gate and metric, and the plain backbone without one."""
    rows = [Row("beauty", "sasrec", "none", {0: line()}), Row("beauty", "sasrec", "hsd", {0: line()})]
    chart = popularity(rows)
    assert chart and len(chart.to_dict()["data"]["values"]) == 2 * (2 + 1) * 5
    assert popularity(rows[:0]) is None and thetas(rows[:0]) is None
    metrics = {"test_hr_5_unfiltered": 0.1, "test_ndcg_5_unfiltered": 0.05}
    lines = {theta: {"metrics": metrics, "params": {"theta": theta}} for theta in (-0.9, 0.3)}
    gates = [Row("beauty", "gru4rec", f"theta_{theta}", {0: each}) for theta, each in lines.items()]
    chart = thetas([Row("beauty", "gru4rec", "none", {0: lines[0.3]}), *gates])
    assert chart
    drawn = [(each["metric"][:2], each.get("theta")) for each in chart.to_dict()["data"]["values"]]
    assert drawn == [("HR", None), ("ND", None), ("HR", -0.9), ("ND", -0.9), ("HR", 0.3), ("ND", 0.3)]


def test_accuracy_on_some_targets_by_hand() -> None:
    """Of two seeds both tell of cold items, one of liked ones; the other method tells of neither."""
    names = ("hr_10_unfiltered", "ndcg_10_unfiltered", "hr_10_filtered", "ndcg_10_filtered")
    lines = {
        seed: {"metrics": {f"test_cold_{name}": value for name in names} | {"test_cold_targets": 1200.0}}
        for seed, value in enumerate((0.1, 0.3))
    }
    lines[1]["metrics"] |= {f"test_liked_{name}": 0.5 for name in names} | {"test_liked_targets": 7.0}
    rows = [Row("ml-100k", "caser", "none", lines), Row("ml-100k", "caser", "hsd", {0: {"metrics": {}}})]
    found = list(targets_tables(rows))
    shown = [text for text in found if text.startswith("| ml-100k")]
    assert shown == [
        "| ml-100k, caser, none | 1,200 (2) |" + " .2000 ± .1414 |" * 4,
        "| ml-100k, caser, none | 7 (1) |" + " .5000 |" * 4,
    ]
    columns = " | HR@10 U | NDCG@10 U | HR@10 F | NDCG@10 F |"
    assert found[1] == f"| cold: data set, backbone, method | test items (seeds){columns}"
    assert list(targets_tables(rows[1:])) == []
