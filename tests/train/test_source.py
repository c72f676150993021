"""What a detector is trained on: training histories of today, and of a data set as it was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save
from small_detectors import counted
from small_models import sequences_of
from small_project import TINY, set_params, succeed
from torch import Tensor

from iadsr.errors import UserError
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.params import read_params
from iadsr.schemas import RAW_ITEM, RAW_USER
from iadsr.sequences.noise_kinds import TrainingHistories
from iadsr.train import detector
from iadsr.train.run import TrainFiles, Training
from iadsr.train.source import Snapshot, Source, as_it_is, as_of, of_users, read_categories, source_digest
from stages import paths

BEGIN, DAYS = datetime(2024, 1, 1, tzinfo=UTC), [1, 2, 3, 8, 9, 4, 5, 6, 7, 3, 4, 9, 9]  # of GROWN
GROWN = sequences_of([3, 1, 2, 5, 4], [5, 3, 1, 2], [1, 3, 4, 5])  # on day 7 users 0 and 2 had fewer rows than 4


def lists(histories: TrainingHistories) -> list[list[int]]:
    return [part.tolist() for part in np.split(histories.items, histories.offsets[1:-1])]


def on_day(folder: Path, until: int) -> Snapshot:
    times = [int((BEGIN + timedelta(days=day)).timestamp()) for day in DAYS]
    pl.DataFrame({"timestamp": times}).write_parquet(folder / "sequences.parquet")
    return as_of(GROWN, folder / "sequences.parquet", BEGIN + timedelta(days=until), 4)


def test_histories_of_today_by_hand() -> None:
    """The last two of each are held out; the catalogue has 9 items all the same."""
    found = as_it_is(sequences_of([1, 2, 3, 4], [5, 6, 9], [7, 8, 1, 2, 3]))
    assert lists(found.histories) == [[1, 2], [5], [7, 8, 1]] and found.histories.last_item == 9
    assert found.users.tolist() == [0, 1, 2] and found.items.tolist() == list(range(10))


def test_histories_of_some_users_by_hand() -> None:
    whole = TrainingHistories(np.array([1, 2, 5, 7, 8, 1]), np.array([0, 2, 3, 6]), 9)
    assert lists(of_users(whole, np.array([2, 0]))) == [[7, 8, 1], [1, 2]]
    nobody = of_users(whole, np.array([], dtype=np.int64))
    assert nobody.offsets.tolist() == [0] and not len(nobody.items) and nobody.last_item == 9


def test_categories_by_hand(tmp_path: Path) -> None:
    """Items 1 and 4 share one, item 3 has another, item 2 none; nor has padding."""
    pl.DataFrame({"categories": ["B > C", "", "A", "B > C"]}).write_parquet(tmp_path / "items.parquet")
    padding, one, two, three, four = read_categories(tmp_path / "items.parquet").tolist()
    assert padding == two == -1 and one == four != three and min(one, three) >= 0


def test_a_data_set_without_categories(tmp_path: Path) -> None:
    pl.DataFrame({"categories": ["", ""]}).write_parquet(tmp_path / "items.parquet")
    assert read_categories(tmp_path / "items.parquet").tolist() == [-1, -1, -1]


# --- as it was ---


def test_a_data_set_as_it_was_by_hand(tmp_path: Path) -> None:
    """On day 8 there were the histories [3, 1, 2, 5] and [5, 3, 1, 2], so items 3, 1, 2, 5 were 1, 2, 3, 4.

    Item 4 was none yet; the last two rows of each were held out.
    """
    found = on_day(tmp_path, 8)
    assert found.users.tolist() == [0, 1] and found.items.tolist() == [0, 3, 1, 2, 5, 4]
    assert lists(found.histories) == [[1, 2], [4, 1]] and found.histories.last_item == 5


def test_a_time_after_all_rows_leaves_all(tmp_path: Path) -> None:
    """In the order in which items appear; a user's rows of the very time are among them."""
    found = on_day(tmp_path, 9)
    assert found.users.tolist() == [0, 1, 2] and found.items.tolist() == [0, 3, 1, 2, 5, 4]
    assert [[found.items[item] for item in each] for each in lists(found.histories)] == lists(as_it_is(GROWN).histories)


def test_nothing_that_is_held_out_today_is_learnt_from(tmp_path: Path) -> None:
    """At whatever time."""
    for until in range(7, 10):
        found = on_day(tmp_path, until)
        for user, history in zip(found.users.tolist(), lists(found.histories), strict=True):
            own = lists(as_it_is(GROWN).histories)[user]
            assert [found.items[item] for item in history] == own[: len(history)]


def test_a_user_must_have_had_the_core_of_then(tmp_path: Path) -> None:
    """Whatever he, and everybody, has today; three rows at least, of which two are held out."""
    path = tmp_path / "sequences.parquet"
    on_day(tmp_path, 9)
    for core, users in ((5, []), (4, [1]), (3, [0, 1]), (0, [0, 1])):
        if users:
            assert as_of(GROWN, path, BEGIN + timedelta(days=7), core).users.tolist() == users
            continue
        with pytest.raises(
            UserError, match=r"until: 2024-01-08T00:00:00\+00:00 leaves no user; the rows are from 2024"
        ):
            as_of(GROWN, path, BEGIN + timedelta(days=7), core)


def test_a_log_without_times_has_no_yesterday(tmp_path: Path) -> None:
    """Its rows are numbered, and these are no times."""
    path = tmp_path / "sequences.parquet"
    pl.DataFrame({"timestamp": range(13)}).write_parquet(path)
    with pytest.raises(UserError, match="until: the log has no times"):
        as_of(GROWN, path, BEGIN, 3)


def test_a_source_is_named_by_all_of_its_content() -> None:
    """Each part counts, and so do the sizes: other rows in the same bytes are another source."""
    histories = TrainingHistories(np.array([1, 2, 3]), np.array([0, 1, 3]), 3)
    whole, vectors = Source(histories, np.array([-1, 0, 0, 1])), np.ones((4, 2), dtype=np.float32)
    others = [
        (whole._replace(histories=histories._replace(items=np.array([1, 2, 1]))), vectors),
        (whole._replace(histories=histories._replace(offsets=np.array([0, 2, 3]))), vectors),
        (whole._replace(categories=np.array([-1, 0, 1, 1])), vectors),
        (whole, vectors * 2),
        (whole, vectors.reshape(2, 4)),
    ]
    names = [source_digest(*each) for each in [(whole, vectors), *others]]
    assert len(set(names)) == len(names) and source_digest(whole, vectors.copy()) == names[0]


# --- nights ---


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> pl.DataFrame:
    """The current folder: a project for an own log; the whole log, of which it has nothing yet."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    set_params(tmp_path, {**TINY, "denoiser": "cloze", "encoder": "random", "encoders.random.dim": 16})
    succeed("ingest")
    whole = pl.read_parquet(paths.RAW / "interactions.parquet").select("user", "item", "timestamp")
    (tmp_path / "own").mkdir()
    items = pl.read_parquet(paths.RAW / "items.parquet").select("item", "title", "categories")
    items.write_csv(tmp_path / "own/items.csv")
    columns = {"datasets.files.source.columns": {name: name for name in ("user", "timestamp", *items.columns)}}
    set_params(tmp_path, {**columns, "dataset": "files", "datasets.files.core": 3, "datasets.files.max_length": 8})
    return whole.sort("timestamp", maintain_order=True)


def night(log: pl.DataFrame, until: str = "") -> Training:
    """All before the training's first epoch, the detector included."""
    log.write_csv("own/interactions.csv")
    set_params(Path(), {"denoisers.cloze.detector.until": until})
    succeed("ingest", "filter", "encode")
    files = (paths.SEQUENCES, paths.USERS, paths.ITEMS, paths.ENCODED)
    made = (Path(name) for name in ("model", "history.csv", "verdicts.parquet", "unfinished", "detectors"))
    found = Training.of(read_params(Path("params.yaml")), TrainFiles(*files, *made))
    assert isinstance(found.model, Cloze)
    return found


def by_item(training: Training, fold: int) -> dict[str, bytes]:
    """What a detector knows of each item, by its id in the log."""
    model = training.model
    assert isinstance(model, Cloze)
    judge = model.detector.model(fold)
    ids = pl.read_parquet(paths.ITEMS)[RAW_ITEM].to_list()
    tables: list[Tensor] = [model.detector.texts, judge.own.weight, judge.bias.weight]
    return {raw: save({str(n): t[number] for n, t in enumerate(tables)}) for number, raw in enumerate(ids, 1)}


def folds_of(training: Training) -> dict[str, int]:
    model = training.model
    assert isinstance(model, Cloze)
    return dict(zip(pl.read_parquet(paths.USERS)[RAW_USER], model.detector.fold_of_user[1:].tolist(), strict=True))


def test_a_detector_serves_while_only_rows_are_added(nights: pl.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows since, new users and other numbers of items: with `until` nothing is trained, and everybody keeps his model.

    Without it all is trained again; so it is where an item has come.
    """
    fits: list[int] = []
    monkeypatch.setattr(detector, "fit_gap_model", counted(detector.fit_gap_model, fits))
    last = nights["timestamp"][int(0.9 * len(nights))]
    old = nights.filter(pl.col("timestamp") <= last)
    first = night(old)
    then, numbers = [by_item(first, fold) for fold in range(2)], list(pl.read_parquet(paths.ITEMS)[RAW_ITEM])
    folds, until = folds_of(first), datetime.fromtimestamp(last, UTC).isoformat()
    added = nights.filter((pl.col("timestamp") > last) & pl.col("item").is_in(numbers))
    assert len(added) > 30 and len(fits) == 2
    own, later = old.filter(pl.col("user") == old["user"][0]), pl.lit(last + 9, pl.Int64)
    moved = own[:1].with_columns(item=pl.lit(numbers[-1]), timestamp=later)  # this item appears earlier now
    added = pl.concat([added, moved, own.with_columns(user=pl.lit("newcomer"), timestamp=later)])
    grown = night(pl.concat([old, added]), until)
    assert len(fits) == 2 and [by_item(grown, fold) for fold in range(2)] == then
    assert folds_of(grown).items() >= folds.items() and folds_of(grown)["newcomer"] == -1
    assert sorted(now := pl.read_parquet(paths.ITEMS)[RAW_ITEM]) == sorted(numbers) and list(now) != numbers
    night(pl.concat([old, added]))
    assert len(fits) == 4
    new = pl.DataFrame({"item": ["new"], "title": ["New"], "categories": [""]})
    pl.concat([pl.read_csv("own/items.csv"), new]).write_csv("own/items.csv")
    liked = added.filter(pl.col("user").is_first_distinct()).with_columns(item=pl.lit("new"))
    night(pl.concat([old, added, liked]), until)
    assert len(fits) == 6


def test_what_a_later_time_leaves_is_the_data_set_of_as_it_is(nights: pl.DataFrame) -> None:
    """A detector until tomorrow is that of today, to the last bit."""
    one, other = night(nights), night(nights, "2999-01-01").model
    assert isinstance(one.model, Cloze) and isinstance(other, Cloze)
    assert save(one.model.detector.state_dict()) == save(other.detector.state_dict())
    assert torch.equal(one.model.clean, other.clean)
