"""Learning how likely items of the history are to come again, the model's scores being what they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.models.recommender import Recommender
from iadsr.models.repeats import AGES, met_in
from iadsr.schemas import TRAIN
from iadsr.sequences.windows import Feed, Windows, shortest_first

MOST = 10_000  # targets that are looked at
SPREAD = 10.0  # standard deviation of the biases before anything is seen: what never comes again has one near -10
AT_ONCE = 256  # histories


class Meetings(NamedTuple):
    """The items that some histories hold: their scores, and whether they came again."""

    rows: Int[Tensor, " cells"]  # the number of the history
    ages: Int[Tensor, " cells"]
    scores: Float[Tensor, " cells"]
    again: Bool[Tensor, " cells"]


@torch.no_grad()
def fit_repeats(model: Recommender, feed: Feed, max_length: int, generator: torch.Generator) -> None:
    """Set the biases under which some training targets are most likely."""
    assert model.repeats is not None
    windows, table, begins = drawn_prefixes(feed, max_length, generator), model.item_table()[1:], 0
    if not len(windows):
        return
    others, cells = list[Tensor](), list[Meetings]()
    for numbers in shortest_first(windows, AT_ONCE):
        batch = feed.batch(windows[numbers])
        targets = feed.sequences.items[(windows.starts + windows.lengths)[numbers]]
        found, met = (model.states(batch) @ table.T).double(), met_in(batch.items)
        places = met.rows, met.items - 1
        cells.append(Meetings(met.rows + begins, met.ages, found[places], met.items == targets[met.rows]))
        found[places] = float("-inf")
        others.append(found.logsumexp(1))
        begins += len(numbers)
    together = Meetings(*(torch.cat(column) for column in zip(*cells, strict=True)))
    model.repeats.biases.copy_(likeliest(torch.cat(others), together))


def drawn_prefixes(feed: Feed, max_length: int, generator: torch.Generator) -> Windows:
    """The histories before some training targets, which are all training rows but each user's first."""
    begins, ends = feed.sequences.offsets[:-1], feed.sequences.history_ends(TRAIN)
    owner = torch.repeat_interleave(feed.sequences.offsets.diff())
    rows = torch.arange(len(owner), device=owner.device)
    targets = rows[(rows > begins[owner]) & (rows < ends[owner])]
    targets = targets[torch.randperm(len(targets), generator=generator)[:MOST].to(targets.device)]
    starts = torch.maximum(begins[owner[targets]], targets - max_length)
    return Windows(starts, targets - starts, targets)


@torch.enable_grad()
def likeliest(others: Float[Tensor, " histories"], cells: Meetings) -> Float[Tensor, " ages"]:
    """The biases, by LBFGS; `others` is the logarithm of the sum over all items that a history does not hold."""
    biases = torch.zeros(AGES, dtype=others.dtype, device=others.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([biases], max_iter=100, line_search_fn="strong_wolfe")
    highest = others.scatter_reduce(0, cells.rows, cells.scores, "amax")
    shares = (cells.scores - highest[cells.rows]).exp()

    def closure() -> Tensor:
        optimizer.zero_grad()
        sums = (others - highest).exp().index_add(0, cells.rows, shares * biases.exp()[cells.ages])
        unlikely = sums.log().sum() - biases[cells.ages[cells.again]].sum()
        loss = unlikely + biases.square().sum() / (2 * SPREAD**2)
        loss.backward()
        return loss

    optimizer.step(closure)
    return biases.detach()
