"""One training from files to files."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save
from small_detectors import counted, detector_params, write_item_vectors
from small_project import TINY, noted_again, set_params, succeed

from iadsr.errors import UserError
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.files import load_model
from iadsr.params import read_params
from iadsr.schemas import IS_NOISE
from iadsr.train import detector
from iadsr.train.run import TrainFiles, Training, alone_in, threads_of, untrained
from stages import paths


def test_a_training_is_done_by_one_process(tmp_path: Path) -> None:
    """While another process holds the lock of this very run, there is an error that says so, and nothing is touched."""
    import fcntl

    work = tmp_path / "work"
    with alone_in(work), pytest.raises(UserError, match="another process is at this training"), alone_in(work):
        pass
    with alone_in(work), open(work / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with alone_in(work):
        pass


def test_what_trainings_share_is_waited_for(tmp_path: Path) -> None:
    """A second process that waits begins when the first has ended."""
    began, order = Event(), []

    def second() -> None:
        began.set()
        with alone_in(tmp_path / "work", wait=True):
            order.append("second")

    with alone_in(tmp_path / "work"):
        waiting = Thread(target=second)
        waiting.start()
        began.wait()
        time.sleep(0.05)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """The current folder: a tiny demo, filtered, with vectors of its items."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    own = {f"denoisers.cloze.detector.{name}": value for name, value in detector_params().model_dump().items()}
    set_params(tmp_path, {**TINY, **own, "denoiser": "cloze", "train.device": "cpu"})
    succeed("ingest", "filter")
    write_item_vectors(tmp_path, read_params(tmp_path / "params.yaml"))
    return tmp_path


def training(project: Path, **changes: Any) -> Training:
    files = (project / path for path in (paths.SEQUENCES, paths.USERS, paths.ITEMS, paths.ENCODED))
    made = (project / name for name in ("model", "history.csv", "verdicts.parquet", "unfinished", "detectors"))
    return Training.of({**read_params(project / "params.yaml"), **changes}, TrainFiles(*files, *made))


def test_backbones_share_a_detector(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second, at another theta and seed, trains none; another seed of the detector trains its own."""
    fits: list[int] = []
    monkeypatch.setattr(detector, "fit_gap_model", counted(detector.fit_gap_model, fits))
    first = training(project, backbone="gru4rec", theta=0.1, seed=0).model
    second = training(project, backbone="sasrec", theta=-1, seed=1).model
    assert len(fits) == 2
    assert isinstance(first, Cloze) and isinstance(second, Cloze)
    assert save(first.detector.state_dict()) == save(second.detector.state_dict())
    set_params(project, {"denoisers.cloze.detector.seed": 1})
    assert training(project).model is not None and len(fits) == 4


def test_a_detector_that_was_found_judges_as_one_that_was_trained(project: Path) -> None:
    """What training keeps of its rows is the same to the last bit: nothing is dropped out of a detector that judges."""
    trained, found = training(project).model, training(project).model
    assert isinstance(trained, Cloze) and isinstance(found, Cloze)
    assert torch.equal(trained.clean, found.clean) and not torch.equal(found.clean, torch.ones_like(found.clean))


def test_a_detector_is_where_the_model_is() -> None:
    """All of it, whatever the device; `meta` stands for a GPU."""
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = untrained(4, vectors, 6, detector_params(), torch.device("meta"))
    assert {each.device.type for each in (*found.parameters(), *found.buffers())} == {"meta"}
    assert found.texts.shape == (5, 3) and found.fold_of_user.shape == (5,)


def test_a_table_may_start_from_texts(project: Path) -> None:
    """Of a plain backbone, which reads none otherwise; nothing else differs."""
    params = read_params(project / "params.yaml")["train"]
    one, other = (
        training(project, denoiser="none", train={**params, "item_start": start}).model for start in ("random", "text")
    )
    expected = {name: value for name, value in one.state_dict().items() if name != "items.weight"}
    one.start_from(torch.tensor(np.load(project / paths.ENCODED / "items.npy")))
    assert torch.equal(one.items.weight, other.items.weight)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in expected.items())


def test_repeats_are_learnt_at_the_end(project: Path) -> None:
    """On the demo few items come again at once; the served model knows it, and one that does not ask has none."""
    params = {**read_params(project / "params.yaml")["train"], "repeat": "learned", "max_epochs": 1}
    asked = training(project, denoiser="none", train=params)
    asked.work.mkdir(parents=True)
    asked.finish(list(asked.epochs()))
    model, config = load_model(asked.files.model, torch.device("cpu"))
    assert config.repeat == "learned" and model.repeats is not None and model.repeats.biases[0] < -0.1
    assert training(project, denoiser="none").model.repeats is None


def test_known_noise_is_never_an_input(project: Path) -> None:
    """Of flags that are turned round nothing is seen: a detector that is trained anew judges by the same bytes."""
    before = training(project)
    one = before.model
    table = pq.read_table(project / paths.SEQUENCES)
    flags = pc.invert(table[IS_NOISE])
    table = table.set_column(table.column_names.index(IS_NOISE), IS_NOISE, flags)
    assert isinstance(table, pa.Table)
    pq.write_table(table, project / paths.SEQUENCES)
    noted_again(project / paths.FILTERED)
    write_item_vectors(project, read_params(project / "params.yaml"))
    (found,) = (before.files.detectors).iterdir()
    shutil.rmtree(found)
    after = training(project)
    other = after.model
    assert [path.name for path in before.files.detectors.iterdir()] == [found.name]
    assert isinstance(one, Cloze) and isinstance(other, Cloze)
    assert save(one.state_dict()) == save(other.state_dict()) and one.clean.equal(other.clean)


def test_work_goes_on_with_the_threads_that_it_began_with(tmp_path: Path) -> None:
    """Begun on one, on two it goes on with one; afterwards there are two again."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threads_of(tmp_path):
            assert torch.get_num_threads() == 1
        torch.set_num_threads(2)
        with threads_of(tmp_path):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
