"""`python -m stages.recommend`: lists that agree with the evaluation, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_project import K, assert_one_error, change, check_places, invoke, raw_histories, some_ids

from stages import paths


def test_recommend_agrees_with_evaluate(copy: Path) -> None:
    histories, _ = raw_histories()
    with open("histories.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user", "item"])
        writer.writerows((f"u{user}", f" {item} ") for user, items in enumerate(histories) for item in items)
    result = invoke("recommend", "--histories", "histories.csv", "--k", str(K), "--out", "new/top.csv")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"wrote {K * len(histories)} recommendations to new/top.csv\n"
    top = pl.read_csv("new/top.csv", schema_overrides={"item": pl.String})
    assert top.columns == ["user", "rank", "item", "title", "score"]
    assert top["rank"].to_list() == [*range(1, K + 1)] * len(histories)
    check_places(top.group_by("user", maintain_order=True).agg("item")["item"].to_list())


def test_recommend_from_lists_in_parquet(copy: Path) -> None:
    """One row a user and one row an item say the same; the ending may be in capitals."""
    ids = some_ids(5)
    pl.DataFrame({"user": [2, 1], "item": [ids[:3], ids[3:]]}).write_parquet("lists.parquet")
    pl.DataFrame({"user": [2, 2, 2, 1, 1], "item": ids}).write_parquet("rows.PARQUET")
    files = ("lists.parquet", "rows.PARQUET")
    lists, rows = (invoke("recommend", "--histories", name, "--k", "3").stdout for name in files)
    assert lists == rows
    assert [line for line in lists.splitlines() if line.startswith("user")] == ["user 2", "user 1"]


def test_recommend_names_a_place_where_it_cannot_write(copy: Path) -> None:
    Path("taken").touch()
    result = invoke("recommend", "--history", some_ids(1)[0], "--out", "taken/top.csv")
    assert_one_error(result, "taken: ")


def test_recommend_for_one_history(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    one, other, _ = some_ids(3)
    lines = invoke("recommend", "--history", f"{one}, {other}", "--k", "4").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3", "4"]
    titles = dict(pl.read_parquet(paths.ITEMS).select("raw_item", "title").rows())
    assert all(line.endswith(titles[line.split()[1]]) for line in lines)
    assert not {one, other} & {line.split()[1] for line in lines}


def test_recommend_all_but_the_seen(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With k the whole catalogue, the two seen items are left out, unless they are asked for."""
    monkeypatch.chdir(chain)
    count = pl.read_parquet(paths.ITEMS).height
    arguments = ("recommend", "--history", ",".join(some_ids(2)), "--k", str(count))
    assert len(invoke(*arguments).stdout.splitlines()) == count - 2
    assert len(invoke(*arguments, "--keep-seen").stdout.splitlines()) == count


def test_a_long_history_counts_by_its_newest_items(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """max_length is 8: of 20 items the first 12 change no score, but are not recommended."""
    monkeypatch.chdir(chain)
    ids = some_ids(20)
    long, short = (
        invoke("recommend", "--history", ",".join(part), "--k", "39", "--keep-seen").stdout for part in (ids, ids[12:])
    )
    assert long == short
    assert not set(ids) & set(invoke("recommend", "--history", ",".join(ids), "--k", "19").stdout.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --history ID,ID,... or --histories FILE"),
        (("--history", "A", "--histories", "x.csv"), "give either --history"),
        (("--history", ""), "give either --history"),
        (("--history", "nonsense"), "--history: unknown item 'nonsense'; ids are those of the data set, as "),
        (("--history", ","), "--history: unknown item ''"),
        (("--histories", "x.csv"), "x.csv: cannot be read"),
        (("--histories", "empty.csv"), "empty.csv: cannot be read"),
        (("--histories", "columns.csv"), "columns.csv: no column 'item'; found user, thing"),
        (("--histories", "gap.csv"), "gap.csv: data row 2: user or item is missing"),
        (("--histories", "unknown.csv"), "unknown.csv, user 'u': unknown item 'a'"),
        (("--histories", "header.csv"), "header.csv: no row in it"),
        (("--histories", "nested.parquet"), "nested.parquet: cannot be read ("),
        (("--histories", "gap.parquet"), "gap.parquet: data row 2: user or item is missing"),
        (("--histories", "csv.parquet"), "csv.parquet: cannot be read ("),
    ],
)
def test_recommend_refuses(copy: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("empty.csv").write_text("")
    Path("columns.csv").write_text("user,thing\nu,a\n")
    Path("gap.csv").write_text("user,item\nu,a\nu,\n")
    Path("unknown.csv").write_text("user,item\nu,a\n")
    Path("header.csv").write_text("user,item\n")
    pl.DataFrame({"user": ["u"], "item": [[["a"]]]}).write_parquet("nested.parquet")
    pl.DataFrame({"user": ["u", "v"], "item": [["a", "b"], []]}).write_parquet("gap.parquet")
    Path("csv.parquet").write_text("user,item\nu,a\n")
    result = invoke("recommend", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert_one_error(result, said)


@pytest.mark.parametrize("command", [("recommend", "--history", "A"), ("evaluate",)])
@pytest.mark.parametrize(("key", "value", "trained"), [("max_tokens", 128, 256), ("pooling", "cls", "'mean'")])
def test_another_encoder_than_the_models_is_refused(
    copy: Path, command: tuple[str, ...], key: str, value: Any, trained: str
) -> None:
    """Its vectors would be others than those that the model has learnt to read: all scores would silently change."""
    change(**{f"encoders.minilm.{key}": value})
    said = f"params.yaml: encoders.minilm.{key} is {value!r}, but the model was trained with {trained}; set it back"
    assert_one_error(invoke(*command), said)


@pytest.mark.parametrize("command", [("recommend", "--history", "A"), ("evaluate",)])
def test_other_encodings_than_the_models_are_refused(copy: Path, command: tuple[str, ...]) -> None:
    """As after `python -m stages.encode` alone."""
    manifest = json.loads((paths.ENCODED / "manifest.json").read_text())
    (paths.ENCODED / "manifest.json").write_text(json.dumps({**manifest, "separator": ", "}))
    assert_one_error(invoke(*command), "data/encoded: made anew since the model was trained; run `dvc repro train`")


def test_recommend_refuses_a_k_beyond_the_catalogue(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    count = pl.read_parquet(paths.ITEMS).height
    result = invoke("recommend", "--history", some_ids(1)[0], "--k", str(count + 1))
    assert_one_error(result, f"k: expected 1 to {count} (the catalogue), found {count + 1}")
    assert invoke("recommend", "--history", "A", "--k", "0").exit_code == 2  # typer's own check
