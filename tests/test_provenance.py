"""Notes of what was made from what: what belongs together passes, and anything else is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from iadsr.errors import UserError
from iadsr.provenance import (
    NOTE,
    checked,
    digest_of,
    digests_of,
    name_of,
    read_note,
    read_sealed,
    require_same,
    write_note,
    write_sealed,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `made` with two files and their note."""
    made = tmp_path / "made"
    made.mkdir()
    for name in "ab":
        (made / name).write_text(name)
    write_note(made, {"raw/c": "123"}, [made / "a", made / "b"])
    return made


def test_a_file_is_called_by_its_folder_and_its_name(folder: Path) -> None:
    assert name_of(folder / "a") == "made/a"


def test_what_belongs_together_passes(folder: Path) -> None:
    """SHA-256 of the one byte `a`."""
    found = checked([folder / "a", folder / "b"], "filter")
    assert list(found) == ["made/a", "made/b"]
    assert found["made/a"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert read_note(folder, "filter") == {"inputs": {"raw/c": "123"}, "outputs": found, "params": {}}


def test_a_changed_file_is_named(folder: Path) -> None:
    (folder / "b").write_text("B")
    with pytest.raises(
        UserError, match=r"made/b: not what the stage `filter` wrote last; run `dvc repro filter` again"
    ):
        checked([folder / "a", folder / "b"], "filter")


def test_a_file_that_the_note_does_not_know_is_named(folder: Path) -> None:
    (folder / "c").touch()
    with pytest.raises(UserError, match=r"made/c: not what the stage `filter` wrote last"):
        checked([folder / "c"], "filter")


def test_a_missing_file_or_note_is_named(folder: Path) -> None:
    (folder / "a").unlink()
    with pytest.raises(UserError, match=r"made/a: missing; run `dvc repro filter` first"):
        checked([folder / "a"], "filter")
    (folder / NOTE).unlink()
    with pytest.raises(UserError, match=r"made/made.json: missing; run `dvc repro filter` first"):
        checked([folder / "b"], "filter")


def test_made_from_something_else() -> None:
    require_same(Path("models/model"), {"a": "1", "b": "2"}, {"a": "1"}, "train")
    for now in ({"a": "2"}, {"c": "1"}):
        with pytest.raises(
            UserError, match=r"models/model: made from another [ac] than is there now; run `dvc repro tr"
        ):
            require_same(Path("models/model"), {"a": "1"}, now, "train")


def test_a_digest_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    first = digest_of(tmp_path / "a")
    (tmp_path / "a").write_text("longer")
    assert digest_of(tmp_path / "a") != first
    assert digests_of([tmp_path / "a"]) == {name_of(tmp_path / "a"): digest_of(tmp_path / "a")}


def test_a_sealed_file_comes_back(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": {"é": "x"}}
    write_sealed(tmp_path / "s.json", content)
    assert read_sealed(tmp_path / "s.json", "train") == content


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", "null", "{}", '{"seal": 1}', '{"seal": {}}', "[" * 10**5, '{"a": NaN}', "9" * 10**4]
)
def test_what_is_not_sealed_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(
        UserError, match=r"s.json: damaged, changed by hand, or of an earlier version; run `dvc repro tr"
    ):
        read_sealed(tmp_path / "s.json", "train")


def test_a_change_breaks_the_seal(tmp_path: Path) -> None:
    write_sealed(tmp_path / "s.json", {"a": 1})
    (tmp_path / "s.json").write_text(json.dumps({**json.loads((tmp_path / "s.json").read_text()), "a": 2}))
    with pytest.raises(UserError, match="changed by hand"):
        read_sealed(tmp_path / "s.json", "train")


@pytest.mark.parametrize(
    "content", [{}, {"inputs": {}}, {"inputs": {}, "outputs": []}, {"inputs": {"a": 1}, "outputs": {}, "params": {}}]
)
def test_a_sealed_file_that_is_no_note(tmp_path: Path, content: dict[str, object]) -> None:
    write_sealed(tmp_path / NOTE, content)
    with pytest.raises(UserError, match="not a note of what was made from what"):
        read_note(tmp_path, "filter")
