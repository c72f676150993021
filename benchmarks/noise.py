"""`python -m benchmarks.noise`: how well the detector finds planted noise of a kind that it was not trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from benchmarks import machine, options, transfer
from benchmarks.prepared import parameters, prepared
from iadsr.device import dtype_name, pick_dtype
from iadsr.errors import UserError
from iadsr.evaluate.report import noise_detection
from iadsr.models.recommender import Verdicts
from iadsr.models.verdicts import judge_all
from iadsr.train.run import TrainFiles, Training
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
SHOWN = {  # our name: that of metrics/details.json
    "auc": "noise_auc",
    "auc_stratified": "noise_auc_stratified",
    "auc_cold": "noise_auc_cold",
    "average_precision": "noise_average_precision",
    "precision_at_rate": "noise_precision_at_share",
    "ece": "noise_calibration_error",
    "rate": "noise_share",
    "rate_estimated": "noise_rate_estimated",
    "precision": "noise_precision",
    "recall": "noise_recall",
}


@app.command(epilog="Example: python -m benchmarks.noise --dataset beauty --kind uniform --ratio 0.2 --seed 0 --json")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    kind: options.Kind = "uniform",
    ratio: options.Ratio = 0.2,
    seed: options.PlantingSeed = 0,
    all_kinds: Annotated[bool, typer.Option("--all-kinds", help="Train on the planted kind, too.")] = False,
    details: Annotated[
        bool,
        typer.Option("--details", help="Also the calibration, what each kind teaches, and what each signal is worth."),
    ] = False,
    changes: options.Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Plant noise, train the detector on all other kinds, and compare its verdicts with the truth."""
    chosen = {"dataset": dataset, "denoiser": "cloze", **planting(kind, ratio, seed)}
    content = parameters(chosen, changes or [])
    offered = list(content["denoisers"]["cloze"]["detector"]["kinds"])
    if not all_kinds:
        without_kind(content, kind)
    kinds = content["denoisers"]["cloze"]["detector"]["kinds"]
    result = {
        "dataset": dataset,
        "kind": kind,
        "ratio": content["noise"]["ratio"],
        "seed": seed,
        "trained_on": kinds,
        **measured(content, kind, offered if details else None),
    }
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def planting(kind: str, ratio: float, seed: int) -> dict[str, Any]:
    """Parameters of what is planted, or that nothing is, and of the detector."""
    what = {"noise.ratio": 0.0} if kind == "none" else {"noise.ratio": ratio, "noise.kind": kind}
    return {"denoisers.cloze.detector.seed": seed, "noise.seed": seed, **what}


def without_kind(content: dict[str, Any], kind: str) -> None:
    """Let the detector train on all other kinds."""
    kinds = content["denoisers"]["cloze"]["detector"]["kinds"]
    kinds[:] = [name for name in kinds if name != kind]


def measured(content: dict[str, Any], kind: str, offered: Sequence[str] | None) -> dict[str, Any]:
    """Metrics over training rows, and the seconds of training the detector and judging all rows.

    With the kinds that are `offered` to learn from also details: `calibration`, a bin's mean probability, share of
    noise, rows and number; and what `transfer` compares.
    """
    with TemporaryDirectory() as detectors:
        training, verdicts, seconds = judged(content, Path(detectors))
    found, tables = noise_detection(training.feed, verdicts, {})
    if not found:
        raise UserError("--kind: no noise is known of this data set, so there is nothing to find; plant some")
    result: dict[str, Any] = {ours: round(found[name], 4) for ours, name in SHOWN.items() if name in found}
    dtype = dtype_name(pick_dtype("auto", training.device))
    result |= {"seconds": round(seconds, 1), **machine.described(training.device), "dtype": dtype}
    if offered is not None:
        bins = tables["noise_calibration"]
        result["calibration"] = [
            [round(row["predicted"], 4), round(row["share"], 4), row["rows"], row["bin"]] for row in bins
        ]
        result |= transfer.compared(training, kind, offered)
    return result


def judged(content: dict[str, Any], detectors: Path) -> tuple[Training, Verdicts, float]:
    """A training whose detector is trained or found, its verdicts on all rows, and the seconds of both."""
    folder = prepared(content)
    with TemporaryDirectory() as work:
        training = Training.of(content, files(folder, Path(work), detectors))
        began = time.perf_counter()
        verdicts = judge_all(training.model, training.feed, training.config.max_length)
        return training, verdicts, time.perf_counter() - began


def files(folder: Path, work: Path, detectors: Path) -> TrainFiles:
    """Inputs of a prepared folder; what is trained lies in `work`, but for detectors."""
    return TrainFiles(
        sequences=folder / paths.SEQUENCES,
        users=folder / paths.USERS,
        items=folder / paths.ITEMS,
        encoded=folder / paths.ENCODED,
        model=work / "model",
        history=work / "history.csv",
        verdicts=work / "verdicts.parquet",
        work=work / "unfinished",
        detectors=detectors,
    )


if __name__ == "__main__":
    app()
