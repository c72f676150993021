"""`python -m benchmarks.gain`: what a recommender gains by `cloze`, with or without noise that is planted.

Arms that differ in nothing else: the plain backbone on the planted data (`base`), the plain backbone on the data as
they were before planting (`clean`: all plants removed by the truth, at test as well), and each use of the detector. Of
bursts there is no `clean`, since the users from whom they come have left the data.

A use that is `sampled` also gains as any training does that leaves interactions out at random. What the detector alone
gains shows beside a base that does so: --set denoisers.none.random_drop=0.2.

What is trained stays in .cache/benchmarks: interrupted, or asked for other uses or more seeds, the same command trains
only what is missing. Data sets and backbones may be lists: a cell is one of each, and p-values are corrected over all.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from jaxtyping import Float

from benchmarks import machine, options
from benchmarks.convergence import command, opened
from benchmarks.noise import planting, without_kind
from benchmarks.prepared import parameters, prepared, shared_detectors, trained_in
from iadsr.artifacts import read_json, write_json
from iadsr.device import pick_device
from iadsr.errors import UserError
from iadsr.evaluate.report import user_metrics
from iadsr.evaluate.significance import holm, paired_p
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.params import ParamsError
from iadsr.params_check import problems
from iadsr.train.run import alone_in
from stages import paths
from stages.command import new_app, reports_errors
from stages.seeds import link, parsed

app = new_app()
BASE, CLEAN, CUTOFF = "base", "clean", 10
MACHINE, MEMORY = "machine.json", "memory.json"
DRAWS = 1000  # of users, for an interval
NOTHING = {"kind": "uniform", "ratio": 0.0, "seed": 0}  # the same, whatever is planted otherwise
NAMES = tuple(metric_name(metric, CUTOFF, protocol) for protocol in PROTOCOLS for metric in METRICS)


class Arm(NamedTuple):
    """Each user's metrics under each seed, and the machines that trained them."""

    values: dict[str, Float[np.ndarray, "seeds users"]]
    machines: list[dict[str, Any]]


class Cell(NamedTuple):
    """A data set and a backbone, and the parameters of every arm there."""

    head: dict[str, Any]
    arms: dict[str, dict[str, Any]]


@app.command(epilog="Example: python -m benchmarks.gain --dataset beauty --backbone sasrec --ratio 0.2 --seeds 0,1,2")
@reports_errors
def main(
    dataset: Annotated[str, typer.Option(help="Entries of `datasets`, separated by commas.")] = "demo",
    backbone: Annotated[str, typer.Option(help="Entries of `backbones`, separated by commas.")] = "gru4rec",
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
    """Train and evaluate every arm under every seed, and test each against its cell's base, paired over users."""
    kind = kind if ratio else "none"
    cells = []
    for name, network in itertools.product(listed(dataset), listed(backbone)):
        chosen = {"dataset": name, "backbone": network, **planting(kind, ratio, noise_seed)}
        content = parameters(chosen, changes or [], batch_size=batch_size, threads=threads)
        without_kind(content, kind)
        cells.append(Cell(head_of(content, noise_seed, parsed(seeds)), arms_of(content, asked(content, uses))))
    found = [{name: trained(arm, parsed(seeds)) for name, arm in cell.arms.items()} for cell in cells]
    for cell, shown in zip(cells, compared(found), strict=True):
        result = {**cell.head, "arms": shown}
        print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def listed(names: str) -> list[str]:
    """
    >>> listed("beauty, toys")
    ['beauty', 'toys']
    """
    return [name.strip() for name in names.split(",")]


def head_of(content: dict[str, Any], noise_seed: int, seeds: list[int]) -> dict[str, Any]:
    """What all arms of a cell share."""
    noise = content["noise"]
    return {
        "dataset": content["dataset"],
        "backbone": content["backbone"],
        "kind": noise["kind"] if noise["ratio"] else "none",
        "ratio": noise["ratio"],
        "trained_on": content["denoisers"]["cloze"]["detector"]["kinds"],
        "noise_seed": noise_seed,
        "seeds": seeds,
        "train": content["train"],
    }


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
    found = [user_metrics(folder / paths.RANKS, CUTOFF) for folder in folders.values()]
    machines = [read_json(folder / MACHINE) for folder in folders.values()]
    return Arm({name: np.stack([each[name] for each in found]) for name in NAMES}, machines)


def train(content: dict[str, Any], workspace: Path, seeds: list[int]) -> None:
    """All arms share detectors; each seed's folder says which machine trained it, and in how many bytes of memory."""
    opened(content, prepared(content), workspace)
    link(workspace / paths.DETECTORS, shared_detectors())
    described = machine.described(pick_device(content["train"]["device"], "train.device"))
    for seed in seeds:
        (workspace / paths.SEEDS / str(seed)).mkdir(parents=True, exist_ok=True)
        write_json(workspace / paths.SEEDS / str(seed) / MACHINE, described)
    spent = command(workspace, "stages.train", "--seeds", ",".join(map(str, seeds)))
    for seed in seeds:
        write_json(workspace / paths.SEEDS / str(seed) / MEMORY, spent.peak_memory_bytes)


def compared(cells: list[dict[str, Arm]]) -> list[dict[str, Any]]:
    """Of each cell's arms means and sample deviations over seeds; of the others also how they compare with the base.

    `recovered` is the share of what noise costs, clean less base, that an arm wins back, with its 95% interval over
    users; it is left out where noise costs nothing. `p` is that of the arm's difference from the base, paired over
    users, corrected over all arms of all cells.
    """
    shown: list[dict[str, dict[str, Any]]] = [
        {name: {"machines": unlike(arm.machines)} for name, arm in cell.items()} for cell in cells
    ]
    for metric in NAMES:
        means = [{name: arm.values[metric].mean(0) for name, arm in cell.items()} for cell in cells]
        tested = [(place, name) for place, cell in enumerate(cells) for name in cell if name not in (BASE, CLEAN)]
        corrected = holm([paired_p(means[place][name], means[place][BASE]) for place, name in tested])
        for place, cell in enumerate(cells):
            for name, arm in cell.items():
                shown[place][name][metric] = spread(arm.values[metric])
        for (place, name), p in zip(tested, corrected, strict=True):
            of_cell = means[place]
            shown[place][name][metric] |= {"p": float(f"{p:.3g}")}
            if CLEAN in of_cell and of_cell[CLEAN].mean() > of_cell[BASE].mean():
                shown[place][name][metric] |= recovery(of_cell[BASE], of_cell[CLEAN], of_cell[name])
    return shown


def recovery(
    base: Float[np.ndarray, " users"], clean: Float[np.ndarray, " users"], arm: Float[np.ndarray, " users"]
) -> dict[str, Any]:
    """The share of the base's loss that the arm wins back, and its interval if other users had been drawn."""
    gained, lost = arm - base, clean - base
    drawn = np.random.default_rng(0).integers(0, len(base), (DRAWS, len(base)))
    shares = [gained[users].sum() / lost[users].sum() for users in drawn if lost[users].sum() > 0]
    found = {"recovered": round(float(gained.sum() / lost.sum()), 3)}
    return found | {"recovered_95": [round(float(bound), 3) for bound in np.quantile(shares, (0.025, 0.975))]}


def unlike(machines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each of them once."""
    return [each for place, each in enumerate(machines) if each not in machines[:place]]


def spread(values: Float[np.ndarray, "seeds users"]) -> dict[str, float]:
    by_seed = values.mean(1)
    deviation = by_seed.std(ddof=1) if len(by_seed) > 1 else 0.0
    return {"mean": round(float(by_seed.mean()), 5), "std": round(float(deviation), 5)}


if __name__ == "__main__":
    app()
