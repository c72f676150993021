"""`python -m benchmarks.accuracy`: the best single model of a data set, as `presets.yaml` has it, on the test items."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import machine, options
from benchmarks.gain import NAMES, Arm, spread, trained
from benchmarks.prepared import parameters, prepared, trained_in
from iadsr.artifacts import read_json, write_json
from iadsr.device import pick_device
from iadsr.errors import UserError
from iadsr.params import read_yaml
from stages import paths
from stages.command import new_app, reports_errors
from stages.seeds import parsed

app = new_app()
PRESETS = Path(__file__).with_name("presets.yaml")
SECONDS = "seconds.json"


@app.command(epilog="Example: python -m benchmarks.accuracy --dataset beauty --seeds 0,1,2 --json")
@reports_errors
def main(
    dataset: options.Dataset = "beauty",
    seeds: Annotated[str, typer.Option(help="Of training, one after the other.")] = "0",
    changes: options.Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Train the preset of a data set under each seed; what is trained stays in .cache/benchmarks."""
    content = parameters({"dataset": dataset, "denoiser": "none", **preset(dataset)}, changes or [])
    prepared(content)
    place = trained_in(content) / paths.SEEDS
    seconds = [timed(content, seed, place / str(seed)) for seed in parsed(seeds)]
    result = {"dataset": dataset, **described(trained(content, parsed(seeds)), seconds), "preset": preset(dataset)}
    result |= machine.described(pick_device(content["train"]["device"], "train.device"))
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def preset(dataset: str) -> dict[str, Any]:
    """UserError for a data set without one."""
    presets: dict[str, dict[str, Any]] = read_yaml(PRESETS)
    if dataset not in presets:
        raise UserError(f"--dataset {dataset}: it has no preset; there are {', '.join(presets)}")
    return dict(presets[dataset])


def timed(content: dict[str, Any], seed: int, folder: Path) -> float:
    """Seconds of training and evaluating a seed, noted in its folder when it was trained; data are prepared before."""
    if not (folder / SECONDS).exists():
        began = time.perf_counter()
        trained(content, [seed])
        write_json(folder / SECONDS, time.perf_counter() - began)
    return float(read_json(folder / SECONDS))


def described(arm: Arm, seconds: list[float]) -> dict[str, float]:
    """Means over seeds, and `..._std`, their sample deviations (0 of one seed)."""
    spreads = {name: spread(arm.values[name]) for name in NAMES}
    found = {name: each["mean"] for name, each in spreads.items()}
    found |= {f"{name}_std": each["std"] for name, each in spreads.items()}
    return {**found, "seconds": round(statistics.mean(seconds), 1)}


if __name__ == "__main__":
    app()
