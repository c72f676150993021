"""The same data set and backbone in another framework, timed in its own interpreter by a script that prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.prepared import ROOT
from iadsr.errors import UserError

SCRIPT = ROOT.parent / "shared" / "peers" / "recbole_peer.py"
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
    command = [
        str(interpreter.absolute()),
        str(script.absolute()),
        "--dataset",
        dataset,
        "--model",
        MODELS[content["backbone"]],
    ]
    threads = content["train"]["threads"] or torch.get_num_threads()
    command += ["--threads", str(threads), "--epochs", str(epochs)]
    command += ["--max-length", str(content["datasets"][dataset]["max_length"])]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # its own packages, not ours
    with TemporaryDirectory() as scratch:  # RecBole leaves a log_tensorboard where it runs
        done = subprocess.run(command, env=alone, cwd=scratch, capture_output=True, text=True)
    found = last_object(done.stdout)
    if done.returncode or found is None:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise UserError(f"--peer: {script.name} on {dataset} ended with status {done.returncode} and said: {said}")
    return found


def last_object(text: str) -> dict[str, Any] | None:
    """The JSON object in the last line of `text`, None where that is none."""
    try:
        found = json.loads(text.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return None
    return found if isinstance(found, dict) else None
