"""Checkpoints: one safetensors file, tensors under prefixed names, the history as JSON in its header."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from iadsr.artifacts import replacing
from iadsr.errors import UserError
from iadsr.models.recommender import Recommender
from iadsr.train.average import Average
from iadsr.train.history import STOPPING_METRIC

PARTS = ("model", "best", "average", "extra", "optimizer", "generator")


@dataclass
class Progress:
    """All that changes while training, and so all that a checkpoint holds beside the model."""

    optimizers: list[torch.optim.Optimizer]
    order: torch.Generator  # of windows and batches
    average: Average
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def best_value(self) -> float:
        return self.history[self.best_epoch][STOPPING_METRIC] if self.best_epoch >= 0 else float("-inf")


def save_checkpoint(path: Path, model: Recommender, progress: Progress) -> None:
    device = next(model.parameters()).device
    tensors = {
        **{f"model.{name}": value for name, value in model.trained_state().items()},
        **{f"best.{name}": value for name, value in progress.best_weights.items()},
        **{f"average.{name}": value for name, value in progress.average.weights.items()},
        **{f"extra.{name}": value for name, value in model.training_state().items()},
        **{f"optimizer.{name}": value for name, value in _optimizer_tensors(progress.optimizers).items()},
        **{f"generator.{name}": value for name, value in _generator_states(progress, device).items()},
    }
    content = {
        **{"history": progress.history, "best_epoch": progress.best_epoch, "steps": progress.average.steps},
        "threads": torch.get_num_threads(),
    }
    header = {"progress": json.dumps(content)}
    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, header)


def load_checkpoint(path: Path, model: Recommender, progress: Progress) -> None:
    """Continue from a checkpoint of the same run; a file that is not one is set aside, with a UserError."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        _restore(model, progress, header, tensors)
    except torch.OutOfMemoryError:  # a RuntimeError, but not the file's fault
        raise
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
        aside = path.with_suffix(".damaged")
        path.replace(aside)
        set_aside = f"it is {aside.name} now, and the same command begins anew"
        raise UserError(f"{path}: not a checkpoint of this training; {set_aside}") from None


def _restore(model: Recommender, progress: Progress, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    device = next(model.parameters()).device
    parts = {kind: _with_prefix(tensors, kind) for kind in PARTS}
    model.load_trained_state(parts["model"])
    model.load_training_state(parts["extra"])
    progress.best_weights = {name: value.to(device) for name, value in parts["best"].items()}
    progress.average.weights = {name: value.to(device) for name, value in parts["average"].items()}
    progress.average.steps = header["steps"]
    progress.history, progress.best_epoch = header["history"], header["best_epoch"]
    torch.set_num_threads(header["threads"])  # sums of floats depend on it
    _load_optimizers(progress.optimizers, parts["optimizer"])
    progress.order.set_state(parts["generator"]["order"])
    torch.set_rng_state(parts["generator"]["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(parts["generator"]["cuda"], device)
    if device.type == "mps":
        torch.mps.set_rng_state(parts["generator"]["mps"])


def _with_prefix(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name[len(kind) + 1 :]: value for name, value in tensors.items() if name.startswith(f"{kind}.")}


def _optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    return {
        f"{number}.{index}.{name}": torch.as_tensor(value)
        for number, optimizer in enumerate(optimizers)
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _load_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for key, value in _with_prefix(tensors, str(number)).items():
            index, name = key.split(".", 1)
            # SparseAdam counts its steps in a Python number, as it wants them back
            counted = name == "step" and isinstance(optimizer, torch.optim.SparseAdam)
            state.setdefault(int(index), {})[name] = value.item() if counted else value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _generator_states(progress: Progress, device: torch.device) -> dict[str, Tensor]:
    """The states of the generators of the order and of dropout: torch's own, of the CPU and of the device."""
    states = {"order": progress.order.get_state(), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states
