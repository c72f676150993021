"""Several seeds of one training side by side, each as a run of its own in models/seeds/SEED.

Processes, because one small training does not fill a machine: on two cores two processes of one thread do half as much
again as one process of two threads, on a GPU they overlap what the CPU does between kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from iadsr.artifacts import read_json, replacing, write_json
from iadsr.errors import UserError
from iadsr.params import choice, lookup
from stages import paths

SHOWN = ("test_hr_10_unfiltered", "test_ndcg_10_unfiltered", "test_hr_10_filtered", "test_ndcg_10_filtered")
ON_A_GPU = 8  # processes at once


def parsed(text: str) -> list[int]:
    """The seeds of a list such as "0,1,2"; UserError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise UserError(f"--seeds {text}: expected different whole numbers, such as 0,1,2")
    return [int(part) for part in parts]


def train_side_by_side(content: dict[str, Any], seeds: list[int], device: str, threads: int) -> None:
    """Train and evaluate each seed in its folder; write models/seeds/summary.json and print a table.

    Seeds that are trained already are only evaluated again, and interrupted ones go on. UserError names the seed that
    fails, and where its output is.
    """
    at_once, threads = shares(len(seeds), device, threads)
    folders = {seed: workspace(content, seed, threads) for seed in seeds}
    print(f"{len(seeds)} seeds, {at_once} at once on {threads} threads each; see {paths.SEEDS}/SEED/log.txt")
    with ThreadPoolExecutor(at_once) as pool:
        waiting = {pool.submit(run, folder): seed for seed, folder in folders.items()}
        try:
            for done in as_completed(waiting):
                done.result()
                print(f"seed {waiting[done]} is done", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    metrics = {seed: read_json(folder / paths.METRICS) for seed, folder in folders.items()}
    write_json(paths.SEEDS / "summary.json", summary(metrics))
    print("\n".join(table(metrics)))


def shares(count: int, device: str, threads: int) -> tuple[int, int]:
    """How many run at once, on how many threads each: one thread where nothing else is asked for, then what is left."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = min(count, ON_A_GPU if device != "cpu" else max(1, cores // max(1, threads)))
    return at_once, threads or max(1, cores // at_once)


def workspace(content: dict[str, Any], seed: int, threads: int) -> Path:
    """A folder in which the stages find the inputs of this project, and parameters that differ in the seed alone."""
    from ruamel.yaml import YAML

    folder = paths.SEEDS / str(seed)
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    inputs = [paths.SEQUENCES.parent, paths.ENCODED]
    model = Path(str(lookup(content, f"encoders.{choice(content, 'encoder', 'encoders')}.model")))
    if not model.is_absolute() and model.exists():
        inputs.append(Path(model.parts[0]))
    for path in filter(Path.exists, inputs):
        link(folder / path, path)
    changed = {**content, "seed": seed, "train": {**content["train"], "threads": threads}}
    with replacing(folder / paths.PARAMS) as temporary, open(temporary, "w", encoding="utf-8") as file:
        YAML(typ="safe").dump(changed, file)
    return folder


def link(place: Path, target: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    place.symlink_to(target.resolve(), target_is_directory=True)


def run(folder: Path) -> None:
    """Train and evaluate in `folder`."""
    root = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    log = folder / "log.txt"
    for command in (["stages.train", "--keep"], ["stages.evaluate"]):
        with open(log, "a", encoding="utf-8") as file:
            arguments = [sys.executable, "-m", *command]
            done = subprocess.run(arguments, cwd=folder, env=environment, stdout=file, stderr=file)
        if done.returncode:
            last = (log.read_text(encoding="utf-8").strip().splitlines() or ["nothing"])[-1]
            raise UserError(f"seed {folder.name}: {command[0]} failed, see {log}; it said last: {last}")


def summary(metrics: dict[int, dict[str, float]]) -> dict[str, Any]:
    """The metrics of each seed, and their means and sample standard deviations."""
    names = [name for name in next(iter(metrics.values())) if all(name in found for found in metrics.values())]
    columns = {name: [found[name] for found in metrics.values()] for name in names}
    return {
        "seeds": {str(seed): found for seed, found in metrics.items()},
        "mean": {name: mean(values) for name, values in columns.items()},
        "std": {name: stdev(values) if len(values) > 1 else 0.0 for name, values in columns.items()},
    }


def table(metrics: dict[int, dict[str, float]]) -> Iterator[str]:
    """Markdown: a row a seed, and the mean with the standard deviation."""
    yield "| seed | epochs | " + " | ".join(name.removeprefix("test_") for name in SHOWN) + " |"
    yield "|---" * (2 + len(SHOWN)) + "|"
    for seed, found in metrics.items():
        yield f"| {seed} | {found['epochs']:.0f} | " + " | ".join(f"{found[name]:.4f}" for name in SHOWN) + " |"
    whole = summary(metrics)
    ends = (f"{whole['mean'][name]:.4f} ± {whole['std'][name]:.4f}" for name in SHOWN)
    yield f"| mean | {whole['mean']['epochs']:.1f} | " + " | ".join(ends) + " |"
