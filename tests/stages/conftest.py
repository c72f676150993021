"""A project in which all stages have run once, and copies of it for what changes anything."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from small_project import COPIED, ROOT, TINY, change, module, succeed

from stages import tracking


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """As if the shell knew of nothing but this repository; mlflow itself sets its variable in passing."""
    set_environment(monkeypatch)


def set_environment(patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setenv("MLFLOW_TRACKING_URI", "")
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        patch.delenv(name, raising=False)
    for name, value in tracking.QUIET.items():
        patch.setenv(name, value)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, like those in which DVC runs queued experiments, in which all stages have run.

    `train` ran as a command of its own, the others in this process.
    """
    folder = tmp_path_factory.mktemp("project") / ".dvc" / "tmp" / "exps" / "chain"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        set_environment(patch)
        change(**TINY)
        threads = torch.get_num_threads()
        succeed("ingest", "filter", "encode")
        module("train")
        succeed("evaluate")
        torch.set_num_threads(threads)
    return folder


@pytest.fixture
def copy(chain: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of the chain's, of which MLflow keeps a run apart."""
    folder = chain.with_name(f"copy-{len(list(chain.parent.iterdir()))}")
    folder.mkdir()
    for part in COPIED:
        source = chain / part
        shutil.copytree(source, folder / part) if source.is_dir() else shutil.copy(source, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_EXP_NAME", folder.name)
    return folder


@pytest.fixture
def unlogged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logging the model takes most of `evaluate`'s time."""
    from stages import evaluate

    monkeypatch.setattr(evaluate, "log_model", lambda config, encoder: None)
