"""Histories with verdicts as Markdown: marks of titles, and a tiny demo."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from small_detectors import TINY, without_encoding
from typer.testing import CliRunner

from benchmarks import histories, prepared
from benchmarks.histories import WIDTH, Judgement, shown
from benchmarks.prepared import parameters

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_is_dropped_is_struck_out() -> None:
    found = [Judgement("A *red*\n soap", 0.2, True), Judgement("Drill", 0.875, False), Judgement("Cream", 0.0, True)]
    assert list(shown(found)) == ["- A red soap; ~~Drill~~ (0.88); Cream"]


def test_long_titles_and_histories() -> None:
    lines = list(shown([Judgement("word " * 40, 0.0, True)] * 9))
    assert len(lines) > 1 and all(len(line) <= WIDTH for line in lines)
    assert lines[0].startswith("- word") and all(line.startswith("  ") for line in lines[1:]) and "…" in lines[0]


def test_users_are_drawn_from_those_of_whom_something_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(str(n), [Judgement(f"T{n}", 0.9 * (n % 2), not n % 2)]) for n in range(6)]
    monkeypatch.setattr(histories, "of_users", lambda _: iter(found))
    result = CliRunner().invoke(histories.app, ["--users", "2"])
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == result.stdout.count("~~T") == 2
    result = CliRunner().invoke(histories.app, ["--users", "4"])
    assert result.exit_code == 1 and "--users 4: something is dropped of only 3 users" in result.stderr


def test_histories_of_a_tiny_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The titles of each user's training part, in its order."""
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    monkeypatch.setattr(prepared, "make", without_encoding(prepared.make))
    content = parameters({"denoiser": "cloze"}, [*TINY])
    found = dict(histories.of_users(content))
    tables = {
        name: pl.read_parquet(prepared.prepared(content) / "data/filtered" / f"{name}.parquet")
        for name in ("sequences", "users", "items")
    }
    rows = tables["sequences"].join(tables["users"], "user").join(tables["items"], "item").sort("user", "position")
    expected = rows.filter(split="train").group_by("raw_user", maintain_order=True).agg("title")
    assert {user: [each.title for each in own] for user, own in found.items()} == dict(expected.iter_rows())
    assert all(0 <= each.noise <= 1 and each.kept is (each.noise <= 0.8) for own in found.values() for each in own)
