"""The command as a person runs it: what it leaves when it fails, and what its messages name."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from iadsr import artifacts
from iadsr.provenance import write_note
from stages import paths
from stages.filter import app

OUTPUTS = (paths.SEQUENCES, paths.USERS, paths.ITEMS, paths.DATASET_METRICS, paths.DATASET_DETAILS)
# two users with three items each
ROWS = [(user, item, time) for user in "uv" for time, item in enumerate("abc")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(rows: list[tuple[str, str, int]] = ROWS, core: Any = 0) -> Result:
    """Filter a data set `mine` of these interactions, whose items are all titled."""
    paths.RAW_ITEMS.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_parquet(paths.RAW_INTERACTIONS)
    items = sorted({item for _, item, _ in rows})
    table = {"item": items, "title": [item.upper() for item in items], "categories": [""] * len(items)}
    pl.DataFrame(table).write_parquet(paths.RAW_ITEMS)
    write_note(paths.RAW, {}, [paths.RAW_INTERACTIONS, paths.RAW_ITEMS])
    content = {
        "dataset": "mine",
        "datasets": {"mine": {"core": core, "max_length": 50, "source": {}}},
        "filter": {"duplicates": "keep", "ties": "raw", "ties_seed": 0},
        "noise": {"kind": "uniform", "ratio": 0.0, "seed": 0},
    }
    with open("params.yaml", "w") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    return CliRunner().invoke(app)


def failed(result: Result, message: str) -> None:
    assert result.exit_code == 1, result.output
    assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == [f"error: {message}"]


def test_a_full_disk_leaves_all_earlier_outputs_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the numbers are written, after the tables: the tables must not be renamed before it."""
    assert run().exit_code == 0
    before = [path.read_bytes() for path in OUTPUTS]

    def full(path: Path, content: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(artifacts, "write_json", full)
    more = [*ROWS, ("w", "x", 1), ("w", "y", 2), ("w", "z", 3)]
    message = f"{paths.DATASET_METRICS}: no space left on the disk; free some and run the same command again"
    failed(run(more), message)
    assert [path.read_bytes() for path in OUTPUTS] == before
    assert len(list(paths.FILTERED.iterdir())) == 5


def test_an_empty_core_names_the_parameter_of_this_data_set() -> None:
    """Every user has three interactions and every item two, so the 3-core is empty."""
    failed(run(core=3), "params.yaml: datasets.mine.core: the 3-core of 6 interactions is empty; lower it")


def test_users_shorter_than_three_are_named_by_example() -> None:
    message = (
        "2 users have fewer than 3 interactions and cannot be split into train, validation and test, for example 'w' "
        "with 1; set datasets.mine.core in params.yaml to 3 or more"
    )
    failed(run([*ROWS, ("w", "a", 1), ("x", "a", 1)]), message)
    assert not paths.SEQUENCES.exists() and not paths.DATASET_METRICS.exists()
