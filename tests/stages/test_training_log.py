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

REASONS = {"test": "not judged: held out for the test", "validation": "not judged: held out for validation"}
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
        judged, held = place.get((*pair, "train")), "test" if (*pair, "test") in place else "validation"
        if row["user"] == "loner":
            assert row["reason"] == "not judged: its user or its item is too rare to train on"
        elif pair in seen:
            assert row["reason"] == "not judged: the same user and item again"
        elif judged is None:
            assert (*pair, held) in place and row["reason"] == REASONS[held]
        else:
            assert row["keep"] == judged["kept"] and (row["reason"] == "") == row["keep"]
            assert row["noise_probability"] == pytest.approx(1 - judged["keep_probability"], abs=1e-6)
        assert row["keep"] or row["noise_probability"] is not None
        seen.add(pair)
    count = found["noise_probability"].is_not_null().sum()
    assert count == verdicts.filter(split="train").height
    assert f"log.csv: 403 rows, {count} judged, {(~found['keep']).sum()} dropped" in said
    for reason in ("40 not judged: held out for the test", "2 not judged: its user or its item is too rare"):
        assert f"\n  {reason}" in said


def test_dropped_rows_have_reasons(own: Path) -> None:
    """Those of the model, by the verdicts of the training; of a plain rule that it was dropped."""
    dropping(0.2)
    log_of()
    dropped = pl.read_parquet(paths.DENOISED).filter(~pl.col("keep"), pl.col("noise_probability").is_not_null())
    views = "^(its title is unlike the others|seldom chosen beside the others)[a-z, ]*; fits worse than [0-9]+% of this"
    assert dropped.height > 10 and dropped["reason"].str.contains(views).all()
    change(denoiser="text_rule", denoisers__text_rule__share=0.3)
    succeed("train")
    log_of()
    found = pl.read_parquet(paths.DENOISED)
    dropped = found.filter(~pl.col("keep"), pl.col("noise_probability").is_not_null())
    assert set(dropped["reason"]) == {"dropped by text_rule"}


def test_without_a_denoiser_everything_stays(own: Path) -> None:
    change(denoiser="none")
    succeed("train")
    log_of()
    found = pl.read_parquet(paths.DENOISED)
    assert found["keep"].all() and found["noise_probability"].is_null().all()
    assert "not judged: the model was trained without a denoiser" in set(found["reason"])


def held_out() -> list[tuple[str, str, str]]:
    """Validation and test items by user."""
    sequences = pl.read_parquet(paths.SEQUENCES).filter(pl.col("split") != "train")
    named = sequences.join(pl.read_parquet(paths.ITEMS), on="item").join(pl.read_parquet(paths.USERS), on="user")
    return sorted(named.select("raw_user", "raw_item", "split").rows())


def test_what_is_left_is_tested_on_the_same(own: Path) -> None:
    """The log is taken as one's own again: nothing that is held out has gone, and no repetition has come instead.

    User 0 takes its second item twice: that row is dropped here, so the other goes, too.
    """
    before = held_out()
    first = pl.read_parquet(paths.VERDICTS).filter(user="user 0", split="train", position=1)
    change(denoisers__cloze__drop_above=1 - float(first["keep_probability"][0]) - 1e-4)
    succeed("train")
    log_of()
    found = pl.read_parquet(paths.DENOISED)
    kept, repeated = found.filter("keep"), first["item"][0]
    assert "the same user and item again as in a row that is dropped" in set(found["reason"])
    assert kept.filter(user="user 0", item=repeated).is_empty() and kept.height > 200
    kept.drop(ADDED).write_parquet("kept.parquet")
    change(datasets__files__source__interactions="kept.parquet", datasets__files__core=3, ingest__max_rejects=0)
    succeed("ingest", "filter")
    assert held_out() == before


def test_reasons_know_nothing_of_what_is_held_out(own: Path) -> None:
    """They name titles of the user's training rows alone."""
    dropping(0.3)
    log_of()
    train = pl.read_parquet(paths.VERDICTS).filter(split="train").group_by("user").agg("item")
    known = dict(train.rows())
    reasons = pl.read_parquet(paths.DENOISED).filter(~pl.col("keep")).select("user", "reason").rows()
    named = [(user, title) for user, said in reasons for title in said.partition("nearest kept: ")[2].split("; ")]
    assert sum(title != "" for _, title in named) > 20
    assert all(title in known[user] for user, title in named if title)


def test_generated_and_official_data(copy: Path) -> None:
    """The columns are those that `ingest` found; planted rows are not among them."""
    change(denoiser="cloze", train__max_epochs=1, noise__ratio=0.3)
    succeed("filter", "encode", "train")
    log_of()
    raw, found = pl.read_parquet(paths.RAW_INTERACTIONS), pl.read_parquet(paths.DENOISED)
    assert found.select(raw.columns).equals(raw) and found.columns == [*raw.columns, *ADDED]
    verdicts = pl.read_parquet(paths.VERDICTS).with_columns(pl.read_parquet(paths.ROWS)["row"])
    own = verdicts.drop_nulls("row").filter(split="train")
    expected = np.full(raw.height, np.nan, dtype=np.float32)
    expected[own["row"]] = 1 - own["keep_probability"].to_numpy()
    np.testing.assert_array_equal(found["noise_probability"].fill_null(float("nan")), expected)
    assert verdicts["row"].null_count() > 10


def test_bursts_of_people_who_leave_say_so(copy: Path) -> None:
    change(denoiser="cloze", train__max_epochs=1, noise__ratio=0.2, noise__kind="burst")
    succeed("filter", "encode", "train")
    log_of()
    known = pl.read_parquet(paths.USERS)["raw_user"].implode()
    found = pl.read_parquet(paths.DENOISED).with_columns(stays=pl.col("user").is_in(known))
    donor = pl.col("reason").str.contains("left out to plant")
    assert found.filter(~pl.col("stays")).select(donor.all()).item()
    assert not found.filter("stays").select(donor.any()).item() and not found["stays"].all()


def test_a_column_of_a_verdicts_name(own: Path) -> None:
    """It is said which before anything is trained."""
    text = (own / "log.csv").read_text(encoding="utf-8")
    (own / "log.csv").write_text(text.replace("note", "keep", 1), encoding="utf-8")
    assert_one_error(invoke("ingest"), "log.csv: it has a column 'keep' already")


def test_another_training_takes_the_old_log_away(own: Path) -> None:
    log_of()
    change(seed=5)
    succeed("train")
    assert not paths.DENOISED.exists()


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
