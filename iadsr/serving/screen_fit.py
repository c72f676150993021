"""The screen of a trained model, from the data set that it was trained on and the vectors in data/encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.denoisers.prefix_masks import seen
from iadsr.models.recommender import Recommender
from iadsr.provenance import digests_of
from iadsr.schemas import TEST
from iadsr.sequences.text_vectors import opened_prefixes, require_encodings
from iadsr.sequences.windows import Batch, Feed, history_windows, read_sequences
from iadsr.serving.screen import Screen, bins, estimates, features, levers, projections
from iadsr.serving.texts import TitleRuns, reads_texts

SAFETY = 1.1  # times the largest error that was seen
ROWS = 20_000  # prefixes that the map is fitted to, about
FEWEST = 500  # verdicts from which a largest error is taken
BINS = 8  # of numbers of titles: the last is of 128 and more
RIDGES = (1e-3, 1e-2, 1e-1)  # of each column's own square; the one with the smallest margins counts


@torch.no_grad()
def screen_of(model: Recommender, config: ModelConfig, sequences: Path, items: Path, encoded: Path) -> Screen | None:
    """The screen of a model; None for one that encodes no texts of prefixes.

    UserError where `encoded` does not hold the vectors that the model was trained with.
    """
    if not (isinstance(model, IADSR) and reads_texts(model)):
        return None
    assert config.encodings is not None
    if config.encodings["prefixes"] == "mean":
        return None
    require_encodings(encoded, config.encodings)
    data, vectors = (
        read_sequences(sequences),
        opened_prefixes(encoded, digests_of([sequences, items]), config.max_length),
    )
    vectors.require_rows(data.offsets.numpy(), data.item_count)
    windows = history_windows(data, TEST, config.max_length)
    windows = windows[torch.from_numpy(sample(windows.lengths.numpy(), ROWS))]
    batch = Feed(data, vectors).batch(windows)
    begins = torch.maximum(data.offsets[batch.users - 1], windows.starts + 1 - config.max_length)
    histories = [data.items[begin:end].tolist() for begin, end in zip(begins, windows.limits, strict=True)]
    table = projections(model, torch.from_numpy(vectors.items.astype(np.float32)))
    prefixes = TitleRuns.of(histories, config.max_length)
    inputs = features([table[history] for history in histories], prefixes, config.max_length)
    return fitted(model, batch, prefixes.ends - prefixes.starts, inputs)


def fitted(
    model: IADSR, batch: Batch, sizes: Int[Tensor, "batch time"], inputs: Float[Tensor, "rows features"]
) -> Screen:
    """A screen whose margins are from two maps, each fitted to half of the histories and tried on the others.

    `batch` holds the histories with the exact vectors of their prefixes, `inputs` the features of all of these.
    """
    assert batch.text_vectors is not None
    exact, even = projections(model, batch.text_vectors), batch.valid.nonzero()[:, 0] % 2 == 0
    outputs, found = exact[batch.valid], exact.new_zeros(int(batch.valid.sum()), exact.shape[2])
    halves = {half: normal_equations(inputs[even == half], outputs[even == half]) for half in (True, False)}
    tried = []
    for ridge in RIDGES:
        for half in halves:
            found[even == half] = estimates(solved(*halves[not half], ridge), inputs[even == half])
        estimated = torch.zeros_like(exact)
        estimated[batch.valid] = found
        tried.append((ridge, *margins(model, batch, sizes, estimated, exact)))
    ridge, *least = min(tried, key=lambda each: float(each[1].max()))
    squares, products = (first + second for first, second in zip(*halves.values(), strict=True))
    return Screen(solved(squares, products, ridge), *least)


def margins(
    model: IADSR,
    batch: Batch,
    sizes: Int[Tensor, "batch time"],
    estimated: Float[Tensor, "batch time both"],
    exact: Float[Tensor, "batch time both"],
) -> tuple[Float[Tensor, "kinds bins 2"], Float[Tensor, ""]]:
    """The margins of a screen: the largest errors, times `SAFETY`, on these histories and all that they begin with."""
    unit, interests = F.normalize(model.prefix_states(batch.items), dim=-1), model.params.interests
    width = unit.shape[-1]
    long, short = (
        F.normalize(estimated[..., part], dim=-1) - F.normalize(exact[..., part], dim=-1)
        for part in (slice(width), slice(width, None))
    )
    of_short = {"both": (unit @ short.mT) + (unit * short).sum(-1)[:, None], "long": unit @ short.mT}
    by_short = of_short.get(interests, (unit * short).sum(-1)[:, None].expand(-1, unit.shape[1], -1))
    lever, of_long = levers(unit, unit, interests)
    by_long, held, own = long @ unit.mT * of_long, seen(batch), bins(sizes)
    errors = (
        ((by_short + by_long) / torch.hypot(lever, torch.full_like(lever, of_long)), own[:, None]),
        (by_long, own[..., None]),
        (by_short / lever, own[:, None]),
    )
    found = torch.stack([largest(error[held], which.expand_as(held)[held]) for error, which in errors])
    gates = (unit * long).sum(-1)[batch.valid].abs()
    gate = gates.max() if len(gates) >= FEWEST else torch.tensor(float("inf"))
    return found * SAFETY, gate * SAFETY


def largest(errors: Float[Tensor, " some"], which: Int[Tensor, " some"]) -> Float[Tensor, "bins 2"]:
    """The largest error upwards and downwards of each bin or a higher one; infinite where the lowest has too few.

    A higher bin with too few has those of the one below.
    """
    found = torch.full((BINS, 2), float("inf"))
    for place in range(BINS):
        own = errors[which >= place]
        if len(own) >= FEWEST:
            found[place] = torch.stack([own.max(), -own.min()]).clamp(min=0)
        elif place:
            found[place] = found[place - 1]
    return found


def normal_equations(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    return inputs.T @ inputs, inputs.T @ outputs


def solved(squares: Tensor, products: Tensor, ridge: float) -> Tensor:
    """The weights of a ridge regression."""
    added = ridge * (squares.diag() + 1)
    return torch.linalg.solve((squares + added.diag()).double(), products.double()).float()


def sample(lengths: np.ndarray, rows: int) -> Int[np.ndarray, " users"]:
    """Users in random order, as many as have `rows` rows together."""
    order = np.random.default_rng(0).permutation(len(lengths))
    return order[: int(np.searchsorted(np.cumsum(lengths[order]), rows)) + 1]
