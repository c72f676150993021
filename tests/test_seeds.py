"""Seeds side by side: what is refused, how the machine is shared out, and the table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iadsr.errors import UserError
from stages import paths, seeds
from stages.train import files


def test_a_list_of_seeds() -> None:
    assert seeds.parsed("3, 0,12") == [3, 0, 12]


@pytest.mark.parametrize("text", ["", "1,", "1,1", "1,01", "-1", "a", "0.5"])
def test_a_list_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match=r"--seeds .*: expected different whole numbers"):
        seeds.parsed(text)


@pytest.mark.parametrize(
    ("count", "device", "threads", "expected"),
    [
        (5, "cpu", 0, (4, 1)),  # one thread for each of four cores; the fifth waits
        (2, "cpu", 0, (2, 2)),
        (3, "cpu", 2, (2, 2)),
        (1, "cpu", 8, (1, 8)),
        (20, "cuda", 0, (8, 1)),
    ],
)
def test_four_cores_are_shared_out(
    count: int, device: str, threads: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(4), raising=False)
    assert seeds.shares(count, device, threads) == expected


def test_means_and_deviations() -> None:
    """Of 1 and 3: mean 2, sample standard deviation sqrt(2); of one seed: 0. What one seed lacks is left out."""
    found = seeds.summary({0: {"a": 1.0, "b": 5.0}, 7: {"a": 3.0}})
    assert found["mean"] == {"a": 2.0} and found["std"]["a"] == pytest.approx(2**0.5)
    assert list(found["seeds"]) == ["0", "7"] and seeds.summary({0: {"a": 1.0}})["std"] == {"a": 0.0}


@pytest.mark.parametrize("inside", ["", "models/seeds/3", ".dvc/tmp/exps/x", ".dvc/tmp/exps/x/models/seeds/3"])
def test_the_project_s_root(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / inside)
    assert paths.project_root() == tmp_path.resolve()
    assert files().detectors == tmp_path.resolve() / paths.DETECTORS  # what seeds have in common


def test_a_link_takes_the_place_of_a_link_alone(tmp_path: Path) -> None:
    """A folder or a file in its way is an error, and stays."""
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "file").write_text("here")
    place = tmp_path / "seeds" / "0" / "data"
    for _ in range(2):
        seeds.link(place, tmp_path / "inputs")
        assert (place / "file").read_text() == "here"
    place.unlink()
    place.mkdir()
    with pytest.raises(UserError, match="in the way of a link"):
        seeds.link(place, tmp_path / "inputs")
    assert place.is_dir()


def test_a_table_without_the_usual_cutoff() -> None:
    names = ("hr_5_unfiltered", "ndcg_5_unfiltered", "hr_5_filtered", "ndcg_5_filtered")
    assert list(seeds.table({3: {"epochs": 4, **{f"test_{name}": 0.5 for name in names}}})) == [
        f"| seed | epochs | {' | '.join(names)} |",
        "|---|---|---|---|---|---|",
        "| 3 | 4 | 0.5000 | 0.5000 | 0.5000 | 0.5000 |",
        "| mean | 4.0 | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 |",
    ]


def test_after_a_failure_no_seed_is_begun(tmp_path: Path) -> None:
    stop = seeds.Event()
    stop.set()
    seeds.run(tmp_path, stop)
    assert not list(tmp_path.iterdir())
