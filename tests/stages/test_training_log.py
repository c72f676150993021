"""models/denoised.parquet: the user's own rows and columns with the verdicts of the training."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_project import assert_one_error, change, invoke, succeed

from stages import paths

ADDED = ["noise_probability", "keep", "reason"]
BAD, RARE = ["", "item 1", "2020-01-01", "0", "no user"], ["loner", "item 1", "2020-01-01", "0", "rare"]


def made(repeat: int = 0) -> list[list[str]]:
    """A log of 40 people, half of whom take 10 items, the other half 10 others, a day apart; and each takes an odd one.

    `repeat` of them take their second item again.
    """
    rows = []
    for user in range(40):
        items = [f"item {(user % 2) * 10 + (user + step) % 10}" for step in range(10)]
        items[user % 7 + 1] = f"item {(user + 1) % 2 * 10 + user % 9}"
        items += [items[1]] * (user < repeat)
        rows += [
            [f"user {user}", item, f"2020-01-{day:02}", f"{user / 7:.3f}", f"note {day}"]
            for day, item in enumerate(items, 1)
        ]
    return rows


def write(rows: list[list[str]], folder: Path) -> None:
    """A CSV with columns that nothing maps, and the items."""
    with open(folder / "log.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([["user", "item", "timestamp", "price", "note"], *rows])
    titles = pl.DataFrame({"item": sorted({row[1] for row in rows})}).with_columns(title=pl.col("item"))
    titles.write_csv(folder / "items.csv")


@pytest.fixture
def own(copy: Path) -> Path:
    """A project of a log of one's own, with a bad row, two of a person too rare, and one that is there twice."""
    rows = made(repeat=1)
    write([rows[0], BAD, *rows[1:200], RARE, *rows[200:], RARE], copy)
    source = {"interactions": "log.csv", "items": "items.csv"}
    change(dataset="files", filter__duplicates="first", ingest__max_rejects=1, denoiser="cloze", train__max_epochs=1)
    change(**{f"datasets__files__source__{name}": value for name, value in source.items()})
    succeed("ingest", "filter", "encode", "train")
    return copy


def dropping(share: float) -> None:
    """Train again, dropping so large a share of what is judged."""
    noise = 1 - pl.read_parquet(paths.VERDICTS)["keep_probability"].drop_nulls()
    change(denoisers__cloze__drop_above=float(noise.quantile(1 - share) or 0))
    succeed("train")


def log_of(*options: str) -> str:
    result = invoke("training_log", *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_every_accepted_row_with_all_its_columns(own: Path) -> None:
    """In the file's order and to the last digit; each has a verdict, or why there is none."""
    said = log_of()
    found = pl.read_parquet(paths.DENOISED)
    given = pl.read_csv("log.csv", separator=";", infer_schema=False).filter(pl.col("user").is_not_null())
    assert found.columns == [*given.columns, *ADDED]
    assert found.select(given.columns).equals(given)
    verdicts = pl.read_parquet(paths.VERDICTS)
    place = {(row["user"], row["item"], row["split"]): row for row in verdicts.iter_rows(named=True)}
    seen: set[tuple[str, str]] = set()
    for row in found.iter_rows(named=True):
        pair = (row["user"], row["item"])
        judged = next((place[(*pair, split)] for split in ("train", "validation") if (*pair, split) in place), None)
        if row["user"] == "loner":
            assert row["reason"] == "not judged: its user or its item is too rare to train on"
        elif pair in seen:
            assert row["reason"] == "not judged: the same user and item again"
        elif judged is None:
            assert (*pair, "test") in place and row["reason"] == "not judged: held out for the test"
        else:
            assert row["keep"] == judged["kept"] and (row["reason"] == "") == row["keep"]
            assert row["noise_probability"] == pytest.approx(1 - judged["keep_probability"], abs=1e-6)
        assert row["keep"] or row["noise_probability"] is not None
        seen.add(pair)
    count = found["noise_probability"].is_not_null().sum()
    assert count == verdicts.filter(pl.col("split") != "test").height
    assert f"log.csv: 403 rows, {count} judged, {(~found['keep']).sum()} dropped" in said
    assert (
        "  40 not judged: held out for the test" in said and "  2 not judged: its user or its item is too rare" in said
    )


def test_dropped_rows_have_reasons(own: Path) -> None:
    """Those of the model, by the verdicts of the training; of a plain rule that it was dropped."""
    dropping(0.2)
    log_of()
    dropped = pl.read_parquet(paths.DENOISED).filter(~pl.col("keep"))
    views = "^(its title is unlike the others|seldom chosen beside the others)[a-z, ]*; fits worse than [0-9]+% of this"
    assert dropped.height > 10 and dropped["reason"].str.contains(views).all()
    change(denoiser="text_rule", denoisers__text_rule__share=0.3)
    succeed("train")
    log_of()
    found = pl.read_parquet(paths.DENOISED)
    assert set(found.filter(~pl.col("keep"))["reason"]) == {"dropped by text_rule"}


def test_without_a_denoiser_everything_stays(own: Path) -> None:
    change(denoiser="none")
    succeed("train")
    log_of()
    found = pl.read_parquet(paths.DENOISED)
    assert found["keep"].all() and found["noise_probability"].is_null().all()
    assert "not judged: none says nothing of it" in set(found["reason"])


def test_what_is_left_trains_the_same(own: Path) -> None:
    """The log is taken as one's own again: nothing that is held out for a test has gone."""
    test = pl.read_parquet(paths.SEQUENCES).join(pl.read_parquet(paths.ITEMS), on="item").filter(split="test")
    dropping(0.1)
    log_of()
    kept = pl.read_parquet(paths.DENOISED).filter("keep")
    assert 0 < kept.height < 403
    kept.drop(ADDED).write_parquet("kept.parquet")
    change(datasets__files__source__interactions="kept.parquet", datasets__files__core=3, ingest__max_rejects=0)
    succeed("ingest", "filter")
    again = pl.read_parquet(paths.SEQUENCES).join(pl.read_parquet(paths.ITEMS), on="item").filter(split="test")
    assert again.sort("user")["raw_item"].to_list() == test.sort("user")["raw_item"].to_list()


def test_generated_and_official_data(copy: Path) -> None:
    """The columns are those that `ingest` found; planted rows are not among them."""
    change(denoiser="cloze", train__max_epochs=1, noise__ratio=0.3)
    succeed("filter", "encode", "train")
    log_of()
    raw, found = pl.read_parquet(paths.RAW_INTERACTIONS), pl.read_parquet(paths.DENOISED)
    assert found.select(raw.columns).equals(raw) and found.columns == [*raw.columns, *ADDED]
    verdicts = pl.read_parquet(paths.VERDICTS).drop_nulls(["row", "keep_probability"])
    expected = np.full(raw.height, np.nan, dtype=np.float32)
    expected[verdicts["row"]] = 1 - verdicts["keep_probability"].to_numpy()
    np.testing.assert_array_equal(found["noise_probability"].fill_null(float("nan")), expected)
    assert len(verdicts) < len(pl.read_parquet(paths.VERDICTS).filter(pl.col("split") != "test"))


def filtered_anew() -> None:
    change(filter__duplicates="keep")
    succeed("filter")


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (lambda: write(made(), Path()), "made from another source/interactions than is there now"),
        (filtered_anew, "made from another filtered/sequences.parquet"),
        (lambda: paths.VERDICTS.write_bytes(b""), "models/verdicts.parquet: not of the training"),
    ],
)
def test_files_of_another_run_are_refused(forge: Callable[[], None], said: str, own: Path) -> None:
    forge()
    assert_one_error(invoke("training_log"), said)
    assert not paths.DENOISED.exists()
