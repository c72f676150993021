"""`python -m benchmarks.gain`: what a recommender gains by `cloze`, with or without noise that is planted.

Arms that differ in nothing else: the plain backbone on the planted data (`base`), the plain backbone on the data as
they were before planting (`clean`: all plants removed by the truth, at test as well), and each use of the detector.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow.parquet
import typer
from jaxtyping import Float

from benchmarks import machine, options
from benchmarks.convergence import command, opened
from benchmarks.noise import planting, without_kind
from benchmarks.prepared import parameters, prepared
from benchmarks.significance import holm, paired_p
from iadsr.device import pick_device
from iadsr.errors import UserError
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.schemas import SPLIT, TEST
from stages import paths
from stages.command import new_app, reports_errors
from stages.seeds import link, parsed

app = new_app()
BASE, CLEAN, CUTOFF = "base", "clean", 10
NAMES = tuple(metric_name(metric, CUTOFF, protocol) for protocol in PROTOCOLS for metric in METRICS)


class Arm(NamedTuple):
    """Each user's metrics under each seed, and the seconds of all of it."""

    values: dict[str, Float[np.ndarray, "seeds users"]]
    seconds: float


@app.command(epilog="Example: python -m benchmarks.gain --dataset beauty --backbone sasrec --ratio 0.2 --seeds 0,1,2")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    backbone: options.Backbone = "gru4rec",
    kind: options.Kind = "uniform",
    ratio: options.Ratio = 0.0,
    noise_seed: options.PlantingSeed = 0,
    uses: Annotated[str, typer.Option(help="INPUTS/TARGETS of denoisers.cloze, separated by commas.")] = "",
    seeds: Annotated[str, typer.Option(help="Of training.")] = "0",
    batch_size: options.BatchSize = None,
    threads: options.Threads = None,
    changes: options.Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Train and evaluate every arm under every seed, and test each against the base, paired over users."""
    kind = kind if ratio else "none"
    chosen = {"dataset": dataset, "backbone": backbone, **planting(kind, ratio, noise_seed)}
    content = parameters(chosen, changes or [], batch_size=batch_size, threads=threads)
    without_kind(content, kind)
    result = {"dataset": dataset, "backbone": backbone, "kind": kind, "ratio": ratio}
    result |= {
        "trained_on": content["denoisers"]["cloze"]["detector"]["kinds"],
        "noise_seed": noise_seed,
        "seeds": parsed(seeds),
        "train": content["train"],
    }
    result |= compared(measured(content, asked(content, uses), seeds))
    result |= machine.described(pick_device(content["train"]["device"], "train.device"))
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def asked(content: dict[str, Any], uses: str) -> list[tuple[str, str]]:
    """The uses to compare, by default that of params.yaml."""
    if not uses:
        return [(content["denoisers"]["cloze"]["inputs"], content["denoisers"]["cloze"]["targets"])]
    pairs = [tuple(part.strip().split("/")) for part in uses.split(",")]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise UserError(f"--uses {'/'.join(wrong[0])}: expected INPUTS/TARGETS, such as weighted/raw")
    return [(inputs, targets) for inputs, targets in pairs]


def measured(content: dict[str, Any], uses: list[tuple[str, str]], seeds: str) -> dict[str, Arm]:
    """All arms; uses of the detector share it."""
    plain = {**content, "denoiser": "none"}
    with TemporaryDirectory() as shared:
        arms = {BASE: arm(plain, seeds, Path(shared))}
        if content["noise"]["ratio"]:
            arms[CLEAN] = arm({**plain, "noise": {**content["noise"], "ratio": 0.0}}, seeds, Path(shared))
        for inputs, targets in uses:
            own = {**content["denoisers"]["cloze"], "inputs": inputs, "targets": targets}
            changed = {**content, "denoiser": "cloze", "denoisers": {**content["denoisers"], "cloze": own}}
            arms[f"{inputs}/{targets}"] = arm(changed, seeds, Path(shared))
    return arms


def arm(content: dict[str, Any], seeds: str, shared: Path) -> Arm:
    """Train and evaluate all seeds; detectors lie in `shared`."""
    folder = prepared(content)
    with TemporaryDirectory() as scratch:
        workspace = opened(content, folder, Path(scratch))
        link(workspace / paths.DETECTORS, shared)
        began = time.perf_counter()
        command(workspace, "stages.train", "--seeds", seeds)
        seconds = time.perf_counter() - began
        found = [of_users(workspace / paths.SEEDS / str(seed) / paths.RANKS) for seed in parsed(seeds)]
    return Arm({name: np.stack([each[name] for each in found]) for name in NAMES}, seconds)


def of_users(ranks: Path) -> dict[str, Float[np.ndarray, " users"]]:
    """HR and NDCG of each user's test item."""
    table = pyarrow.parquet.read_table(ranks, filters=[(SPLIT, "=", TEST)])
    return {
        metric_name(metric, CUTOFF, protocol): values(table[f"rank_{protocol}"].to_numpy(), CUTOFF)
        for protocol in PROTOCOLS
        for metric, values in METRICS.items()
    }


def compared(arms: dict[str, Arm]) -> dict[str, Any]:
    """Means and sample deviations over seeds of each arm; of the others also how they compare with the base.

    `recovered` is the share of what noise costs, clean less base, that an arm wins back; it is left out where noise
    costs nothing. `p` is that of the arm's difference from the base, paired over users, corrected over the arms.
    """
    uses = [name for name in arms if name not in (BASE, CLEAN)]
    shown: dict[str, dict[str, Any]] = {name: {"seconds": round(found.seconds, 1)} for name, found in arms.items()}
    for metric in NAMES:
        means = {name: found.values[metric].mean(0) for name, found in arms.items()}
        corrected = holm([paired_p(means[name], means[BASE]) for name in uses])
        gained = {name: float((means[name] - means[BASE]).mean()) for name in arms}
        for name in arms:
            shown[name][metric] = spread(arms[name].values[metric])
        for name, p in zip(uses, corrected, strict=True):
            shown[name][metric]["p"] = float(f"{p:.3g}")
            if gained.get(CLEAN, 0) > 0:
                shown[name][metric]["recovered"] = round(gained[name] / gained[CLEAN], 3)
    return {"arms": shown}


def spread(values: Float[np.ndarray, "seeds users"]) -> dict[str, float]:
    by_seed = values.mean(1)
    deviation = by_seed.std(ddof=1) if len(by_seed) > 1 else 0.0
    return {"mean": round(float(by_seed.mean()), 5), "std": round(float(deviation), 5)}


if __name__ == "__main__":
    app()
