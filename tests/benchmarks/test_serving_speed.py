"""The command on a tiny demo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from same_process import Here
from typer.testing import CliRunner

from benchmarks import prepared, serving

TINY = ("datasets.demo.source.users=80", "datasets.demo.source.items=60", "backbones.gru4rec.hidden=8", "train.dim=8")


def command(workspace: Path, *arguments: str) -> None:
    """As the one that is replaced, whose output goes to a stderr that is none here."""
    run = [sys.executable, "-m", *arguments]
    subprocess.run(run, cwd=workspace, env=prepared.environment(), capture_output=True, check=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_thread: None) -> None:
    """In this process, away from the repository's cache."""
    monkeypatch.setattr(serving, "Child", Here)
    monkeypatch.setattr(serving, "command", command)
    monkeypatch.setattr(prepared, "CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)  # and back to where the tests began


def run(*options: str) -> Any:
    changes = [word for change in TINY for word in ("--set", change)]
    return CliRunner().invoke(serving.app, ["--histories", "5", "--epochs", "1", *changes, *options])


def test_a_line_for_each_denoiser(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """From too few histories no screen is trusted: up to all texts of 5 histories of 3 items are encoded."""
    monkeypatch.setattr("iadsr.serving.screen_fit.FEWEST", 10**6)
    result = run("--denoiser", "none", "--denoiser", "iadsr", "--items", "3", "--json")
    assert result.exit_code == 0, result.output
    plain, iadsr = (json.loads(line) for line in result.stdout.splitlines())
    assert (plain["denoiser"], plain["prefixes"], iadsr["denoiser"], iadsr["prefixes"]) == (
        *("none", None),
        *("iadsr", "joint"),
    )
    assert plain["ms_a_history"] == pytest.approx(1000 * plain["seconds"] / 5, abs=0.2)
    assert plain["items"] == 3 and plain["encoded_share"] == 0 and plain["peak_memory_bytes"] > 2**24
    assert 0 < iadsr["encoded_share"] <= 1


def test_an_unknown_denoiser(quick: None) -> None:
    result = run("--denoiser", "dropall")
    assert result.exit_code == 1 and "--denoiser dropall: unknown; known are none, iadsr" in result.stderr
