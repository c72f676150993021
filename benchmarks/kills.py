"""`python -m benchmarks.kills`: stages killed (SIGKILL) at random moments and run again, beside a run left in peace.

Every stage of a tiny demo is killed several times, at moments drawn over its usual duration, and then run to its end.
The outputs must have the bytes of a pipeline that nobody touched, and no temporary file may be left.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML

from benchmarks import options
from benchmarks.prepared import environment, parameters
from iadsr.errors import UserError
from iadsr.provenance import digest_of
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
STAGES = ("watch", "ingest", "filter", "encode", "train", "evaluate")
OUTPUTS = ("data", "models", "metrics")
TINY = {
    **{"datasets.demo.source.users": 60, "datasets.demo.source.items": 60, "datasets.demo.max_length": 8},
    **{"train.max_epochs": 3, "train.dim": 16, "train.threads": 1, "encode.threads": 1},
}
LONGER = 1.2  # times the usual duration, within which the moment is drawn: some are not hit at all


@app.command(epilog="Example: python -m benchmarks.kills --kills 100")
@reports_errors
def main(
    kills: Annotated[int, typer.Option(min=1, help="Processes to kill.")] = 100,
    denoiser: options.Denoiser = "iadsr",
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Kill stages until `--kills` processes have been hit, and print what differs at the end."""
    content = parameters(TINY | {"denoiser": denoiser}, [])
    with TemporaryDirectory() as untouched, TemporaryDirectory() as killed:
        durations = {stage: finished(Path(untouched), content, stage) for stage in STAGES}
        result = tried(Path(killed), content, durations, kills, random.Random(seed))  # noqa: S311 (no secret)
        expected, found = outputs(Path(untouched)), outputs(Path(killed))
        different = sorted(name for name in {**expected, **found} if expected.get(name) != found.get(name))
    result |= {"denoiser": denoiser, "files": len(expected), "different": different}
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))
    if different:
        raise UserError(f"{len(different)} files differ from those of a run that nobody touched")


def tried(
    folder: Path, content: dict[str, Any], durations: dict[str, float], kills: int, draw: random.Random
) -> dict[str, Any]:
    """Kill each stage in turn, going on when it has ended; at last the whole pipeline runs once more."""
    hit = dict.fromkeys(STAGES, 0)
    for stage in cycle(STAGES):
        for _ in range(draw.randint(1, 3)):
            hit[stage] += killed(folder, content, stage, draw.uniform(0, LONGER * durations[stage]))
        finished(folder, content, stage)
        if sum(hit.values()) >= kills:
            break
    for stage in STAGES:
        finished(folder, content, stage)
    return {"killed": sum(hit.values()), "by_stage": hit}


def begun(folder: Path, content: dict[str, Any], stage: str) -> subprocess.Popen[bytes]:
    if not (folder / paths.PARAMS).exists():
        YAML().dump(content, folder / paths.PARAMS)
    command = [sys.executable, "-m", f"stages.{stage}"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, env=environment(), **silent)  # type: ignore[call-overload]


def killed(folder: Path, content: dict[str, Any], stage: str, after: float) -> bool:
    """Whether the stage was still running `after` so many seconds, when it was killed."""
    with begun(folder, content, stage) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
    return process.returncode == -signal.SIGKILL


def finished(folder: Path, content: dict[str, Any], stage: str) -> float:
    """Seconds of a stage that nobody kills; UserError when it fails."""
    began = time.perf_counter()
    with begun(folder, content, stage) as process:
        if process.wait():
            raise UserError(f"stage {stage} failed in {folder} with status {process.returncode}")
    return time.perf_counter() - began


def outputs(folder: Path) -> dict[str, str]:
    """The digest of every file that the stages leave, those beginning with a dot included."""
    files = [file for place in OUTPUTS for file in (folder / place).rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): digest_of(file) for file in files}


if __name__ == "__main__":
    app()
