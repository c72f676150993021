"""fit(): a generator of epoch reports, with early stopping, and checkpoints from which it goes on to the same end."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from iadsr.artifacts import replacing, require
from iadsr.device import pick_dtype
from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.products import set_product_dtype
from iadsr.ranking import rank_targets, summarise
from iadsr.recommender import Recommender
from iadsr.schemas import VALIDATION
from iadsr.seeds import derived_seed
from iadsr.sequences import Feed, training_windows


class TrainParams(Group):
    """`train` of params.yaml."""

    dim: int = Field(ge=1)
    batch_size: int = Field(ge=1)  # windows
    windows: Literal["tiles", "newest"]  # of histories longer than max_length: all of it, or its newest items
    prefixes: int = Field(ge=0)  # drawn of each window in an epoch, where each is an example of its own; 0: all
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)  # epochs without a better validation NDCG@10 (unfiltered, the paper's protocol)
    full_catalogue: int = Field(ge=0)  # the most items that the cross-entropy scores all; more are sampled
    negatives: int = Field(ge=1)  # sampled for a batch
    dtype: Literal["auto", "float32", "bfloat16"]  # of the products of the loss and of token-wise layers
    device: str
    threads: int = Field(ge=0)


CUTOFFS = (5, 10, 20)
STOPPING_METRIC = "validation_ndcg_10_unfiltered"


@dataclass(frozen=True)
class EpochReport:
    """One row of the history: mean loss terms, the denoiser's figures, validation metrics (after the epoch)."""

    epoch: int
    figures: dict[str, float]
    best: bool  # of all epochs so far
    seconds: float | None  # None for an epoch that an earlier, interrupted call has trained


@dataclass
class Progress:
    """All that changes while training, and so all that a checkpoint holds beside the model."""

    optimizers: list[torch.optim.Optimizer]
    order: torch.Generator  # of windows and batches
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def best_value(self) -> float:
        return self.history[self.best_epoch][STOPPING_METRIC] if self.best_epoch >= 0 else float("-inf")

    def finished(self, params: TrainParams) -> bool:
        epochs = len(self.history)
        return epochs >= params.max_epochs or epochs - 1 - self.best_epoch >= params.patience


def fit(
    model: Recommender, feed: Feed, params: TrainParams, max_length: int, seed: int, checkpoint: Path
) -> Iterator[EpochReport]:
    """Train until validation NDCG@10 has not risen for `patience` epochs; end with the best epoch's weights loaded.

    After every epoch the whole state is written to `checkpoint`; where that file exists, training goes on from it
    (first reporting the epochs that it holds) and ends, on a CPU, with the same bytes as if it had never stopped.
    UserError when a loss is not finite.
    """
    progress = start(model, params, seed)
    if checkpoint.exists():
        load_checkpoint(checkpoint, model, progress)
        yield from earlier_reports(progress)
    while not progress.finished(params):
        began = time.perf_counter()
        figures = train_epoch(model, feed, params, max_length, progress)
        model.eval()
        ranks = rank_targets(model, feed, VALIDATION, max_length)
        figures |= summarise(ranks, CUTOFFS, VALIDATION)
        best = figures[STOPPING_METRIC] > progress.best_value()
        progress.history.append(figures)
        if best:
            progress.best_epoch = len(progress.history) - 1
            progress.best_weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
        save_checkpoint(checkpoint, model, progress)
        yield EpochReport(len(progress.history) - 1, figures, best, time.perf_counter() - began)
    model.load_state_dict(progress.best_weights)
    model.eval()


def earlier_reports(progress: Progress) -> Iterator[EpochReport]:
    """The epochs that a checkpoint holds."""
    best = float("-inf")
    for epoch, figures in enumerate(progress.history):
        better = figures[STOPPING_METRIC] > best
        best = max(best, figures[STOPPING_METRIC])
        yield EpochReport(epoch, figures, better, None)


def start(model: Recommender, params: TrainParams, seed: int) -> Progress:
    """Fresh optimisers and generators; also seeds torch's own generator, which dropout and negatives draw from.

    Under a sampled loss few rows of the item table have a gradient, so it is sparse, and only these rows are moved.
    """
    torch.manual_seed(derived_seed(seed, "dropout"))
    set_product_dtype(model, pick_dtype(params.dtype, next(model.parameters()).device))
    model.prefixes_drawn = params.prefixes
    sampled = model.items.num_embeddings - 1 > params.full_catalogue
    if sampled and not model.sampled_loss:
        raise UserError(
            f"params.yaml: train.full_catalogue: {params.full_catalogue} items, but this denoiser computes with all "
            f"{model.items.num_embeddings - 1} in each batch; raise it, or choose another denoiser"
        )
    model.negatives, model.items.sparse = (params.negatives if sampled else None), sampled
    if sampled and params.weight_decay > 0:
        raise UserError("params.yaml: train.weight_decay: must be 0 where the loss is sampled (train.full_catalogue)")
    dense = [parameter for parameter in model.parameters() if not (sampled and parameter is model.items.weight)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(dense, lr=params.learning_rate, weight_decay=params.weight_decay, fused=True)
    ]
    if sampled:
        optimizers.append(torch.optim.SparseAdam([model.items.weight], lr=params.learning_rate))
    return Progress(optimizers, torch.Generator().manual_seed(derived_seed(seed, "order")))


def train_epoch(
    model: Recommender, feed: Feed, params: TrainParams, max_length: int, progress: Progress
) -> dict[str, float]:
    """One pass over all training windows; returns the mean of each loss term over batches and the model's figures."""
    model.train()
    windows = training_windows(feed.sequences, max_length, progress.order, params.windows)
    terms: dict[str, list[Tensor]] = {}  # on the device, which need not wait for us to read them
    for batch in feed.shuffled(windows, params.batch_size, progress.order):
        loss = model.loss(batch)
        for optimizer in progress.optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.stack(list(loss.values())).sum().backward()
        if model.largest_gradient is not None:  # of all but a sparse one
            torch.nn.utils.clip_grad_norm_(progress.optimizers[0].param_groups[0]["params"], model.largest_gradient)
        for optimizer in progress.optimizers:
            optimizer.step()
        for name, value in loss.items():
            terms.setdefault(name, []).append(value.detach())
    means = {f"loss_{name}": torch.stack(values).cpu().double().mean().item() for name, values in terms.items()}
    if not all(map(math.isfinite, means.values())):
        raise UserError(
            f"train.learning_rate: the loss became {means} in epoch {len(progress.history)}; lower the rate"
        )
    return means | model.end_epoch()


# --- checkpoints: one safetensors file, tensors under prefixed names, the history as JSON in its header ---


def save_checkpoint(path: Path, model: Recommender, progress: Progress) -> None:
    device = next(model.parameters()).device
    tensors = {
        **{f"model.{name}": value for name, value in model.state_dict().items()},
        **{f"best.{name}": value for name, value in progress.best_weights.items()},
        **{f"extra.{name}": value for name, value in model.training_state().items()},
        **{f"optimizer.{name}": value for name, value in _optimizer_tensors(progress.optimizers).items()},
        **{f"generator.{name}": value for name, value in _generator_states(progress, device).items()},
    }
    content = {"history": progress.history, "best_epoch": progress.best_epoch, "threads": torch.get_num_threads()}
    header = {"progress": json.dumps(content)}
    with replacing(path) as temporary:
        save_file({name: value.contiguous() for name, value in tensors.items()}, temporary, header)


def load_checkpoint(path: Path, model: Recommender, progress: Progress) -> None:
    """Continue from a checkpoint of the same run; UserError for a file that is none."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        _restore(model, progress, header, tensors)
    except torch.OutOfMemoryError:  # a RuntimeError, but not the file's fault
        raise
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a checkpoint of this training ({error}); delete it and run again") from None


def _restore(model: Recommender, progress: Progress, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    device = next(model.parameters()).device
    parts = {kind: _with_prefix(tensors, kind) for kind in ("model", "best", "extra", "optimizer", "generator")}
    model.load_state_dict(parts["model"])
    model.load_training_state(parts["extra"])
    progress.best_weights = {name: value.to(device) for name, value in parts["best"].items()}
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
    """Of the order, and of dropout: torch's own generators of the CPU and of the device."""
    states = {"order": progress.order.get_state(), "torch": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


# --- history.csv: a row an epoch; no timings, so that the same run gives the same bytes ---


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *history[0]])
        writer.writeheader()
        writer.writerows({"epoch": epoch, **figures} for epoch, figures in enumerate(history))


def read_history(path: Path) -> list[dict[str, float]]:
    """UserError when the file is missing."""
    require(path, "train")
    with open(path, encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if name != "epoch"} for row in csv.DictReader(file)]
