"""The command as a person runs it: exit status, messages, files, and what stays untouched when it fails."""

import errno
import gzip
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from iadsr import artifacts
from stages import paths
from stages.ingest import app

OUTPUTS = (paths.RAW_INTERACTIONS, paths.RAW_ITEMS, paths.RAW_REJECTS, paths.INGEST_METRICS)
DEMO = {"kind": "demo", "users": 20, "items": 60}
REVIEW = '{{"reviewerID": "U", "asin": "{}", "unixReviewTime": 5}}\n'
OWN = {
    "kind": "files",
    "interactions": "i.csv",
    "items": "items.csv",
    "columns": {name: name for name in ("user", "item", "timestamp", "title")},
}
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the stage in an empty folder on one data set's source; a folder `mirror` beside it serves official files."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "root")
    monkeypatch.setenv("IADSR_MIRROR", str(tmp_path / "mirror"))

    def command(source: dict[str, Any], max_rejects: Any = 0, **top: Any) -> Result:
        content = {"dataset": "mine", "ingest": {"max_rejects": max_rejects}, "datasets": {"mine": {"source": source}}}
        with open("params.yaml", "w") as file:
            YAML(typ="safe", pure=True).dump({**content, **top}, file)
        return CliRunner().invoke(app)

    return command


def amazon(folder: Path, reviews: str, meta: str) -> dict[str, str]:
    (folder / "reviews_Few_5.json.gz").write_bytes(gzip.compress(reviews.encode()))
    (folder / "meta_Few.json.gz").write_bytes(gzip.compress(meta.encode()))
    return {"kind": "amazon-2014", "category": "Few"}


def failed(result: Result, *parts: str) -> None:
    """Status 1, one line on stderr with these parts in it, and nothing written."""
    error = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.exit_code == 1, result.output
    assert len(error) == 1
    for part in parts:
        assert part in error[0]
    assert not Path("data").exists() and not Path("metrics").exists()


def test_all_outputs_and_a_summary(run: Run, tmp_path: Path) -> None:
    """Three reviews of A, B, C by one user: A has a title, B categories, C neither, A a second line; all is well."""
    meta = "{'asin': 'A', 'title': 'T'}\n{'asin': 'B', 'categories': [['X']]}\n{'asin': 'C'}\n{'asin': 'A'}\n"
    result = run(amazon(tmp_path / "mirror", "".join(map(REVIEW.format, "ABC")), meta))
    assert result.exit_code == 0, result.output
    assert pl.read_parquet(paths.RAW_INTERACTIONS).rows() == [("U", "A", 5), ("U", "B", 5), ("U", "C", 5)]
    assert pl.read_parquet(paths.RAW_ITEMS)["title"].to_list() == ["T", "X", "untitled item"]
    assert paths.RAW_REJECTS.read_text() == "file,row,reason,text\n"
    assert json.loads(paths.INGEST_METRICS.read_text()) == {
        "users": 1,
        "items": 3,
        "interactions": 3,
        "rejected_rows": 0,
        "titles_from_title": 1,
        "titles_from_categories": 1,
        "titles_neutral": 1,
    }
    assert "mine: 1 users, 3 items, 3 interactions" in result.stdout
    assert "rejected rows: 0; further rows of an item, left out: 1" in result.stdout
    assert all(str(path) in result.stdout for path in OUTPUTS)


def test_tolerated_rows_are_set_aside(run: Run, tmp_path: Path) -> None:
    """The second line of the reviews is broken, 300 characters long, and cut to 200 in the table of rejects."""
    source = amazon(tmp_path / "mirror", REVIEW.format("A") + "x" * 300 + "\n", "{'asin': 'A', 'title': 'T'}\n[]\n")
    failed(run(source, max_rejects=1), "reviews_Few_5.json.gz, row 2: not valid JSON", "first of 2 bad rows")
    assert run(source, max_rejects=2).exit_code == 0
    assert pl.read_csv(paths.RAW_REJECTS).rows() == [
        ("reviews_Few_5.json.gz", 2, "not valid JSON", "x" * 200),
        ("meta_Few.json.gz", 2, "expected a Python dict", "[]"),
    ]
    assert json.loads(paths.INGEST_METRICS.read_text())["rejected_rows"] == 2


def test_a_failure_leaves_earlier_outputs_as_they_were(run: Run, tmp_path: Path) -> None:
    assert run(DEMO).exit_code == 0
    before = [path.read_bytes() for path in OUTPUTS]
    assert run(amazon(tmp_path / "mirror", "broken\n", "")).exit_code == 1
    assert [path.read_bytes() for path in OUTPUTS] == before
    assert len(list(paths.RAW.iterdir())) == 4


def test_a_full_disk_leaves_earlier_outputs_as_they_were(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the last of the four files is written: the other three must not be renamed before it."""
    assert run(DEMO).exit_code == 0
    before = [path.read_bytes() for path in OUTPUTS]

    def full(path: Path, content: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(artifacts, "write_json", full)
    result = run({**DEMO, "seed": 1})
    assert result.exit_code == 1
    assert "no space left" in result.stderr
    assert [path.read_bytes() for path in OUTPUTS] == before
    assert len(list(paths.RAW.iterdir())) == 4


def test_the_demo_twice_gives_the_same_bytes(run: Run) -> None:
    outputs = []
    for _ in range(2):
        assert run(DEMO).exit_code == 0
        outputs.append([path.read_bytes() for path in OUTPUTS])
    assert outputs[0] == outputs[1]
    assert pl.read_parquet_schema(paths.RAW_INTERACTIONS) == {
        "user": pl.String,
        "item": pl.String,
        "timestamp": pl.Int64,
        "is_noise": pl.Boolean,
    }


def test_own_files(run: Run) -> None:
    Path("i.csv").write_text("user,item,timestamp\nu,b,2014-05-14\n")
    Path("items.csv").write_text("item,title\nb,Bee\n")
    assert run(OWN).exit_code == 0
    assert pl.read_parquet(paths.RAW_INTERACTIONS).rows() == [("u", "b", 1_400_025_600)]


def test_times_and_their_ties_are_printed(run: Run) -> None:
    """u: two of its two pairs are tied; v: its only pair is not; so 2 of 3 pairs, and one of two users."""
    rows = ("u,b,@1", "u,a,@1", "v,a,@1", "u,b,@1", "v,b,@9")
    Path("i.csv").write_text("\n".join(["user;item;timestamp", *rows]).replace(",", ";").replace("@", "140000000"))
    Path("items.csv").write_text("item,title\nb,Bee\na,Ay\n")
    result = run(OWN)
    assert "note: i.csv: fields are separated by ';'" in result.stderr
    assert "times: 2014-05-13 16:53:21 to 2014-05-13 16:53:29 UTC; 66.7% of neighbours" in result.stdout
    assert "equal times, and the file decides the order of 50.0% of the users" in result.stdout


def test_a_log_without_times(run: Run) -> None:
    """Times are the numbers of the rows, and this is said."""
    Path("i.csv").write_text("user,item\nu,b\nu,a\n")
    Path("items.csv").write_text("item,title\nb,Bee\na,Ay\n")
    result = run({**OWN, "columns": {"user": "user", "item": "item", "timestamp": None}})
    assert pl.read_parquet(paths.RAW_INTERACTIONS).rows() == [("u", "b", 0), ("u", "a", 1)]
    assert "note: i.csv: no column of times, so the order of the file counts" in result.stderr
    assert "times: none, so the order of the file counts" in result.stdout


def test_cells_that_a_spreadsheet_would_run_are_quoted(run: Run) -> None:
    """The bad row begins with a formula; its number is none."""
    Path("i.csv").write_text("item,user,timestamp\n=1+1,,1400000000\n-1,,1400000000\nb,u,1400000000\n")
    Path("items.csv").write_text("item,title\nb,Bee\n")
    assert run(OWN, max_rejects=2).exit_code == 0
    texts = pl.read_csv(paths.RAW_REJECTS)["text"].to_list()
    assert texts == ["'=1+1,,1400000000", "'-1,,1400000000"]


def test_own_times_keep_their_fractions_and_rows_their_ratings(run: Run) -> None:
    """Three rows of one second, at 30, 10 and 20 ms, so the order is b, c, a; a cleaned log can be joined with it."""
    from stages import filter as filter_stage

    Path("i.csv").write_text(
        "user,item,timestamp,stars\nu,a,@.03,5\nu,b,@.01,\nu,c,@.02,2.5\n".replace("@", "1400000000")
    )
    Path("items.csv").write_text("item,title\na,A\nb,B\nc,C\n")
    source: dict[str, Any] = {
        **OWN,
        "columns": {"user": "user", "item": "item", "timestamp": "timestamp", "rating": "stars"},
    }
    entry = {"core": 0, "max_length": 50, "source": source}
    settings = {"duplicates": "first", "ties": "shuffled", "ties_seed": 0}
    more = {"filter": settings, "noise": {"kind": "uniform", "ratio": 0.0, "seed": 0}, "datasets": {"mine": entry}}
    assert run(source, **more).exit_code == 0
    assert CliRunner().invoke(filter_stage.app).exit_code == 0
    assert pl.read_parquet(paths.ITEMS)["raw_item"].to_list() == ["b", "c", "a"]
    found = pl.read_parquet(paths.SEQUENCES)
    assert found.columns == ["user", "item", "position", "timestamp", "split", "nanosecond", "rating"]
    assert found.select("nanosecond", "rating").rows() == [(10_000_000, None), (20_000_000, 2.5), (30_000_000, 5.0)]
    assert json.loads(paths.DATASET_METRICS.read_text())["tied_last_two"] == 0.0


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ({"kind": "amazon-2014", "category": "Few"}, "reviews_Few_5.json.gz: missing from the mirror"),
        ({"kind": "movielens-100k"}, "ml-100k.zip: missing from the mirror"),
        ({"kind": "spotify"}, "datasets.mine.source.kind: expected one of demo, movielens-100k, amazon-2014, files"),
        ({"kind": "movielens-100k", "size": 1}, "datasets.mine.source.size: unknown parameter"),
        ({"kind": "amazon-2014"}, "datasets.mine.source.category: field required"),
        ({"kind": "amazon-2014", "category": "../Few"}, "datasets.mine.source.category: "),
        ({**DEMO, "noise": 1.0}, "datasets.mine.source.noise: input should be less than 1"),
        ({**DEMO, "noise": 0.95}, "`noise` of the demo: expected at most"),
        ({**DEMO, "users": 2}, "datasets.mine.source.users: input should be greater than or equal to 3"),
        ({**DEMO, "users": "many"}, "datasets.mine.source.users: input should be a valid integer"),
        ({"kind": "files", "interactions": "a.csv", "items": "b.csv"}, "datasets.mine.source.columns: field required"),
        (
            {"kind": "files", "interactions": "a.csv", "items": "b.csv", "columns": {"user": "u"}},
            "datasets.mine.source.columns.item: field required",
        ),
    ],
)
def test_a_wrong_source_is_one_clear_message(run: Run, source: dict[str, Any], part: str) -> None:
    failed(run(source), part)


def test_items_without_a_row_are_one_clear_message_or_tolerated(run: Run, tmp_path: Path) -> None:
    """A has a line, B none: an error, or a line without a row's number in the table of rejects."""
    source = amazon(tmp_path / "mirror", REVIEW.format("A") + REVIEW.format("B"), "{'asin': 'A', 'title': 'T'}\n")
    failed(run(source), "meta_Few.json.gz: no row for item 'B'", "raise ingest.max_rejects to 1")
    assert run(source, max_rejects=1).exit_code == 0
    assert "meta_Few.json.gz,,\"no row for this item, which is now 'untitled item'\",B" in paths.RAW_REJECTS.read_text()


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"dataset": "yours"}, "unknown dataset 'yours'; known (under `datasets`) are mine"),
        ({"ingest": {"max_rejects": -1}}, "ingest.max_rejects: input should be greater than or equal to 0"),
        ({"ingest": {"max_rejects": 0, "more": 1}}, "ingest.more: unknown parameter"),
        ({"datasets": {"mine": {}}}, "no parameter 'datasets.mine.source.kind'"),
    ],
)
def test_wrong_parameters_are_one_clear_message(run: Run, changed: dict[str, Any], part: str) -> None:
    failed(run(DEMO, **changed), part)


def test_damaged_files_are_one_clear_message(run: Run, tmp_path: Path) -> None:
    """In turn: a truncated gzip, a wrong sum, a zip that climbs out of its folder, a mirror that is no folder."""
    mirror = tmp_path / "mirror"
    source = amazon(mirror, REVIEW.format("A") * 99, "")
    reviews = mirror / "reviews_Few_5.json.gz"
    reviews.write_bytes(reviews.read_bytes()[:-4])
    failed(run(source), "reviews_Few_5.json.gz", "truncated or corrupt")
    (mirror / "SHA256SUMS").write_text(f"{'a' * 64}  reviews_Few_5.json.gz\n")
    failed(run(source), "reviews_Few_5.json.gz: wrong checksum: expected sha256 aaaa", "found ")
    with zipfile.ZipFile(mirror / "ml-100k.zip", "w") as archive:
        archive.writestr("../evil", "x")
    (mirror / "SHA256SUMS").write_text(f"{artifacts.file_digest(mirror / 'ml-100k.zip')}  ml-100k.zip\n")
    failed(run({"kind": "movielens-100k"}), "ml-100k.zip: refused, because its member '../evil'")


def test_help_has_an_example_and_imports_nothing_heavy() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert "Example: python -m stages.ingest" in result.stdout
    heavy = "{'polars', 'pyarrow', 'pooch', 'numpy', 'pydantic', 'ruamel'}"
    check = f"import sys, stages.ingest; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
