"""Verdicts on any log: its own rows and columns, who is judged by what, how much is dropped, and clear errors."""

from __future__ import annotations

import csv
import doctest
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars as pl
import pytest
from small_project import ROOT, assert_one_error, change, invoke, succeed

import iadsr
from benchmarks.denoising import answers
from iadsr import load
from iadsr.errors import UserError
from iadsr.params import read_params
from iadsr.serving.catalogue import trained_encoder
from iadsr.serving.judge import Judge
from stages import paths

ADDED = ["noise_probability", "keep", "reason"]


@pytest.fixture
def project(copy: Path) -> Path:
    """A tiny demo on which cloze is trained."""
    change(denoiser="cloze", train__max_epochs=1)
    succeed("train")
    return copy


def training_log(project: Path) -> pl.DataFrame:
    """The training rows under their raw ids, without order, and a column of the user's own."""
    rows = pl.read_parquet(project / paths.VERDICTS).filter(split="train")
    chosen = rows.select(
        pl.col("user").cast(pl.String), pl.col("item").cast(pl.String), "timestamp", "keep_probability"
    )
    return chosen.sample(fraction=1, shuffle=True, seed=0)


def denoised(*options: str) -> str:
    result = invoke("denoise", *options)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_training_log_gets_the_verdicts_of_training(project: Path) -> None:
    """Known users are judged by the model of their fold, within the same windows; the file's order plays no part."""
    given = training_log(project)
    given.write_parquet("log.parquet")
    denoised("--histories", "log.parquet")
    found = pl.read_parquet("log.denoised.parquet")
    assert found.columns == [*given.columns, *ADDED] and found.select(given.columns).equals(given)
    judged = found.filter(pl.col("noise_probability").is_not_null())
    np.testing.assert_allclose(judged["noise_probability"], 1 - judged["keep_probability"], atol=1e-5)
    assert judged["keep"].to_list() == (judged["noise_probability"] <= 0.8).to_list()
    assert judged.height == given.filter(pl.len().over("user") >= 3).height > 0


def test_every_row_and_column_of_a_csv(project: Path) -> None:
    """As they stand: quotes, blanks, an unknown item, a short history, a row without a user, a separator of its own."""
    known = training_log(project)["item"].unique(maintain_order=True).to_list()
    rows = [
        *(["u 1", item, str(time), 'say ""x""; y'] for time, item in enumerate(known[:4], 10**9)),
        ["u 1", "never seen", str(10**9 + 9), ""],
        ["u2", known[0], str(10**9), "007"],
        ["", known[0], str(10**9), "1.50"],
    ]
    with open("log.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([["user", "item", "timestamp", "note"], *rows])
    said = denoised("--histories", "log.csv", "--out", "judged.csv")
    with open("judged.csv", newline="", encoding="utf-8") as file:
        header, *found = csv.reader(file, delimiter=";")
    assert header == ["user", "item", "timestamp", "note", *ADDED]
    assert [row[:4] for row in found] == rows
    assert [row[4] != "" for row in found] == [True] * 4 + [False] * 3
    assert [row[6] for row in found[4:]] == [
        "not judged: nothing is known of this item",
        "not judged: too few interactions of this user",
        "not judged: user is missing",
    ]
    assert "judged 4 of 7 rows" in said and "wrote judged.csv" in said


def test_an_item_that_the_core_removed_is_judged_by_its_title(project: Path) -> None:
    """Its title stands in the data set's own items; and it is what the reason of another row may name."""
    known = training_log(project)["item"].unique(maintain_order=True).to_list()
    raw = pl.read_parquet(project / paths.RAW_ITEMS).filter(
        ~pl.col("item").is_in(pl.read_parquet(paths.ITEMS)["raw_item"].to_list())
    )
    (removed,) = raw["item"].head(1)
    pl.DataFrame({"user": ["u"] * 4, "item": [*known[:3], removed]}).write_parquet("log.parquet")
    denoised("--histories", "log.parquet")
    assert pl.read_parquet("log.denoised.parquet")["noise_probability"].is_not_null().all()


@pytest.mark.parametrize(("how", "share"), [("10%", 0.1), ("0.25", 0.25), ("0", 0.0), ("100%", 1.0)])
def test_a_budget_is_kept_and_used(how: str, share: float, project: Path) -> None:
    training_log(project).write_parquet("log.parquet")
    denoised("--histories", "log.parquet", "--budget", how)
    found = pl.read_parquet("log.denoised.parquet").filter(pl.col("noise_probability").is_not_null())
    noise, keep = found["noise_probability"].to_numpy(), found["keep"].to_numpy()
    assert (~keep).sum() <= share * len(keep) and (~keep).sum() + (noise == noise[keep].max()).sum() >= share * len(
        keep
    )
    assert keep.all() or noise[~keep].min() > noise[keep].max()


def test_reasons_name_a_view_and_what_was_kept(project: Path) -> None:
    """Of half of the rows dropped each has a reason; of those kept none has."""
    training_log(project).write_parquet("log.parquet")
    denoised("--histories", "log.parquet", "--budget", "50%")
    found = pl.read_parquet("log.denoised.parquet").filter(pl.col("noise_probability").is_not_null())
    assert set(found.filter("keep")["reason"]) == {""}
    views = (
        "^(its title is unlike the others|seldom chosen beside the others)[a-z, ]*; fits worse than [0-9]+% of this log"
    )
    assert found.filter(~pl.col("keep"))["reason"].str.contains(views).all()
    assert found.filter(~pl.col("keep"))["reason"].str.contains("nearest kept: ").any()


def test_only_what_is_kept(project: Path) -> None:
    training_log(project).write_parquet("log.parquet")
    denoised("--histories", "log.parquet", "--budget", "20%")
    denoised("--histories", "log.parquet", "--budget", "20%", "--keep-only", "--out", "clean.parquet")
    assert pl.read_parquet("clean.parquet").equals(pl.read_parquet("log.denoised.parquet").filter("keep"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--budget", "5%", "--threshold", "0.8"), "give either --budget or --threshold"),
        (("--budget", "lots"), "--budget lots: expected a share such as 5% or 0.05"),
        (("--budget", "150%"), "--budget 150%: expected a share"),
        (("--out", "judged.csv"), "--out judged.csv: expected the kind of log.parquet, Parquet"),
    ],
)
def test_wrong_options(options: tuple[str, ...], said: str, project: Path) -> None:
    training_log(project).write_parquet("log.parquet")
    assert_one_error(invoke("denoise", "--histories", "log.parquet", *options), said)
    assert not Path("judged.csv").exists() and not Path("log.denoised.parquet").exists()


def test_a_log_that_has_verdicts_already(project: Path) -> None:
    training_log(project).with_columns(keep=True).write_parquet("log.parquet")
    assert_one_error(invoke("denoise", "--histories", "log.parquet"), "log.parquet: it has a column 'keep' already")


def test_a_model_without_a_detector(copy: Path) -> None:
    training_log(copy).write_parquet("log.parquet")
    assert_one_error(invoke("denoise", "--histories", "log.parquet"), "was trained with denoiser iadsr, which cannot")


# --- the same from Python ---


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_a_frame_gets_the_verdicts_of_the_command(kind: str, project: Path) -> None:
    """Under the frame's own names, with its own kind of index, and the same reasons."""
    given = training_log(project)
    given.write_parquet("log.parquet")
    denoised("--histories", "log.parquet", "--budget", "10%")
    expected = pl.read_parquet("log.denoised.parquet")
    frame: Any = given.rename({"user": "who"})
    if kind == "pandas":
        frame = pandas.DataFrame(frame.to_dict(as_series=False), index=[f"row {row}" for row in range(given.height)])
    found = load().denoise(frame, user="who", budget=0.1)
    assert type(found) is type(frame) and list(found.columns) == [*frame.columns, *ADDED]
    if kind == "pandas":
        assert list(found.index) == list(frame.index)
    for name in ("keep", "reason"):
        assert list(found[name]) == expected[name].to_list()
    noise = [float("nan") if value is None else value for value in found["noise_probability"]]
    np.testing.assert_allclose(noise, expected["noise_probability"].fill_null(float("nan")), rtol=1e-6)


class Alike(doctest.OutputChecker):
    """Takes other ids, titles, numbers and verdicts for the same: those of README are of the whole demo."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        one, other = (re.sub(r"""'[^']*'|"[^"]*"|[\d.]+|True|False""", "_", text) for text in (want, got))
        return one == other


def test_readme_shows_what_python_prints(project: Path) -> None:
    """Its lines run as they stand, but for the ids of this smaller demo, and print what it says, but for the values."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    known = pl.read_parquet(paths.ITEMS)["raw_item"].to_list()
    for number, raw in enumerate(dict.fromkeys(re.findall(r'"(item-\d+)"', block))):
        block = block.replace(f'"{raw}"', f'"{known[number]}"')
    example = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
    found = doctest.DocTestRunner(Alike(), verbose=False).run(example)
    assert (found.failed, found.attempted) == (0, 9)


def test_a_frame_with_items_of_its_own(project: Path) -> None:
    """They are judged by their titles, as the command judges what the k-core removed, under ids of any type."""
    known = training_log(project)["item"].unique(maintain_order=True).to_list()[:3]
    frame = pl.DataFrame({"user": ["a"] * 4, "item": [*known, "8"]})
    without = load().denoise(frame, timestamp=None)
    assert without["noise_probability"].is_null().to_list() == [False] * 3 + [True]
    titles = {8: "Greenthumb & Co Balcony Pruning Shears", known[0]: "of no account: the model knows this item"}
    model = load()
    found = model.denoise(frame, timestamp=None, titles=titles)
    assert found["noise_probability"].is_not_null().all() and found.equals(model.denoise(frame, timestamp=None))
    judge = Judge.opened(paths.MODEL, paths.ITEMS, paths.USERS)
    judge.learn_titles({"8": titles[8]}, trained_encoder(read_params(paths.PARAMS), judge.config.encodings or {}))
    (expected,) = judge.histories([frame["item"].to_list()])
    assert found["noise_probability"].to_list() == expected.noise


def test_titles_for_a_published_model(project: Path) -> None:
    away = project / "away"
    shutil.copytree(paths.MODEL, away)
    shutil.copy(paths.ITEMS, away)
    with pytest.raises(UserError, match=r"titles: .*params.yaml would say how to encode them"):
        load(away).denoise(pl.DataFrame({"user": ["a"], "item": ["b"]}), timestamp=None, titles={"b": "B"})


def test_a_frame_without_times_and_with_gaps(project: Path) -> None:
    """Its order counts, and a warning says so; ids may be numbers; a row without an item is kept."""
    items = training_log(project)["item"].unique(maintain_order=True).to_list()[:4]
    frame = pl.DataFrame({"user": [7, 7, 7, 7, None], "item": [*items[:3], None, items[0]]})
    found = load().denoise(frame, timestamp=None)
    with pytest.warns(UserWarning, match="frame: no column 'timestamp', so the order of its rows counts"):
        assert load().denoise(frame).equals(found)
    assert found["noise_probability"].is_not_null().to_list() == [True] * 3 + [False] * 2
    assert found["reason"].to_list()[3:] == ["not judged: user or item is missing"] * 2


def test_recommendations_from_python(project: Path) -> None:
    (item,) = pl.read_parquet(paths.ITEMS)["raw_item"].head(1)
    found = load("models/model").recommend([item], k=3)
    assert len(found) == 3 and item not in [each.item for each in found]
    with pytest.raises(UserError, match="the model knows none of the items"):
        load().recommend(["never seen"])


def test_recommendations_from_a_cleaned_history(project: Path) -> None:
    """As after what is left of it, without what was seen; where nothing is dropped, as after all of it."""
    noise = load().denoise(training_log(project))["noise_probability"].median()
    change(denoisers__cloze__drop_above=round(noise, 6))
    succeed("train")
    model, seen = load(), 0
    for _, items in training_log(project).sort("timestamp").group_by("user", maintain_order=True):
        history = items["item"].to_list()
        user = pl.DataFrame({"user": ["a"] * len(history), "item": history})
        left = [item for item, keep in zip(history, model.denoise(user, timestamp=None)["keep"], strict=True) if keep]
        found = [each.item for each in model.recommend(history, k=3, clean=True)]
        after_rest = [each.item for each in model.recommend(left or history, k=20) if each.item not in history]
        assert found == after_rest[:3]
        seen += 0 < len(left) < len(history)
        if seen == 3:
            break
    assert seen == 3
    for wrong in (10**6, 0, -1):
        with pytest.raises(UserError, match="k: expected 1 to"):
            model.recommend(history, k=wrong, clean=True)
    for clean in (False, True):
        with pytest.raises(UserError, match="history: empty"):
            model.recommend([], clean=clean)


def test_a_cleaned_history_of_nothing_that_is_known(project: Path) -> None:
    """All of what the model knows is dropped: recommended is as after the whole history."""
    change(denoisers__cloze__drop_above=1e-6)
    succeed("train")
    model, log = load(), training_log(project)
    history = [*log["item"].to_list()[:5], "never seen"]
    assert model.recommend(history, clean=True) == model.recommend(history)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"who": ["a"]}, "frame: no column 'user'; it has: who; name yours by user="),
        ({"user": ["a"], "item": ["b"], "keep": [True]}, "keep"),
    ],
)
def test_wrong_frames(columns: dict[str, Any], said: str, project: Path) -> None:
    with pytest.raises(UserError, match=said):
        load().denoise(pl.DataFrame(columns))


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config.json: no such file; train a model with `dvc repro`"):
        load(tmp_path / "models" / "model")
    with pytest.raises(AttributeError, match="no attribute 'save'"):
        iadsr.save  # noqa: B018


def test_a_log_is_set_beside_the_training_data(project: Path) -> None:
    """What share is noise there, by which a log that has drifted shows."""
    from safetensors.torch import load_file

    training_log(project).write_parquet("log.parquet")
    rate = float(load_file(paths.MODEL / "model.safetensors")["detector.weighing.rate"])
    assert f"(in the training data {rate:.1%})" in denoised("--histories", "log.parquet")
    said = json.loads(denoised("--histories", "log.parquet", "--json"))
    found = pl.read_parquet("log.denoised.parquet")
    noise = found["noise_probability"].drop_nulls().to_numpy()
    assert (said["rows"], said["judged"], said["dropped"]) == (found.height, len(noise), (~found["keep"]).sum())
    assert said["drift"] == pytest.approx(float(noise.mean()) - rate, abs=1e-6)
    assert sum(said["not_judged"].values()) == found.height - len(noise)


def test_a_copy_of_the_model_judges_while_the_project_trains(project: Path) -> None:
    """With its own tables: the project's may be of other data meanwhile."""
    training_log(project).write_parquet("log.parquet")
    denoised("--histories", "log.parquet")
    shutil.copytree(paths.MODEL, "models/serving")
    for table in (paths.ITEMS, paths.USERS):
        table.rename(Path("models/serving") / table.name)
    shutil.rmtree(paths.MODEL)
    denoised("--histories", "log.parquet", "--model", "models/serving", "--out", "again.parquet")
    assert pl.read_parquet("again.parquet").equals(pl.read_parquet("log.denoised.parquet"))


def test_what_a_served_model_takes_is_measured(project: Path) -> None:
    """Of one history less than of a thousand."""
    found = answers()
    assert 0 < found["ms_alone"] < found["ms_of_1000"]
