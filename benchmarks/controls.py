"""`python -m benchmarks.controls`: two recommenders that learn nothing step by step, which a neural one has to beat.

Both score items by a matrix over pairs of items, a row for each item of the history, which counts less the older it is:

- `transitions`: how often one item came after another in training histories, where titles that are alike share counts;
- `cooccurrence`: EASE (Steck 2019, https://arxiv.org/abs/1905.03375), the linear model of a history's other items that
  has a closed form.

Their few settings are chosen on validation (NDCG@10, unfiltered, as everywhere).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import machine, options
from benchmarks.prepared import parameters, prepared
from iadsr.errors import UserError
from iadsr.layers.principal import centred
from iadsr.models.ranking import headlines, rank_targets, summarise
from iadsr.models.recommender import Recommender
from iadsr.params import chosen_dataset
from iadsr.schemas import TEST, VALIDATION
from iadsr.sequences.graphs import training_interactions
from iadsr.sequences.text_vectors import ItemVectors
from iadsr.sequences.windows import Batch, Feed, Sequences, read_sequences
from stages import paths
from stages.command import new_app, reports_errors

app = new_app()
MOST_ITEMS = 40_000  # a matrix over their pairs takes 6 GB
NEIGHBOURS = 50  # of a title
CHOSEN_BY = "validation_ndcg_10_unfiltered"
RIDGES, DECAYS = (50.0, 200.0, 1000.0), (0.5, 0.7, 0.85, 1.0)
TEXT_SHARES, REACHES = (0.0, 0.25, 0.5, 0.75), (1, 2)


class Settings(NamedTuple):
    """Of one matrix and one way to read it."""

    matrix: dict[str, float]
    reach: int  # items of the history that count, the newest; 0: all
    decay: float  # an item counts so much less than the next newer one


class Nothing(nn.Module):
    """In place of a backbone."""

    hidden = 1


class ItemToItem(Recommender):
    """Scores are sums of a matrix's rows over the items of the history."""

    def __init__(self, matrix: Float[Tensor, "items+1 items+1"], reach: int, decay: float) -> None:
        super().__init__(1, 1, Nothing())
        self.matrix, self.reach, self.decay = matrix, reach, decay

    def item_table(self) -> Float[Tensor, "items+1 items+1"]:
        return self.matrix

    def states(self, batch: Batch) -> Float[Tensor, "batch time"]:
        """How much each item of a window counts."""
        ages = batch.last[:, None] - torch.arange(batch.items.shape[1])
        counted = batch.valid & (ages < (self.reach or batch.items.shape[1]))
        return torch.where(counted, self.decay ** ages.clamp(min=0).float(), 0.0)

    def scores(self, states: Tensor, table: Tensor, items: Int[Tensor, "batch time"]) -> Float[Tensor, "batch items"]:
        return F.embedding_bag(items, self.matrix, per_sample_weights=states, mode="sum")[:, 1:].contiguous()


@app.command(epilog="Example: python -m benchmarks.controls --dataset beauty --json")
@reports_errors
def main(dataset: options.Dataset = "demo", changes: options.Changes = None, as_json: options.AsJson = False) -> None:
    """Choose the settings of each control on validation, and evaluate it on the test items."""
    content = parameters({"dataset": dataset, "denoiser": "none", "train.item_start": "text"}, changes or [])
    folder, max_length = prepared(content), chosen_dataset(content)[1].max_length
    feed = Feed(read_sequences(folder / paths.SEQUENCES))
    if feed.sequences.item_count > MOST_ITEMS:
        raise UserError(f"--dataset {dataset}: {feed.sequences.item_count} items are too many for a matrix over pairs")
    texts = centred(torch.tensor(np.asarray(ItemVectors(folder / paths.ENCODED).items)).float())
    ways = {"transitions": transitions(feed.sequences, texts), "cooccurrence": cooccurrence(feed.sequences)}
    found = {name: best(models, feed, max_length) for name, models in ways.items()}
    result = {"dataset": dataset, **found, **machine.described(torch.device("cpu"))}
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def best(models: Iterator[tuple[Settings, ItemToItem]], feed: Feed, max_length: int) -> dict[str, Any]:
    """The settings that are best on validation, its metrics, and the seconds that all took."""
    began, chosen = time.perf_counter(), dict[str, Any]()
    for settings, model in models:
        value = summarise(rank_targets(model, feed, VALIDATION, max_length), (10,), VALIDATION)[CHOSEN_BY]
        if value > chosen.get(CHOSEN_BY, -1):
            test = summarise(rank_targets(model, feed, TEST, max_length), (10,), TEST)
            asked = {**settings.matrix, "reach": settings.reach, "decay": settings.decay}
            chosen = {**asked, **{name: round(test[name], 5) for name in headlines(test)}, CHOSEN_BY: round(value, 5)}
    return {**chosen, "seconds": round(time.perf_counter() - began, 1)}


def transitions(sequences: Sequences, texts: Float[Tensor, "items+1 width"]) -> Iterator[tuple[Settings, ItemToItem]]:
    """Shares of what came next, of items and their like, for items that are alike."""
    users, items = training_interactions(sequences)
    counts, alike = following(users, items, len(texts)), like_titles(texts)
    for share in TEXT_SHARES:
        spread = (1 - share) * sparse.eye_array(len(texts)) + share * alike
        smooth = spread @ shares(counts) @ spread.T
        matrix = torch.from_numpy(smooth.toarray().astype(np.float32))
        for reach, decay in product(REACHES, DECAYS[:2]):
            yield Settings({"text_share": share}, reach, decay), ItemToItem(matrix, reach, decay)


def following(users: Int[np.ndarray, " rows"], items: Int[np.ndarray, " rows"], size: int) -> sparse.csr_array:
    """How often an item came right after another in a history; an item that follows itself is left out."""
    moves = (users[1:] == users[:-1]) & (items[1:] != items[:-1])
    pairs = items[:-1][moves], items[1:][moves]
    return sparse.csr_array((np.ones(len(pairs[0])), pairs), shape=(size, size))


def shares(counts: sparse.csr_array) -> sparse.csr_array:
    """Rows that sum to 1, or to less for what was seen rarely: one more is added to each sum."""
    return sparse.csr_array(sparse.diags_array(1 / (counts.sum(axis=1) + 1)) @ counts)


def like_titles(texts: Float[Tensor, "items+1 width"]) -> sparse.csr_array:
    """The nearest titles of each item by cosine, with weights that sum to 1; rows without a text are empty."""
    rows, columns, weights = [], [], []
    for part in torch.arange(len(texts)).split(1024):
        cosines = texts[part] @ texts.T
        cosines[torch.arange(len(part)), part] = 0
        near, which = cosines.topk(min(NEIGHBOURS, len(texts) - 1), dim=1)
        near = near.clamp(min=0) ** 4  # far fewer count than are listed
        rows.append(part.repeat_interleave(near.shape[1]))
        columns.append(which.flatten())
        weights.append((near / near.sum(1, keepdim=True).clamp(min=1e-9)).flatten())
    entries = torch.cat(weights).numpy(), (torch.cat(rows).numpy(), torch.cat(columns).numpy())
    return sparse.csr_array(entries, shape=(len(texts), len(texts)))


def cooccurrence(sequences: Sequences) -> Iterator[tuple[Settings, ItemToItem]]:
    """Linear models of whether a history holds an item from which others it holds."""
    users, items = training_interactions(sequences)
    size = sequences.item_count + 1
    held = sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape=(sequences.users, size)).sign()
    together = torch.from_numpy((held.T @ held).toarray())
    for ridge in RIDGES:
        matrix = linear_model(together, ridge)
        for decay in DECAYS:
            yield Settings({"ridge": ridge}, 0, decay), ItemToItem(matrix, 0, decay)


def linear_model(together: Float[Tensor, "size size"], ridge: float) -> Float[Tensor, "size size"]:
    """Of all that minimise the squared error plus `ridge` times the squares, that with nothing on its diagonal."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(together + ridge * torch.eye(len(together))))
    found = inverse / -inverse.diagonal()
    return found.fill_diagonal_(0)


if __name__ == "__main__":
    app()
