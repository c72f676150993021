"""fit(): a generator of epoch reports, with early stopping, and checkpoints from which it goes on to the same end."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from iadsr.device import pick_dtype
from iadsr.errors import UserError
from iadsr.models.ranking import rank_targets, summarise
from iadsr.models.recommender import LossSettings, Recommender
from iadsr.params import Group
from iadsr.schemas import VALIDATION
from iadsr.seeds import derived_seed
from iadsr.sequences.windows import Feed, training_windows
from iadsr.train.average import Average
from iadsr.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from iadsr.train.history import STOPPING_METRIC
from iadsr.train.repeats import fit_repeats


class TrainParams(Group):
    """`train` of params.yaml."""

    dim: int = Field(ge=1)
    item_start: Literal["random", "text"]  # what item embeddings are before training
    repeat: Literal["none", "learned"]  # a bias for items that are already in the history, learnt after each epoch
    batch_size: int = Field(ge=1)  # windows
    windows: Literal["tiles", "newest"]  # of histories longer than max_length: all of it, or its newest items
    prefixes: int = Field(ge=0)  # drawn of each window in an epoch, where each is an example of its own; 0: all
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    item_decay: float = Field(ge=0)  # of what item embeddings have moved from their start, squared, mean over items
    average: float = Field(ge=0, lt=1)  # decay, a step, of the average of weights that is validated and kept; 0: none
    max_epochs: int = Field(ge=1)
    patience: int = Field(ge=1)  # epochs without a better validation NDCG@10 (unfiltered, the paper's protocol)
    full_catalogue: int = Field(ge=0)  # the most items that the cross-entropy scores all; more are sampled
    negatives: int = Field(ge=1)  # sampled for a batch
    dtype: Literal["auto", "float32", "bfloat16"]  # of the products of the loss and of token-wise layers
    device: str
    threads: int = Field(ge=0)


CUTOFFS = (5, 10, 20)


@dataclass(frozen=True)
class EpochReport:
    """One row of the history: mean loss terms, the denoiser's figures, validation metrics (after the epoch)."""

    epoch: int
    figures: dict[str, float]
    best: bool  # of all epochs so far
    seconds: float | None  # None for an epoch that an earlier, interrupted call has trained


def fit(
    model: Recommender, feed: Feed, params: TrainParams, max_length: int, seed: int, checkpoint: Path
) -> Iterator[EpochReport]:
    """Train until validation NDCG@10 has not risen for `patience` epochs; end with the best epoch's weights loaded.

    After every epoch the whole state is written to `checkpoint`; where that file exists, training goes on from it
    (first reporting the epochs that it holds) and ends, on a CPU, with the same bytes as if it had never stopped.
    UserError when a loss is not finite.
    """
    progress = start(model, params, seed)
    begun = model.items.weight.detach().clone() if params.item_decay else None
    if checkpoint.exists():
        load_checkpoint(checkpoint, model, progress)
        yield from earlier_reports(progress)
    while not finished(progress, params):
        began = time.perf_counter()
        figures = train_epoch(model, feed, params, max_length, progress, begun)
        model.eval()
        with progress.average.in_place(model):
            if model.repeats is not None:
                fit_repeats(model, feed, max_length, torch.Generator().manual_seed(derived_seed(seed, "repeats")))
            ranks = rank_targets(model, feed, VALIDATION, max_length)
            figures |= summarise(ranks, CUTOFFS, VALIDATION)
            best = figures[STOPPING_METRIC] > progress.best_value()
            progress.history.append(figures)
            if best:
                progress.best_epoch = len(progress.history) - 1
                progress.best_weights = {name: value.detach().clone() for name, value in model.trained_state().items()}
        save_checkpoint(checkpoint, model, progress)
        yield EpochReport(len(progress.history) - 1, figures, best, time.perf_counter() - began)
    model.load_trained_state(progress.best_weights)
    model.eval()


def finished(progress: Progress, params: TrainParams) -> bool:
    """Whether all epochs are done, or too many without a better one."""
    epochs = len(progress.history)
    return epochs >= params.max_epochs or epochs - 1 - progress.best_epoch >= params.patience


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
    sampled = is_sampled(model, params)
    dtype = pick_dtype(params.dtype, next(model.parameters()).device)
    model.prepare(LossSettings(dtype, params.negatives if sampled else None, params.prefixes))
    dense = [parameter for parameter in model.parameters() if not (sampled and parameter is model.items.weight)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(dense, lr=params.learning_rate, weight_decay=params.weight_decay, fused=True)
    ]
    if sampled:
        optimizers.append(torch.optim.SparseAdam([model.items.weight], lr=params.learning_rate))
    order = torch.Generator().manual_seed(derived_seed(seed, "order"))
    return Progress(optimizers, order, Average(params.average))


def is_sampled(model: Recommender, params: TrainParams) -> bool:
    """Whether the catalogue is too large for a loss over all of it; UserError where something needs it whole."""
    items = model.items.num_embeddings - 1
    if items <= params.full_catalogue:
        return False
    if not model.traits.sampled_loss:
        raise UserError(
            f"params.yaml: train.full_catalogue: {params.full_catalogue} items, but this denoiser computes with all "
            f"{items} in each batch; raise it, or choose another denoiser"
        )
    for key in ("weight_decay", "item_decay"):
        if getattr(params, key) > 0:
            raise UserError(f"params.yaml: train.{key}: must be 0 where the loss is sampled (train.full_catalogue)")
    return True


def train_epoch(
    model: Recommender,
    feed: Feed,
    params: TrainParams,
    max_length: int,
    progress: Progress,
    begun: Float[Tensor, "table dim"] | None = None,
) -> dict[str, float]:
    """One pass over all training windows; returns the mean of each loss term over batches and the model's figures.

    Item embeddings are held to those `begun` with, if given, by `item_decay` (L2-SP, Li et al. 2018,
    https://arxiv.org/abs/1802.01483).
    """
    model.train()
    windows = training_windows(feed.sequences, max_length, progress.order, params.windows)
    terms: dict[str, list[Tensor]] = {}  # on the device, which need not wait for us to read them
    for batch in feed.shuffled(windows, params.batch_size, progress.order):
        loss = model.loss(batch)
        if begun is not None:
            moved = model.items.weight[1:] - begun[1:]
            loss["held"] = params.item_decay * moved.square().sum(1).mean()
        for optimizer in progress.optimizers:
            optimizer.zero_grad(set_to_none=True)
        torch.stack(list(loss.values())).sum().backward()
        if (largest := model.traits.largest_gradient) is not None:  # of all but a sparse one
            torch.nn.utils.clip_grad_norm_(progress.optimizers[0].param_groups[0]["params"], largest)
        for optimizer in progress.optimizers:
            optimizer.step()
        progress.average.update(model)
        for name, value in loss.items():
            terms.setdefault(name, []).append(value.detach())
    means = {f"loss_{name}": torch.stack(values).cpu().double().mean().item() for name, values in terms.items()}
    if not all(map(math.isfinite, means.values())):
        raise UserError(
            f"train.learning_rate: the loss became {means} in epoch {len(progress.history)}; lower the rate"
        )
    return means | model.end_epoch()
