"""A tiny demo in a folder of its own: what its tests do to it, and how they look at what came out."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from iadsr.artifacts import file_digest
from iadsr.provenance import read_note, read_sealed, write_note, write_sealed
from stages import paths

ROOT = Path(__file__).parents[1]
EPOCHS = 3
COPIED = ("params.yaml", "data", "models", "metrics")
TRAINED = (paths.MODEL, paths.HISTORY, paths.VERDICTS)
EVALUATED = (paths.METRICS, paths.DETAILS, paths.EVALUATED, paths.PLOTS)
BEFORE_TRAINING = (
    *(paths.RAW, paths.INGEST_METRICS, paths.FILTERED, paths.DATASET_METRICS, paths.DATASET_DETAILS, paths.ENCODED),
)


# Small; and all that decides the result is set, so that other defaults in params.yaml change nothing here.
TINY: dict[str, Any] = {
    "dataset": "demo",
    "backbone": "gru4rec",
    "denoiser": "iadsr",
    "theta": -0.9,
    "encoder": "minilm",
    "seed": 0,
    "noise.kind": "uniform",
    "noise.ratio": 0.0,
    "denoisers.iadsr.masks": "prefix",
    "denoisers.iadsr.mask_at_test": True,
    "denoisers.cloze.detector.folds": 2,
    "denoisers.cloze.detector.dim": 8,
    "denoisers.cloze.detector.epochs": 1,
    "train.batch_size": 32,
    "train.learning_rate": 0.001,
    "train.patience": 10,
    "evaluate.cutoffs": [5, 10, 20],
    "evaluate.buckets": 5,
    "datasets.demo.core": 5,
    "datasets.demo.max_length": 8,
    "datasets.demo.source.noise": 0.15,
    "datasets.demo.source.users": 60,
    "datasets.demo.source.items": 60,
    "encode.prefixes": "mean",
    "encode.dtype": "float32",  # as serving computes
    "encode.threads": 1,
    "train.dim": 16,
    "train.max_epochs": EPOCHS,
    "train.threads": 1,
    "backbones.gru4rec.hidden": 16,
    "backbones.gru4rec.layers": 1,
    "backbones.caser.hidden": 16,
    "backbones.sasrec.feed_forward": 16,
}


def invoke(command: str, *arguments: str) -> Result:
    """Run `python -m stages.<command>` in this process; what is no wanted exit is raised."""
    result = CliRunner().invoke(importlib.import_module(f"stages.{command}").app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def succeed(*commands: str) -> None:
    """Run commands that must end well and track without a warning."""
    for command in commands:
        result = invoke(command)
        assert result.exit_code == 0, result.stderr
        assert "MLflow is not reachable" not in result.stderr, result.stderr


def set_params(folder: Path, changes: dict[str, Any]) -> None:
    """Set values at dotted keys of the folder's params.yaml."""
    yaml = YAML()
    content = yaml.load(folder / paths.PARAMS)
    for key, value in changes.items():
        *way, last = key.split(".")
        entry = content
        for part in way:
            entry = entry[part]
        entry[last] = value
    yaml.dump(content, folder / paths.PARAMS)


def change(**values: Any) -> None:
    """Set parameters of the current folder's params.yaml; `__` in a name stands for a dot."""
    set_params(Path(), {name.replace("__", "."): value for name, value in values.items()})


def digests(*roots: Path) -> dict[str, str]:
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
    return {str(file): file_digest(file) for file in files if file.is_file()}


def module(name: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as a command of its own."""
    return subprocess.run([sys.executable, "-m", f"stages.{name}"], capture_output=True, text=True, check=True)


def noted_again(folder: Path) -> None:
    """The note in `folder` with today's digests: as if its stage had written what a test has put there."""
    note = read_note(folder, "any")
    files = [next(path for path in (folder / Path(name).name, Path(name)) if path.exists()) for name in note["outputs"]]
    write_note(folder, note["inputs"], files)


def resealed(path: Path, **changes: Any) -> None:
    """Change a sealed file as somebody would who knows how seals are made; None takes an entry away."""
    content = {**read_sealed(path, "any"), **changes}
    write_sealed(path, {name: value for name, value in content.items() if value is not None})


def assert_one_error(result: Result, said: str) -> None:
    """Exit status 1 and one line on stderr that begins with `error:`."""
    errors = [line for line in result.stderr.splitlines() if not line.startswith("\r")]
    assert result.exit_code == 1
    assert len(errors) == 1 and errors[0].startswith("error: "), result.stderr
    assert said in errors[0], errors[0]


def store(folder: Path) -> Any:
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def found_runs(name: str) -> list[Any]:
    """Runs of a DVC experiment; the store is the project's, four folders above the temporary copies."""
    client = store(Path.cwd().parents[3])
    experiment = client.get_experiment_by_name("iadsr")
    return client.search_runs([experiment.experiment_id], f"tags.`dvc.experiment` = '{name}'")


def points(name: str) -> dict[str, list[int]]:
    """The steps of every metric of a run, as often as they were logged."""
    client, (run,) = store(Path.cwd().parents[3]), found_runs(name)
    return {key: [each.step for each in client.get_metric_history(run.info.run_id, key)] for key in run.data.metrics}


K = 10


def raw_histories() -> tuple[list[list[str]], list[str]]:
    """Every user's items before the test item, and the test items, under the ids of the source."""
    sequences = pl.read_parquet(paths.SEQUENCES).join(pl.read_parquet(paths.ITEMS), on="item", maintain_order="left")
    lists = sequences.group_by("user", maintain_order=True).agg("raw_item")["raw_item"].to_list()
    return [items[:-1] for items in lists], [items[-1] for items in lists]


def some_ids(count: int) -> list[str]:
    return pl.read_parquet(paths.ITEMS)["raw_item"].head(count).to_list()


def check_places(lists: list[list[str]]) -> None:
    """A target stands in its top-k list at its filtered rank, or is absent where that rank is beyond k."""
    histories, targets = raw_histories()
    ranks = pl.read_parquet(paths.RANKS).filter(pl.col("split") == "test")["rank_filtered"].to_list()
    assert len(lists) == len(targets)
    for items, history, target, rank in zip(lists, histories, targets, ranks, strict=True):
        assert target not in history  # the demo sells nothing twice; recommending excludes what was seen
        assert not set(items) & set(history)
        assert (items.index(target) + 1 if target in items else None) == (rank if rank <= K else None)
