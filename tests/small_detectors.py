"""Small gap models and detectors with weights as large as trained ones, and text vectors for a prepared project."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from small_models import ITEMS, LENGTH, SMALL_MANIFEST, USERS, WIDTH, write_means
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.models.denoisers.cloze.detector import Detector, DetectorParams
from iadsr.models.denoisers.cloze.gap_model import GapModel
from iadsr.models.denoisers.cloze.weighing import POINTS
from iadsr.provenance import digest_of, digests_of, write_sealed
from iadsr.sequences.windows import read_sequences
from stages import paths

TINY = (  # of params.yaml: a demo and a detector that take a moment
    *("datasets.demo.source.users=60", "datasets.demo.source.items=60", "datasets.demo.max_length=6"),
    *("train.dim=8", "train.threads=1", "train.device=cpu", "train.max_epochs=1"),
    *("denoisers.cloze.detector.folds=2", "denoisers.cloze.detector.dim=4", "denoisers.cloze.detector.epochs=1"),
    "denoisers.cloze.detector.negatives=16",
)


def detector_params(**changes: Any) -> DetectorParams:
    """Two folds, which take a moment."""
    defaults = {
        **{"folds": 2, "dim": 4, "epochs": 1, "learning_rate": 0.01, "dropout": 0.2, "own_decay": 1.0},
        **{"negatives": 6, "batch_size": 4, "seed": 0, "kinds": ["uniform", "popularity"]},
    }
    return DetectorParams.model_validate({**defaults, **changes})


def random_texts(items: int = ITEMS, seed: int = 0) -> Tensor:
    """Of unit length, with zeros for padding."""
    texts = F.normalize(torch.randn(items + 1, WIDTH, generator=torch.Generator().manual_seed(seed)), dim=1)
    texts[0] = 0
    return texts


@torch.no_grad()
def large(model: GapModel) -> GapModel:
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.5)
    model.own.weight[0].zero_()
    return model.eval()


def gap_model(seed: int = 0) -> GapModel:
    torch.manual_seed(seed)
    return large(GapModel(ITEMS, WIDTH, 4, LENGTH, 0.0))


@torch.no_grad()
def detector(folds: int = 2, seed: int = 0) -> Detector:
    """Users 1, 2, 3, ... are in folds 0, 1, 0, ...; every signal counts, and so does every fold."""
    torch.manual_seed(seed)
    found = Detector(USERS, ITEMS, WIDTH, LENGTH, detector_params(folds=folds))
    for number in range(folds):
        large(found.model(number))
    found.read(random_texts())
    found.fold_of_user[1:] = torch.arange(USERS) % folds
    rising(found)
    return found.eval()


@torch.no_grad()
def rising(found: Detector) -> None:
    """Functions between -6 and 2, where most signals lie, and a probability that falls with their sum."""
    weighing = found.weighing
    weighing.knots.copy_(torch.linspace(-6, 2, weighing.knots.shape[1]).expand_as(weighing.knots))
    weighing.heights.copy_(torch.rand(weighing.heights.shape).cumsum(1) - 3)
    weighing.points.copy_(torch.linspace(-10, 10, POINTS))
    weighing.noise.copy_(torch.linspace(0.95, 0.05, POINTS))


def counted(function: Any, calls: list[int]) -> Any:
    """The function, each of whose calls is noted."""

    def replacement(*arguments: Any) -> Any:
        calls.append(1)
        return function(*arguments)

    return replacement


def asked_for(changes: Iterable[str] = TINY) -> list[str]:
    """The options of a command that set these parameters."""
    return [word for change in changes for word in ("--set", change)]


def without_encoding(make: Callable[..., None]) -> Callable[..., None]:
    """As `make` of benchmarks/prepared.py, but texts are not encoded: their vectors are random."""

    def replacement(folder: Path, content: dict[str, Any], stages: list[str]) -> None:
        make(folder, content, [stage for stage in stages if stage != "encode"])
        if "encode" in stages:
            write_item_vectors(folder, content)

    return replacement


def write_item_vectors(project: Path, params: Any) -> None:
    """Random vectors, as the stage `encode` would write those of the titles."""
    encoded, inputs = project / paths.ENCODED, [project / path for path in (paths.SEQUENCES, paths.ITEMS)]
    write_means(encoded, read_sequences(inputs[0]))
    stated = {"encoder": params["encoder"], "item_template": params["encode"]["item_template"], "prefixes": "none"}
    made = {"inputs": digests_of(inputs), "sha256": {"items.npy": digest_of(encoded / "items.npy")}}
    write_sealed(encoded / "manifest.json", {**SMALL_MANIFEST, **stated, **made})
