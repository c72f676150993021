"""Verdicts of IADSR without encoding the text of every prefix.

A verdict depends on texts by two signs alone: score > 0, and cosine >= theta. So the projections of a prefix's vector
are first estimated from those of its titles' vectors, by a linear map that is fitted to the vectors in data/encoded.
Where a sign could change if the estimates were as wrong as they ever were on users that the map had not seen, the exact
texts are encoded, until no sign is open. What is encoded is what decides: first the text that ends in the item, then,
if that leaves it open, the whole history's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from iadsr.artifacts import replacing
from iadsr.errors import UserError
from iadsr.models.denoisers import masking
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.recommender import newest
from iadsr.sequences.windows import Batch
from iadsr.serving.texts import TitleRuns

TINY = 1e-12
Exact = Callable[[Bool[Tensor, "batch time"]], Float[Tensor, "some dim"]]  # vectors of the prefixes at the places


class Screen:
    """A linear map from titles to projections of prefixes, and how wrong signs of it may be.

    `margins[kind][bin]`: by how much a score above 0 and one below it may be wrong, each divided by its lever, where
    both the whole history's long-term projection and the item's short-term one are estimated, or one of them alone. The
    bins are those of the number of titles in the prefix estimated. `gate`: likewise of a cosine.
    """

    def __init__(self, weights: Tensor, margins: Float[Tensor, "kinds bins 2"], gate: Float[Tensor, ""]) -> None:
        self.weights, self.margins, self.gate = weights, margins, gate

    def save(self, path: Path) -> None:
        with replacing(path) as temporary:
            tensors = {"weights": self.weights, "margins": self.margins, "gate": self.gate}
            save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)

    @classmethod
    def load(cls, path: Path) -> Screen:
        """UserError for a damaged file."""
        try:
            return cls(**load_file(path))
        except (OSError, TypeError, safetensors.SafetensorError):
            raise UserError(f"{path}: not a whole screen of a served model; run `dvc repro evaluate` again") from None

    def kept(
        self,
        model: IADSR,
        batch: Batch,
        sizes: Int[Tensor, "batch time"],
        estimated: Float[Tensor, "batch time both"],
        exact: Exact,
        allowance: Allowance | None = None,
    ) -> tuple[Bool[Tensor, "batch time"], Bool[Tensor, " batch"]]:
        """The verdicts that exact vectors would give; `sizes` are the numbers of titles in each prefix.

        With an allowance of texts, estimates decide what is open when it is used up; the second result says whose
        verdicts are sure. The first histories are served first.
        """
        allowance = allowance or Allowance()
        unit = F.normalize(model.prefix_states(batch.items), dim=-1)
        projected, known = estimated.clone(), torch.zeros_like(batch.valid)
        while True:
            score, gate = scores(model, batch, unit, projected, projected)
            bounds = self.bounds(model, batch, unit, sizes, known)
            wanted = self.wanted(model, batch, score, gate, bounds, known)
            sure, wanted = ~wanted.any(1), allowance.granted(wanted)
            if not wanted.any():
                return (gate < model.params.theta)[:, None] | masking.decided(score), sure
            projected[wanted] = projections(model, exact(wanted))
            known |= wanted

    def bounds(
        self, model: IADSR, batch: Batch, unit: Tensor, sizes: Int[Tensor, "batch time"], known: Tensor
    ) -> Float[Tensor, "batch time 2"]:
        """How far a score above 0, and one below, may be from the exact one, where some prefixes are `known`."""
        short, long = levers(unit, newest(unit, batch.last)[:, None], model.params.interests)
        short, whole_known = short[:, 0], known.gather(1, batch.last[:, None])
        own = bins(sizes).clamp(max=self.margins.shape[1] - 1)
        whole = own.gather(1, batch.last[:, None]).expand_as(own)
        both = self.margins[BOTH][own] * torch.hypot(short, torch.full_like(short, long))[..., None]
        long_alone, short_alone = self.margins[LONG][whole] * long, self.margins[SHORT][own] * short[..., None]
        found = torch.where(known[..., None], long_alone, torch.where(whole_known[..., None], short_alone, both))
        return found.masked_fill((known & whole_known)[..., None], 0)

    def wanted(
        self, model: IADSR, batch: Batch, score: Tensor, gate: Tensor, bounds: Tensor, known: Tensor
    ) -> Bool[Tensor, "batch time"]:
        """What to encode next to be sure of every verdict."""
        open_sign = batch.valid & torch.where(score > 0, score <= bounds[..., 0], score > -bounds[..., 1])
        whole, gate = (known & batch.newest).any(1), gate - model.params.theta
        open_gate = ~whole & (gate.abs() < self.gate) & (model.params.theta > -1)  # -1 lets everybody in
        kept_anyway = ((score > bounds[..., 0]) | ~batch.valid).all(1)
        asks = open_sign & ((gate >= 0) & ~open_gate)[:, None]
        asks_whole = (open_gate & ~kept_anyway) | ((asks & known).any(1) & ~whole)
        return (asks & ~known) | (batch.newest & asks_whole[:, None])


@dataclass
class Allowance:
    """How many texts may still be encoded for a request."""

    left: int | float = math.inf

    def granted(self, wanted: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
        """As many of the wanted ones as are left, which are counted off."""
        granted = wanted & (wanted.flatten().cumsum(0) <= self.left).view_as(wanted)
        self.left -= int(granted.sum())
        return granted


BOTH, LONG, SHORT = range(3)


def bins(sizes: Int[Tensor, "*where"]) -> Int[Tensor, "*where"]:
    """0 for one title, 1 for two or three, 2 for four to seven, ..."""
    return (torch.frexp(sizes.clamp(min=1).float()).exponent - 1).long()


def levers(
    unit: Float[Tensor, "batch time width"], whole: Float[Tensor, "batch newest width"], interests: str
) -> tuple[Float[Tensor, "batch newest time"], float]:
    """The lengths of what the error of a short-term and of a long-term projection is multiplied by in a score."""
    cosines = whole @ unit.mT
    if interests == "both":
        return (2 + 2 * cosines).clamp(min=TINY).sqrt(), 1.0  # |h_t + h_p|
    return torch.ones_like(cosines), 0.0 if interests == "short" else 1.0


def scores(
    model: IADSR, batch: Batch, unit: Tensor, long: Tensor, short: Tensor
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, " batch"]]:
    """Scores and the gate's cosines, by the long-term projections of one tensor and the short-term ones of another."""
    width = unit.shape[-1]
    semantic = F.normalize(long[..., :width], dim=-1), F.normalize(short[..., width:], dim=-1)
    cosines = model.judge_from_newest(batch, unit, unit, *semantic)
    return masking.score(cosines, model.params.interests)[:, 0], cosines.gate[:, 0, 0]


def projections(model: IADSR, vectors: Float[Tensor, "*where dim"]) -> Float[Tensor, "*where both"]:
    """Text vectors in their long-term and their short-term role, side by side."""
    rows = vectors.flatten(0, -2)
    return torch.cat([model.project_long(rows), model.project_short(rows)], 1).unflatten(0, vectors.shape[:-1])


def features(titles: Sequence[Tensor], prefixes: TitleRuns, max_length: int) -> Float[Tensor, "rows features"]:
    """What is known of each prefix without its text: the mean, newest and oldest of its titles, and their number."""
    vectors, real = pad_sequence(list(titles), batch_first=True), prefixes.ends > 0
    rows = torch.arange(len(vectors))[:, None].expand_as(real)[real]
    starts, ends = prefixes.starts[real], prefixes.ends[real]
    sums, number = F.pad(vectors.cumsum(1), (0, 0, 1, 0)), (ends - starts)[:, None].to(vectors.dtype)
    mean = (sums[rows, ends] - sums[rows, starts]) / number
    length = mean.norm(dim=1, keepdim=True).clamp(min=1e-6)
    columns = [mean, mean / number, mean / number.sqrt(), mean / length]
    columns += [vectors[rows, ends - 1] / number, vectors[rows, starts] / number, 1 / length, 1 / (length * number)]
    return torch.cat([F.one_hot(ends - starts - 1, max_length).to(vectors.dtype), *columns], 1)


def estimates(weights: Float[Tensor, "features both"], inputs: Float[Tensor, "rows features"]) -> Tensor:
    """The projections of prefixes with these features, [rows, both]; that of a single title is the title's own."""
    both = weights.shape[1]
    max_length = inputs.shape[1] - 6 * both - 2
    return torch.where(inputs[:, :1] == 1, inputs[:, max_length : max_length + both], inputs @ weights)
