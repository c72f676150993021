"""`python -m benchmarks.gain`: what a recommender gains by `cloze`, with or without noise that is planted.

Arms that differ in nothing else: the plain backbone on the planted data (`base`), the plain backbone on the data as
they were before planting (`clean`: all plants removed by the truth, at test as well), and each use of the detector. Of
bursts there is no `clean`, since the users from whom they come have left the data.

A use that is `sampled` also gains as any training does that leaves interactions out at random. What the detector alone
gains shows beside a base that does so: --set denoisers.none.random_drop=0.2.

What is trained stays in .cache/benchmarks: interrupted, or asked for other uses or more seeds, the same command trains
only what is missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow.parquet
import typer
from jaxtyping import Float

from benchmarks import machine, options
from benchmarks.convergence import command, opened
from benchmarks.noise import planting, without_kind
from benchmarks.prepared import parameters, prepared, trained_in
from benchmarks.significance import holm, paired_p
from iadsr.artifacts import read_json, write_json
from iadsr.device import pick_device
from iadsr.errors import UserError
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.params import ParamsError
from iadsr.params_check import problems
from iadsr.schemas import SPLIT, TEST
from iadsr.train.run import alone_in
from stages import paths
from stages.command import new_app, reports_errors
from stages.seeds import link, parsed

app = new_app()
BASE, CLEAN, CUTOFF = "base", "clean", 10
MACHINE = "machine.json"
NOTHING = {"kind": "uniform", "ratio": 0.0, "seed": 0}  # the same, whatever is planted otherwise
NAMES = tuple(metric_name(metric, CUTOFF, protocol) for protocol in PROTOCOLS for metric in METRICS)


class Arm(NamedTuple):
    """Each user's metrics under each seed, and the machines that trained them."""

    values: dict[str, Float[np.ndarray, "seeds users"]]
    machines: list[dict[str, Any]]


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
    arms = arms_of(content, asked(content, uses))
    result |= compared({name: trained(arm, parsed(seeds)) for name, arm in arms.items()})
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def asked(content: dict[str, Any], uses: str) -> list[tuple[str, str]]:
    """The uses to compare, by default that of params.yaml."""
    if not uses:
        return [(content["denoisers"]["cloze"]["inputs"], content["denoisers"]["cloze"]["targets"])]
    pairs = [tuple(part.strip().split("/")) for part in uses.split(",")]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        raise UserError(f"--uses {'/'.join(wrong[0])}: expected INPUTS/TARGETS, such as weighted/raw")
    return [(inputs, targets) for inputs, targets in pairs]


def arms_of(content: dict[str, Any], uses: list[tuple[str, str]]) -> dict[str, dict[str, Any]]:
    """The parameters of every arm; ParamsError for a use that there is not."""
    plain = {**content, "denoiser": "none"}
    arms = {BASE: plain}
    if content["noise"]["ratio"] and content["noise"]["kind"] != "burst":
        arms[CLEAN] = {**plain, "noise": NOTHING}
    for inputs, targets in uses:
        own = {**content["denoisers"]["cloze"], "inputs": inputs, "targets": targets}
        arm = {**content, "denoiser": "cloze", "denoisers": {**content["denoisers"], "cloze": own}}
        if found := problems(arm):
            raise ParamsError(found)
        arms[f"{inputs}/{targets}"] = arm
    return arms


def trained(content: dict[str, Any], seeds: list[int]) -> Arm:
    """Train and evaluate the seeds of which there is nothing yet."""
    workspace = trained_in(content)
    folders = {seed: workspace / paths.SEEDS / str(seed) for seed in seeds}
    with alone_in(workspace, wait=True):
        if missing := [seed for seed, folder in folders.items() if not (folder / paths.RANKS).exists()]:
            train(content, workspace, missing)
    found = [of_users(folder / paths.RANKS) for folder in folders.values()]
    machines = [read_json(folder / MACHINE) for folder in folders.values()]
    return Arm({name: np.stack([each[name] for each in found]) for name in NAMES}, machines)


def train(content: dict[str, Any], workspace: Path, seeds: list[int]) -> None:
    """All arms share detectors; each seed's folder says which machine trained it."""
    opened(content, prepared(content), workspace)
    detectors = workspace.parent / "detectors"
    detectors.mkdir(exist_ok=True)
    link(workspace / paths.DETECTORS, detectors)
    described = machine.described(pick_device(content["train"]["device"], "train.device"))
    for seed in seeds:
        (workspace / paths.SEEDS / str(seed)).mkdir(parents=True, exist_ok=True)
        write_json(workspace / paths.SEEDS / str(seed) / MACHINE, described)
    command(workspace, "stages.train", "--seeds", ",".join(map(str, seeds)))


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
    shown: dict[str, dict[str, Any]] = {name: {"machines": unlike(found.machines)} for name, found in arms.items()}
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


def unlike(machines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of them once."""
    return [each for place, each in enumerate(machines) if each not in machines[:place]]


def spread(values: Float[np.ndarray, "seeds users"]) -> dict[str, float]:
    by_seed = values.mean(1)
    deviation = by_seed.std(ddof=1) if len(by_seed) > 1 else 0.0
    return {"mean": round(float(by_seed.mean()), 5), "std": round(float(deviation), 5)}


if __name__ == "__main__":
    app()
