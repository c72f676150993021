"""Cells that plant noise and say how well the detector finds it: no recommender is trained."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import Field

from benchmarks.noise import planting, without_kind
from benchmarks.prepared import ROOT, environment
from iadsr.errors import UserError
from iadsr.models.denoisers.cloze.detector import Kind
from iadsr.params import Group
from study.settings import Settings, content_of, decisive

DECIDE = (
    *("dataset", "ingest.", "filter.", "noise.", "encode.", "encoder.", "denoisers.cloze.detector."),
    *("theta", "denoisers.cloze.drop_above"),  # by which the detector's verdicts are read
)
OF_NAME = ("dataset", "denoiser", "noise.kind", "noise.seed", "denoisers.cloze.detector.seed")
ASKED = (*OF_NAME, "noise.ratio")  # by options of the command, the others by --set
MACHINE = ("device", "cpu", "threads", "torch", "commit", "dtype")


class Plantings(Group):
    """An entry of `plantings`: one cell for each combination."""

    about: str
    ratio: float = Field(gt=0)
    datasets: list[str] = Field(min_length=1)
    kinds: list[Kind] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    without: list[str] = Field(default_factory=list)  # DATASET/KIND that cannot be planted


class Planting(NamedTuple):
    """Noise of one kind in one data set, and a detector that is trained on all other kinds."""

    group: str
    dataset: str
    kind: str
    seed: int  # of the planting and of the detector
    settings: Settings  # dotted keys of params.yaml

    @property
    def name(self) -> str:
        return "/".join(map(str, self[:-1]))

    def content(self) -> dict[str, Any]:
        """params.yaml with the cell's settings."""
        content = content_of(self.settings)
        without_kind(content, self.kind)
        return content

    def decisive(self) -> Settings:
        """What decides its result: nothing of the recommender's training does."""
        return {key: value for key, value in decisive(self.content()).items() if key.startswith(DECIDE)}


def plantings_of(name: str, declared: Plantings, settings: Settings) -> Iterator[Planting]:
    """Seeds vary slowest."""
    for seed, dataset, kind in itertools.product(declared.seeds, declared.datasets, declared.kinds):
        if f"{dataset}/{kind}" in declared.without:
            continue
        own = {"dataset": dataset, "denoiser": "cloze", **planting(kind, declared.ratio, seed)}
        yield Planting(name, dataset, kind, seed, {**settings, **own})


def measured(cell: Planting) -> dict[str, Any]:
    """The line that `python -m benchmarks.noise` finds of a cell, from the beginning; UserError where it fails."""
    asked = [
        *("--dataset", cell.dataset, "--kind", cell.kind, "--ratio", str(cell.settings["noise.ratio"])),
        *("--seed", str(cell.seed), "--details", "--json"),
        *(f"--set={key}={json.dumps(value)}" for key, value in cell.settings.items() if key not in ASKED),
    ]
    command = [sys.executable, "-m", "benchmarks.noise", *asked]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise UserError(f"{cell.name}: benchmarks.noise failed; its message stands above")
    found = json.loads(done.stdout)
    return {
        "cell": cell.name,
        **{key: value for key, value in found.items() if key not in ("dataset", "kind", "ratio", "seed", *MACHINE)},
        "machine": {key: found[key] for key in MACHINE if key in found},
        "params": cell.decisive(),
    }
