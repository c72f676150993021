"""The same data set and backbone in another framework, timed in its own interpreter by a script that prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import torch

from benchmarks.prepared import ROOT, prepared
from iadsr.errors import UserError
from iadsr.schemas import ITEM, POSITION, USER
from stages import paths

SCRIPT = ROOT / "benchmarks" / "peers" / "recbole_peer.py"
MODELS = {"gru4rec": "GRU4Rec", "caser": "Caser", "sasrec": "SASRec"}  # their names of our backbones


def checked(interpreter: Path | None, script: Path) -> None:
    """UserError, before minutes of measuring, for an interpreter or a script that is not there."""
    if interpreter is None:
        return
    if not interpreter.is_file() or not os.access(interpreter, os.X_OK):
        raise UserError(f"--peer {interpreter}: expected the python of an environment that has the peer, found no such")
    if not script.is_file():
        raise UserError(f"--peer-script {script}: no such file; name the script that times the peer")


def measured(interpreter: Path, script: Path, content: dict[str, Any], epochs: int) -> dict[str, Any]:
    """What the script prints: `examples_per_second`, `users_per_second` and more, on as many threads as ours.

    UserError, with the last line of what it says, when it fails or prints no JSON object at the end.
    """
    dataset = content["dataset"]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # its own packages, not ours
    with TemporaryDirectory() as scratch:  # RecBole leaves a log_tensorboard where it runs
        write_log(Path(scratch) / "data" / dataset / f"{dataset}.inter", prepared(content) / paths.SEQUENCES)
        asked = {
            "data": str(Path(scratch) / "data"),
            "dataset": dataset,
            "model": MODELS[content["backbone"]],
            "threads": content["train"]["threads"] or torch.get_num_threads(),
            "epochs": epochs,
            "max-length": content["datasets"][dataset]["max_length"],
        }
        options = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
        command = [str(interpreter.absolute()), str(script.absolute()), *options]
        done = subprocess.run(command, env=alone, cwd=scratch, capture_output=True, text=True)
    found = last_object(done.stdout)
    if done.returncode or found is None:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"--peer: {script.name} on {dataset} ended with status {done.returncode} and said: {said}")
    return found


def write_log(path: Path, sequences: Path) -> None:
    """Write the sequences as a RecBole log, with the position of an interaction in its history as its time."""
    path.parent.mkdir(parents=True)
    table = pl.read_parquet(sequences, columns=[USER, ITEM, POSITION])
    named = {USER: "user_id:token", ITEM: "item_id:token", POSITION: "timestamp:float"}
    table.select(pl.col(ours).alias(theirs) for ours, theirs in named.items()).write_csv(path, separator="\t")


def last_object(text: str) -> dict[str, Any] | None:
    """The JSON object in the last line of `text`, None if there is none."""
    try:
        found = json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None
