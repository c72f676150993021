"""`python -m benchmarks.convergence`: seconds of a whole training, of one seed or of several side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from benchmarks import machine, options
from benchmarks.ingest import Cost, cost
from benchmarks.prepared import environment, parameters, prepared
from iadsr.artifacts import read_json
from iadsr.device import pick_device
from iadsr.errors import UserError
from iadsr.models.ranking import headlines
from stages import paths
from stages.command import new_app, reports_errors
from stages.seeds import link, parsed

app = new_app()
OF_NOISE = ("drop_ratio", "noise_auc", "noise_precision", "noise_recall")  # where it is known
Fields = dict[str, Any]


@app.command(epilog="Example: python -m benchmarks.convergence --dataset beauty --backbone sasrec --seeds 0,1,2,3")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    backbone: options.Backbone = "gru4rec",
    denoiser: options.Denoiser = "none",
    batch_size: options.BatchSize = None,
    dim: options.Dim = None,
    threads: options.Threads = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    changes: options.Changes = None,
    seeds: Annotated[str, typer.Option(help="Several are trained side by side, after the first alone.")] = "0",
    as_json: options.AsJson = False,
) -> None:
    """Run the stages train and evaluate as a user would, and time the first; the metrics are of the test items."""
    chosen = {"dataset": dataset, "backbone": backbone, "denoiser": denoiser}
    content = parameters(
        chosen, changes or [], batch_size=batch_size, dim=dim, threads=threads, dtype=dtype, device=device
    )
    result = measured(content, parsed(seeds))
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def measured(content: Fields, seeds: list[int]) -> Fields:
    """`alone`: the first seed by itself; `side_by_side`: all at once, with their evaluation, if there are several."""
    folder = prepared(content)
    settings = {"train": content["train"], "backbone": content["backbones"][content["backbone"]]}
    head = {name: content[name] for name in ("dataset", "backbone", "denoiser")}
    described = machine.described(pick_device(content["train"]["device"], "train.device"))
    result = {**head, "settings": settings, **described, "alone": alone({**content, "seed": seeds[0]}, folder)}
    if len(seeds) > 1:
        result["side_by_side"] = side_by_side(content, folder, seeds)
        together = result["side_by_side"]["seconds"]
        result["gain"] = round(len(seeds) * (result["alone"]["seconds"] + result["alone"]["evaluation"]) / together, 3)
    return result


def alone(content: Fields, folder: Path) -> Fields:
    """Seconds of the whole command and of its evaluation, epochs, and test metrics."""
    with TemporaryDirectory() as scratch:
        workspace = opened(content, folder, Path(scratch))
        seconds = command(workspace, "stages.train").seconds
        evaluation = command(workspace, "stages.evaluate").seconds
        found = read_json(workspace / paths.DETAILS)
    return {
        "seed": content["seed"],
        "seconds": round(seconds, 2),
        "evaluation": round(evaluation, 2),
        **{name: round(found[name], 5) for name in ("epochs", "best_epoch", *headlines(found))},
    }


def side_by_side(content: Fields, folder: Path, seeds: list[int]) -> Fields:
    """Seconds of `train --seeds`, and the means and deviations that it reports."""
    with TemporaryDirectory() as scratch:
        workspace = opened(content, folder, Path(scratch))
        seconds = command(workspace, "stages.train", "--seeds", ",".join(map(str, seeds))).seconds
        found = read_json(workspace / paths.SEEDS / "summary.json")
    names = ("epochs", *headlines(found["mean"]), *OF_NOISE)
    shown = {
        name: {kind: round(found[kind][name], 5) for kind in ("mean", "std")} for name in names if name in found["mean"]
    }
    return {"seeds": seeds, "seconds": round(seconds, 2), **shown}


def opened(content: Fields, folder: Path, workspace: Path) -> Path:
    """A folder with these parameters and the inputs of `folder`."""
    (workspace / "metrics").mkdir(parents=True, exist_ok=True)
    YAML().dump(content, workspace / paths.PARAMS)
    for path in (paths.SEQUENCES.parent, paths.ENCODED):
        if (folder / path).exists():
            link(workspace / path, folder / path)
    return workspace


def command(workspace: Path, *arguments: str) -> Cost:
    """What a stage costs, which ends with this process; UserError when it fails."""
    try:
        return cost([sys.executable, "-m", "stages.seeds", *arguments], workspace, environment())
    except subprocess.CalledProcessError:
        raise UserError(f"{' '.join(arguments)} failed; its message stands above") from None


if __name__ == "__main__":
    app()
