"""DVC itself, in a small project of its own: what runs, what is skipped, what becomes stale, and experiments."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_project import ROOT, TINY, set_params

from stages import paths

ALWAYS = ["watch"]
STAGES = ["ingest", "filter", "encode", "train", "evaluate"]
TRACKED = (
    "iadsr",
    "stages",
    "own/README.md",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
)
Command = Callable[..., str]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run a program in the project's folder, that of this Python first, and return its output; it must succeed."""
    folder = tmp_path_factory.mktemp("dvc") / "project"
    folder.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_", "MLFLOW_"))}
    kept.pop("PYTHONPATH", None)
    people = {f"GIT_{role}_{part}": f"test@{role}" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    environment = {
        **kept,
        **people,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "true",
        "DVC_SITE_CACHE_DIR": str(folder.parent / "cache"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }

    def run(*arguments: str) -> str:
        done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module")
def first_run(command: Command) -> str:
    """Make the project, with a tiny demo, and run the whole pipeline once; returns what DVC said."""
    folder = Path(command("pwd").strip())
    for name in TRACKED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    set_params(folder, {**TINY, "train.max_epochs": 2})
    command("git", "init", "--quiet", "--initial-branch=main")
    said = command("dvc", "repro")
    command("git", "add", "--all")
    command("git", "commit", "--quiet", "--message", "the pipeline has run")
    return said


@pytest.fixture
def project(command: Command, first_run: str) -> Iterator[Path]:
    """The project's folder as committed, and as committed again afterwards."""
    folder = Path(command("pwd").strip())
    yield folder
    command("git", "checkout", "--quiet", ".")


def running(said: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", said)


def runs(folder: Path) -> list[tuple[str, str]]:
    """Name and state of each run in MLflow's store, oldest first."""
    with sqlite3.connect(folder / "mlflow.db") as store:
        return store.execute("SELECT name, status FROM runs ORDER BY start_time").fetchall()


def test_the_first_run_runs_every_stage(project: Path, first_run: str) -> None:
    assert running(first_run) == ALWAYS + STAGES
    assert "MLflow is not reachable" not in first_run
    for path in (paths.METRICS, paths.RANKS, paths.MODEL / "model.safetensors", Path("dvc.lock")):
        assert (project / path).is_file()
    assert [status for _, status in runs(project)] == ["FINISHED"]


def test_git_keeps_metrics_and_dvc_keeps_data(project: Path, command: Command) -> None:
    files = set(command("git", "ls-files").split())
    numbers = (paths.METRICS, paths.DETAILS, paths.DATASET_METRICS, paths.DATASET_DETAILS, paths.INGEST_METRICS)
    assert {str(path) for path in numbers} <= files
    assert not [file for file in files if file.startswith(("data/", "models/", "metrics/plots/", "mlruns/", ".cache/"))]
    assert "mlflow.db" not in files


def test_the_second_run_runs_nothing(project: Path, command: Command) -> None:
    said = command("dvc", "repro")
    assert running(said) == ALWAYS
    assert re.findall(r"Stage '(\w+)' didn't change, skipping", said) == STAGES
    assert command("git", "status", "--porcelain") == ""


def stale(command: Command) -> set[str]:
    """Stages that differ from dvc.lock by themselves; those after them run if these write something else."""
    return set(json.loads(command("dvc", "status", "--json"))) - set(ALWAYS)


def test_theta_makes_train_stale_and_no_stage_before(project: Path, command: Command) -> None:
    set_params(project, {"theta": -0.5})
    assert stale(command) == {"train"}


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("encode/write.py", {"encode"}),
        ("encode/recipe.py", {"encode", "evaluate"}),  # evaluate logs a model that serves with it
        ("models/denoisers/adt.py", {"train", "evaluate"}),
        ("evaluate/plots.py", {"evaluate"}),
        ("params_check.py", set()),
    ],
)
def test_code_makes_those_stages_stale_that_import_it(
    project: Path, command: Command, file: str, expected: set[str]
) -> None:
    """A change of a model does not encode again, whatever hours that took."""
    with open(project / "iadsr" / file, "a") as code:
        code.write("# a comment\n")
    assert stale(command) == expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("denoisers.iadsr.lambda_info", 0.0, {"train"}),
        ("denoisers.hsd.cooling", 0.5, set()),
        ("backbones.sasrec.layers", 1, set()),
    ],
)
def test_a_knob_is_of_its_own_method(
    project: Path, command: Command, key: str, value: float, expected: set[str]
) -> None:
    """HSD's does not train IADSR again."""
    set_params(project, {key: value})
    assert stale(command) == expected


def test_a_denoiser_that_reads_no_prefixes_has_others_encoded(project: Path, command: Command) -> None:
    set_params(project, {"denoiser": "text_rule"})
    assert stale(command) == {"encode", "train"}


def test_code_of_reports_makes_nothing_stale(project: Path, command: Command) -> None:
    with open(project / "stages" / "report.py", "a") as file:
        file.write("# a comment\n")
    assert stale(command) == set()


def write_log(path: Path, users: int) -> None:
    rows = [f"u{user},i{user + place},{1_600_000_000 + place}" for user in range(users) for place in range(3)]
    path.write_text("\n".join(["user,item,timestamp", *rows]))


def test_own_files_are_watched_wherever_they_lie(project: Path, command: Command, tmp_path: Path) -> None:
    """A log at an absolute path gets a row more: ingest runs again. Unchanged, or touched, it does not."""
    log, items = tmp_path / "log[1].csv", tmp_path / "items.csv"
    write_log(log, 4)
    items.write_text("\n".join(["item,title", *(f"i{number},Thing {number}" for number in range(9))]))
    source = {"interactions": str(log), "items": str(items)}
    set_params(project, {"dataset": "files", **{f"datasets.files.source.{key}": path for key, path in source.items()}})
    assert running(command("dvc", "repro", "ingest")) == ["watch", "ingest"]
    assert running(command("dvc", "repro", "ingest")) == ["watch"]
    log.touch()
    assert running(command("dvc", "repro", "ingest")) == ["watch"]
    write_log(log, 5)
    said = command("dvc", "repro", "ingest")
    assert running(said) == ["watch", "ingest"] and "files: 5 users" in said


def shown_experiments(command: Command) -> list[str]:
    """What `make experiments` prints of this project; without a terminal, and so without a pager, nothing is cut."""
    dry = ["make", "--dry-run", "experiments"]
    said = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return command("dvc", *shlex.split(next(line for line in said if "exp show" in line))[1:]).splitlines()


def test_an_experiment_runs_what_it_changes_and_has_a_run_of_its_own(project: Path, command: Command) -> None:
    """A change of theta runs `train` and `evaluate` alone. The run in MLflow has the experiment's name."""
    said = command("dvc", "exp", "run", "--name", "bolder", "--set-param", "theta=-0.5")
    assert running(said) == ["watch", "train", "evaluate"]
    assert "MLflow is not reachable" not in said
    assert "bolder" in command("dvc", "exp", "list")
    assert runs(project)[1:] == [("bolder", "FINISHED")]
    changed = json.loads(command("dvc", "params", "diff", "--json"))["params.yaml"]
    assert {key: (value["old"], value["new"]) for key, value in changed.items()} == {"theta": (-0.9, -0.5)}
    assert str(paths.METRICS) in json.loads(command("dvc", "metrics", "diff", "--all", "--json"))
    rule, titles, _, _, row, _ = shown_experiments(command)
    assert titles.split() == ["Experiment", "test_hr_10_unfiltered", "theta"] and "[bolder]" in row
    assert len(rule) <= 120


def test_all_that_can_differ_fits_on_a_screen(project: Path, command: Command) -> None:
    """Another data set, of the paper and with planted noise, and another method: every number is another."""
    for path in (paths.METRICS, paths.DATASET_METRICS):
        numbers = {name: value + 1 for name, value in json.loads((project / path).read_text()).items()}
        more = {"planted_interactions": 1, "equals_paper_table_1": True} if path == paths.DATASET_METRICS else {}
        (project / path).write_text(json.dumps(numbers | more))
    lines = command("dvc", "metrics", "diff").splitlines()
    assert sum("test_hr_10_unfiltered" in line for line in lines) == 1 and "noise_auc" in "".join(lines)
    assert len(lines) < 25


def test_plots_are_shown(project: Path, command: Command) -> None:
    command("dvc", "plots", "show", "--out", "plots")
    try:
        page = (project / "plots" / "index.html").read_text()
        assert all(title in page for title in ("training curve", "drop ratio by popularity"))
    finally:
        shutil.rmtree(project / "plots")
