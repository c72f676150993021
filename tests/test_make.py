"""The Makefile before anything is installed: what it asks of git, and what it would install for which target."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from small_project import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in another, as a downloaded archive unpacks: without .git, and with nothing that could run."""
    folder = tmp_path / "outer" / "iadsr"
    folder.mkdir(parents=True)
    for name in (
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "requirements-no-deps.txt",
        "requirements-smollm2.txt",
    ):
        (folder / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    hidden = ("GIT_", "MAKE", "MFLAGS")  # of a make or a git that runs the tests
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment = {**kept, "GIT_CEILING_DIRECTORIES": str(folder.parents[1])}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def init(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)


def test_without_git_the_first_line_says_what_to_do(folder: Path) -> None:
    """Before two minutes of setting up."""
    done = make(folder, "run")
    assert done.returncode and not done.stdout and not (folder / ".venv").exists()
    assert done.stderr.splitlines()[0] == (
        "error: DVC needs a git repository here: run `git init`, then `make run` again "
        "(experiments also need a first commit)"
    )
    init(folder)
    assert make(folder, "git").returncode == 0


def test_another_repository_will_do_unless_it_ignores_the_folder(folder: Path) -> None:
    """DVC refuses a dvc.yaml that git ignores."""
    init(folder.parent)
    assert make(folder, "git").returncode == 0
    (folder.parent / ".gitignore").write_text("iadsr/\n")
    assert "run `git init`" in make(folder, "git").stderr
    init(folder)
    assert make(folder, "git").returncode == 0


def test_a_missing_git_is_named(folder: Path) -> None:
    done = make(folder, "git", "SHELL=/bin/sh", "PATH=/nowhere")
    assert done.returncode and "git is missing; install it" in done.stderr


def test_only_what_is_asked_for_is_installed(folder: Path) -> None:
    """Ray, the tools of development and the small decoder come on top of what runs; nothing is set up twice."""
    tools = "-e '.[cluster,dev]'"
    run = make(folder, "--dry-run", "run").stdout
    assert "cluster" not in run and "smollm2" not in run
    for target in ("test", "lint", "types"):
        said = make(folder, "--dry-run", target).stdout
        assert said.index("-m venv .venv") < said.index(tools)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "ready").touch()
    said = make(folder, "--dry-run", "test").stdout
    assert tools in said and "-m venv" not in said and "-r requirements-no-deps.txt" not in said
    (folder / ".venv" / "dev").touch()
    assert "pip install" not in make(folder, "--dry-run", "test", "run").stdout
