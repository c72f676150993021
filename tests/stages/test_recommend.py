"""`python -m stages.recommend`: lists that agree with the evaluation, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_project import K, assert_one_error, change, check_places, invoke, raw_histories, some_ids, succeed

from iadsr.provenance import write_sealed
from iadsr.sequences.text_vectors import read_manifest
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
    assert top.columns == ["user", "rank", "item", "title", "score", "note"]
    assert top["note"].null_count() == len(top)
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
        (("--histories", "x.csv"), "x.csv: no such file"),
        (("--histories", "empty.csv"), "empty.csv: the file is empty"),
        (("--histories", "columns.csv"), "columns.csv: no column 'item' (`columns.item`)"),
        (("--histories", "unknown.csv", "--unknown", "fail"), "unknown.csv, user 'u': unknown item 'a'"),
        (("--histories", "header.csv"), "header.csv: no row in it"),
        (("--histories", "nested.parquet"), "nested.parquet, column 'item'"),
        (("--histories", "csv.parquet"), "csv.parquet: the file is text, expected Parquet"),
    ],
)
def test_recommend_refuses(copy: Path, arguments: tuple[str, ...], said: str) -> None:
    Path("empty.csv").write_text("")
    Path("columns.csv").write_text("user,thing\nu,a\n")
    Path("unknown.csv").write_text("user,item\nu,a\n")
    Path("header.csv").write_text("user,item\n")
    pl.DataFrame({"user": ["u"], "item": [[["a"]]]}).write_parquet("nested.parquet")
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
    write_sealed(paths.ENCODED / "manifest.json", {**read_manifest(paths.ENCODED), "separator": ", "})
    assert_one_error(invoke(*command), "data/encoded: made anew since the model was trained; run `dvc repro train`")


def test_recommend_refuses_a_k_beyond_the_catalogue(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    count = pl.read_parquet(paths.ITEMS).height
    result = invoke("recommend", "--history", some_ids(1)[0], "--k", str(count + 1))
    assert_one_error(result, f"k: expected 1 to {count} (the catalogue), found {count + 1}")
    assert invoke("recommend", "--history", "A", "--k", "0").exit_code == 2  # typer's own check


# --- items that the model does not know ---


def write_log(name: str, rows: Sequence[tuple[str, ...]], columns: tuple[str, ...] = ("user", "item")) -> None:
    with open(name, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


def test_unknown_items_of_a_file_are_skipped_and_counted(copy: Path) -> None:
    """Three of two users; nothing is left for b, whose row says so. In a table as in a CSV as in Parquet."""
    one, other = some_ids(2)
    rows = [("a", "new"), ("a", one), ("b", "x"), ("b", "y"), ("c", other), ("a", other)]
    write_log("log.csv", rows)
    write_log("known.csv", [row for row in rows if row[1] in (one, other)])
    command = ("recommend", "--histories", "log.csv", "--k", "2")
    shown, written = invoke(*command), invoke(*command, "--out", "top.csv")
    assert shown.exit_code == 0 and invoke(*command, "--out", "top.parquet").exit_code == 0
    said = "skipped 3 items of 2 of 3 users that the model does not know, as 'new' of user 'a'"
    assert said in shown.stderr and said in written.stderr
    assert written.stdout == "wrote 4 recommendations to top.csv, none for 1 users\n"
    note = f"history: the model knows none of the items, as 'x'; ids are those of the data set, as {one}, {other}"
    assert f"user b\n      {note}" in shown.stdout
    top, exact = pl.read_csv("top.csv"), pl.read_parquet("top.parquet")
    assert top["user"].to_list() == exact["user"].to_list() == ["a", "a", "b", "c", "c"]
    (empty,) = exact.filter(pl.col("rank").is_null()).rows()
    assert empty[:5] == ("b", None, None, None, None) and empty[5].startswith(note)
    assert exact.filter(pl.col("user") != "b")["note"].to_list() == [""] * 4
    assert invoke("recommend", "--histories", "known.csv", "--k", "2", "--out", "known.parquet").exit_code == 0
    assert exact.filter(pl.col("user") != "b").equals(pl.read_parquet("known.parquet"))


def test_a_file_is_read_as_the_projects_log_is(copy: Path) -> None:
    """Its columns have the names of params.yaml, it is sorted by time, and a bad row is left out and told of."""
    one, other = some_ids(2)
    columns = {"user": "who", "item": "what", "timestamp": "when"}
    source = {"kind": "files", "interactions": "own/log.csv", "items": "own/items.csv", "columns": columns}
    change(datasets__demo__source={**source, "columns": {**columns, "title": "name"}})
    write_log(
        "log.csv",
        [("a", other, "1600000001"), ("a", one, "1600000000"), ("b", "", "1600000000")],
        tuple(columns.values()),
    )
    result = invoke("recommend", "--histories", "log.csv", "--k", "2")
    expected = invoke("recommend", "--history", f"{one},{other}", "--k", "2").stdout
    assert result.stdout == f"user a\n{expected}user b\n      history: empty; give at least one item id\n"
    assert "log.csv: 1 of 3 rows left out; first: row 4: item is missing" in result.stderr


def test_one_line_fails_for_an_unknown_item_unless_told_to_skip(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    (one,) = some_ids(1)
    line = ("recommend", "--history", f"{one},nope", "--k", "2")
    assert_one_error(invoke(*line), "--history: unknown item 'nope'")
    result = invoke(*line, "--unknown", "skip")
    assert "skipped 1 items of the history that the model does not know, as 'nope'\n" in result.stderr
    assert result.stdout == invoke("recommend", "--history", one, "--k", "2").stdout


def test_titles_of_unknown_items_are_read(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file's own column, else of all items of the log; the first one of an item counts."""
    from stages import recommend

    opened: list[Any] = []
    open_server = recommend.open_server

    def kept(*given: Any, **more: Any) -> Any:
        opened.append(open_server(*given, **more))
        return opened[0]

    monkeypatch.setattr(recommend, "open_server", kept)
    (one,) = some_ids(1)
    removed = pl.read_parquet(paths.RAW_ITEMS).filter(~pl.col("item").is_in(pl.read_parquet(paths.ITEMS)["raw_item"]))
    rows = [("a", one, "known"), ("a", "new", "New"), ("a", "new", "Newer"), ("a", removed["item"][0], "")]
    write_log("log.csv", rows, ("user", "item", "title"))
    assert invoke("recommend", "--histories", "log.csv", "--k", "2").exit_code == 0
    reading = opened[0].catalogue.read([one, "new", removed["item"][0]], None, True)
    titles = dict(pl.read_parquet(paths.ITEMS).select("raw_item", "title").rows())
    assert reading.titles == [titles[one], "New", removed["title"][0]]


def test_a_user_who_has_seen_everything_gets_a_row(copy: Path) -> None:
    write_log("log.csv", [("a", item) for item in pl.read_parquet(paths.ITEMS)["raw_item"]])
    assert "user a\n      nothing left to recommend" in invoke("recommend", "--histories", "log.csv").stdout


def test_cells_that_a_spreadsheet_would_run(copy: Path) -> None:
    """In a CSV; Parquet is exact."""
    user = "=cmd()"
    write_log("log.csv", [(user, *some_ids(1))])
    for out in ("top.csv", "top.parquet"):
        assert invoke("recommend", "--histories", "log.csv", "--k", "1", "--out", out).exit_code == 0
    assert pl.read_csv("top.csv")["user"].to_list() == [f"'{user}"]
    assert pl.read_parquet("top.parquet")["user"].to_list() == [user]


def test_many_histories_are_screened_and_get_the_same_lists(copy: Path) -> None:
    """With prefixes as texts; those of the evaluation, which read every text."""
    change(encode__prefixes="joint")
    succeed("encode", "train", "evaluate")
    histories, _ = raw_histories()
    write_log("log.csv", [(f"u{user}", item) for user, items in enumerate(histories) for item in items])
    assert invoke("recommend", "--histories", "log.csv", "--k", str(K), "--out", "top.parquet").exit_code == 0
    top = pl.read_parquet("top.parquet")
    check_places(top.group_by("user", maintain_order=True).agg("item")["item"].to_list())
