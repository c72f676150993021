"""What all commands share: one stage at a time in a folder, and no password in an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_project import ROOT, assert_one_error, invoke

from iadsr.errors import UserError
from stages import command
from stages.command import LOCK, alone

HOLDER = """
import sys, time
from stages.command import alone
with alone("train"):
    print("holding", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[str]]:
    """Another process in the current folder, which runs stage `train` there."""
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "holding\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("stage", ["ingest", "filter", "train", "evaluate", "training_log"])
def test_a_second_stage_fails_before_it_begins(holder: subprocess.Popen[str], stage: str) -> None:
    """Before it reads params.yaml, which is not there."""
    result = invoke(stage)
    assert_one_error(result, f"stage train (process {holder.pid}) is running in this folder")
    assert "dvc exp run --queue" in result.stderr
    assert not Path("data").exists() and not Path("models").exists()


def test_a_killed_stage_leaves_the_folder_free(holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with alone("evaluate"):
        assert LOCK.read_text() == f"stage evaluate (process {os.getpid()})\n"
    assert not LOCK.exists()


def test_outside_the_project_advice_says_where_it_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what concerns the project: other mistakes are the same everywhere."""
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text("user,item\n")
    result = invoke("denoise", "--histories", "log.csv")
    assert_one_error(result, "run `dvc repro train` first (there is no params.yaml here: start this in the root of")
    assert "params.yaml here" not in invoke("denoise", "--histories", "log.csv", "--budget", "x").stderr
    Path("params.yaml").touch()
    assert "params.yaml here" not in invoke("denoise", "--histories", "log.csv").stderr


def test_other_folders_are_free(holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of seeds and of queued experiments."""
    (tmp_path / "models" / "seeds" / "0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models" / "seeds" / "0")
    with alone("train"):
        pass


def test_a_stage_that_has_just_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes its file after we opened it and before we hold it: the lock is that of a new file."""
    monkeypatch.chdir(tmp_path)
    at = iter([False, True])
    monkeypatch.setattr(command, "is_at", lambda lock, path: next(at))
    with alone("filter"), pytest.raises(UserError, match="stage filter"), alone("filter"):
        pass


def test_where_nothing_can_be_locked_stages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the way of .cache; Windows has no fcntl."""
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fcntl", None)
        with alone("train"), alone("train"):
            pass
    LOCK.parent.rmdir() if LOCK.parent.exists() else None
    LOCK.parent.touch()
    with alone("train"), alone("train"):
        pass


def test_errors_show_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_error(invoke("filter", "--params", "https://me:s3cr3t@host/params.yaml"), "***@host")
