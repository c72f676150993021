"""Digests of the user's own files: equal while the content is, wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iadsr.artifacts import read_json
from iadsr.ingest.demo import Demo
from iadsr.ingest.own_files import Columns, Files
from iadsr.ingest.watched import digests_of_own, located


def source(folder: Path, interactions: str = "log.csv") -> Files:
    columns = Columns(user="user", item="item", timestamp="timestamp")
    return Files(
        kind="files", columns=columns, interactions=str(folder / interactions), items=str(folder / "items.csv")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.csv").write_text("a")
    (tmp_path / "items.csv").write_text("b")
    (tmp_path / "parts" / "day=1").mkdir(parents=True)
    (tmp_path / "parts" / "day=1" / "0.parquet").write_text("c")
    return tmp_path


def test_the_digest_is_that_of_the_content(folder: Path) -> None:
    """SHA-256 of `a`; the same again, from memory, and when the file was only touched."""
    memory = folder / "cache" / "memory.json"
    found = digests_of_own(source(folder), memory)
    assert found["interactions"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    os.utime(folder / "log.csv", (0, 0))
    assert digests_of_own(source(folder), memory) == digests_of_own(source(folder), memory) == found
    (folder / "log.csv").write_text("aa")
    assert digests_of_own(source(folder), memory)["interactions"] != found["interactions"]


def test_the_memory_does_not_grow(folder: Path) -> None:
    """Two files, however often one of them changes."""
    for text in ("a", "aa", "aaa"):
        (folder / "log.csv").write_text(text)
        digests_of_own(source(folder), folder / "memory.json")
    assert len(read_json(folder / "memory.json")) == 2


def test_a_folder_counts_with_all_its_parts(folder: Path) -> None:
    memory, parts = folder / "memory.json", source(folder, "parts")
    found = [digests_of_own(parts, memory)["interactions"]]
    (folder / "parts" / "day=2").mkdir()
    (folder / "parts" / "day=1" / "0.parquet").rename(folder / "parts" / "day=2" / "0.parquet")
    found.append(digests_of_own(parts, memory)["interactions"])
    (folder / "parts" / "day=2" / "1.parquet").write_text("d")
    found.append(digests_of_own(parts, memory)["interactions"])
    assert len(set(found)) == 3 and None not in found


def test_what_is_missing_has_no_digest(folder: Path) -> None:
    assert digests_of_own(source(folder, "none.csv"), folder / "memory.json")["interactions"] is None


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "[" * 10**5])
def test_a_damaged_memory_is_made_anew(folder: Path, content: str) -> None:
    (folder / "memory.json").write_text(content)
    assert digests_of_own(source(folder), folder / "memory.json") == digests_of_own(
        source(folder), folder / "other.json"
    )


def test_other_sources_have_no_own_files(tmp_path: Path) -> None:
    demo = Demo(kind="demo", users=10, items=20, noise=0.0, seed=0)
    assert digests_of_own(demo, tmp_path / "memory.json") == {} and located(demo, tmp_path) == demo


def test_a_copy_of_the_project_finds_what_git_ignores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the copy there is no log.csv, so that of the project counts; a path that is nowhere stays as it was."""
    (folder / "copy").mkdir()
    monkeypatch.chdir(folder / "copy")
    found = located(source(Path(), "log.csv"), folder)
    assert isinstance(found, Files)
    assert (found.interactions, found.items) == (str(folder / "log.csv"), str(folder / "items.csv"))
    assert located(source(Path(), "none.csv"), folder).interactions == "none.csv"  # type: ignore[union-attr]
