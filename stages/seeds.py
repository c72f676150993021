"""Several seeds of one training side by side, each as a run of its own in models/seeds/SEED.

Processes, because one small training does not fill a machine: two processes of one thread get more done than one of two
threads, and on a GPU they overlap what the CPU does between kernels.

`python -m stages.seeds stages.train ...` is how a seed's process is started: as the module named, but it ends with the
process that started it, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from threading import Event
from typing import Any

from iadsr.artifacts import read_json, replacing, write_json
from iadsr.errors import UserError
from stages import paths
from stages.tracking import prepare_store

ON_A_GPU = 8  # processes at once
WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def parsed(text: str) -> list[int]:
    """The seeds of a list such as "0,1,2"; UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    seeds = [int(part) for part in parts if part.isdecimal()]
    if len(set(seeds)) < len(parts):
        raise UserError(f"--seeds {text}: expected different whole numbers, such as 0,1,2")
    return seeds


def train_side_by_side(content: dict[str, Any], listed: str) -> None:
    """Train and evaluate each seed in its folder; write models/seeds/summary.json and print a table.

    Seeds that are trained already are only evaluated again, and interrupted ones go on. When a seed fails no other is
    begun; those that are running end, and a UserError says where the output of the failed one is.
    """
    # imported here, because a seed's process must not load torch before its command has prepared that
    from iadsr.device import checked_threads, pick_device
    from iadsr.params import group
    from iadsr.train.fit import TrainParams

    settings, seeds = group(content, "train", TrainParams), parsed(listed)
    device = pick_device(settings.device, "train.device").type
    at_once, threads = shares(len(seeds), device, checked_threads(settings.threads, "train.threads"))
    folders = {seed: workspace(content, seed, threads) for seed in seeds}
    (paths.SEEDS / "summary.json").unlink(missing_ok=True)
    prepare_store()  # by one process: MLflow does not like several to make it
    print(
        f"{len(seeds)} seeds, {at_once} at once on {threads} threads each; see {paths.SEEDS}/SEED/log.txt", flush=True
    )
    stop = Event()
    with ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(run, folder, stop): seed for seed, folder in folders.items()}
        try:
            for done in as_completed(waiting):
                done.result()
                print(f"seed {waiting[done]} is done", flush=True)
        except BaseException as error:
            stop.set()
            print(f"stopping: {error}", file=sys.stderr)
            raise
    require_same_data(folders)
    metrics = {seed: read_json(folder / paths.DETAILS) for seed, folder in folders.items()}
    write_json(paths.SEEDS / "summary.json", summary(metrics))
    print("\n".join(table(metrics)))


def require_same_data(folders: dict[int, Path]) -> None:
    """UserError unless all seeds were trained on the same tables and vectors, which may have changed meanwhile."""
    from iadsr.models.files import load_config

    configs = {seed: load_config(folder / paths.MODEL) for seed, folder in folders.items()}
    first = next(iter(configs.values()))
    for seed, config in configs.items():
        if (config.inputs, config.encodings) != (first.inputs, first.encodings):
            raise UserError(f"{folders[seed]}: trained on other data than the first seed; run the same command again")


def shares(count: int, device: str, threads: int) -> tuple[int, int]:
    """How many run at once, on how many threads each: one thread where nothing else is asked for, then what is left."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(count, ON_A_GPU if device != "cpu" else max(1, cores // max(1, threads)))
    return at_once, threads or max(1, cores // at_once)


def workspace(content: dict[str, Any], seed: int, threads: int) -> Path:
    """A folder in which the stages find the inputs of this project, and parameters that differ in seed and threads."""
    from ruamel.yaml import YAML

    folder = paths.SEEDS / str(seed)
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    for path in filter(Path.exists, (paths.SEQUENCES.parent, paths.ENCODED)):
        link(folder / path, path)
    changed = {**content, "seed": seed, "train": {**content["train"], "threads": threads}}
    with replacing(folder / paths.PARAMS) as temporary, open(temporary, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(changed, file)
    return folder


def link(place: Path, target: Path) -> None:
    """Link `place` to `target`, replacing an older link; UserError for a file or a folder that is in the way."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        raise UserError(f"{place}: in the way of a link to {target}; remove it")
    place.symlink_to(target.resolve(), target_is_directory=True)


def run(folder: Path, stop: Event) -> None:
    """Train and evaluate in `folder`, unless another seed has failed."""
    for command in (["stages.train", "--skip-trained"], ["stages.evaluate"]):
        if stop.is_set():
            return
        try:
            run_stage(folder, f"seed {folder.name}", *command)
        except UserError:
            stop.set()
            raise


def run_stage(folder: Path, name: str, *command: str, **environment: str) -> None:
    """Run a stage in `folder`, its output added to log.txt there; UserError, which calls it `name`, when it fails.

    `environment`: variables that are set for it.
    """
    root, log = str(Path(__file__).resolve().parents[1]), folder / "log.txt"
    path = os.pathsep.join(filter(None, [root, os.getenv("PYTHONPATH")]))
    with open(log, "a", encoding="utf-8") as file:
        arguments = [sys.executable, "-m", "stages.seeds", *command]
        variables = {**os.environ, "PYTHONPATH": path, **environment}
        done = subprocess.run(arguments, cwd=folder, env=variables, stdout=file, stderr=file)
    if done.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"]
        raise UserError(f"{name}: {command[0]} failed, see {log}; it said last: {said[-1]}")


def summary(metrics: dict[int, dict[str, float]]) -> dict[str, Any]:
    """The metrics of each seed, and their means and sample standard deviations."""
    columns = {name: [found[name] for found in metrics.values()] for name in shared(metrics)}
    return {
        "seeds": {str(seed): found for seed, found in metrics.items()},
        "mean": {name: mean(values) for name, values in columns.items()},
        "std": {name: stdev(values) if len(values) > 1 else 0.0 for name, values in columns.items()},
    }


def shared(metrics: dict[int, dict[str, float]]) -> list[str]:
    """The metrics that every seed has."""
    return [name for name in next(iter(metrics.values())) if all(name in found for found in metrics.values())]


def table(metrics: dict[int, dict[str, float]]) -> Iterator[str]:
    """A Markdown table with one row a seed, and the mean with the standard deviation."""
    from iadsr.models.ranking import headlines

    whole, names = summary(metrics), headlines(shared(metrics))
    yield "| seed | epochs | " + " | ".join(name.removeprefix("test_") for name in names) + " |"
    yield "|---" * (2 + len(names)) + "|"
    for seed, found in metrics.items():
        yield f"| {seed} | {found['epochs']:.0f} | " + " | ".join(f"{found[name]:.4f}" for name in names) + " |"
    ends = (f"{whole['mean'][name]:.4f} ± {whole['std'][name]:.4f}" for name in names)
    yield f"| mean | {whole['mean']['epochs']:.1f} | " + " | ".join(ends) + " |"


def end_with_parent() -> None:
    """End with the parent, where the system can: an orphan would train on, and be in the way of the next call."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(WITH_PARENT, signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
