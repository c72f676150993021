"""Verdicts of IADSR without encoding the text of every prefix.

A verdict depends on texts by two signs alone: score > 0, and cosine >= theta. So the projections of a prefix's vector
are first estimated from those of its titles' vectors, by a linear map that is fitted to the vectors in data/encoded.
Where a sign could change if the estimates were as wrong as they ever were on users that the map had not seen, the exact
texts are encoded, until no sign is open. What is encoded is what decides: first the text that ends in the item, then,
if that leaves it open, the whole history's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from iadsr.artifacts import replacing
from iadsr.errors import UserError
from iadsr.models.denoisers import masking
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.sequences.windows import Batch
from iadsr.serving.texts import TitleRuns

Exact = Callable[[Bool[Tensor, "batch time"]], Float[Tensor, "some dim"]]  # vectors of the prefixes at the places


class Screen:
    """A linear map from titles to projections of prefixes, and how wrong signs of it may be.

    `margins[long][short]`: how far a score above 0 and one below it may be from the exact one, where the whole
    history's long-term and the item's short-term projection are estimated (1) or exact (0). `gate`: likewise a cosine.
    """

    def __init__(self, weights: Tensor, margins: Float[Tensor, "2 2 2"], gate: Float[Tensor, ""]) -> None:
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
        self, model: IADSR, batch: Batch, estimated: Float[Tensor, "batch time both"], exact: Exact
    ) -> Bool[Tensor, "batch time"]:
        """The verdicts that exact vectors would give."""
        unit = F.normalize(model.prefix_states(batch.items), dim=-1)
        projected, known = estimated.clone(), torch.zeros_like(batch.valid)
        while True:
            kept, wanted = self.judged(model, batch, unit, projected, known)
            if not wanted.any():
                return kept
            projected[wanted] = projections(model, exact(wanted))
            known |= wanted

    def judged(
        self, model: IADSR, batch: Batch, unit: Tensor, projected: Tensor, known: Bool[Tensor, "batch time"]
    ) -> tuple[Bool[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
        """The verdicts by these projections, of which some are `known`, and what to encode to be sure of them."""
        score, gate = scores(model, batch, unit, projected, projected)
        whole = (known & batch.newest).any(1)  # the whole history's text is known
        margins = self.margins[(~whole).long()[:, None], (~known).long()]
        open_sign = batch.valid & torch.where(score > 0, score <= margins[..., 0], score > -margins[..., 1])
        gate = gate - model.params.theta
        open_gate = ~whole & (gate.abs() < self.gate) & (model.params.theta > -1)  # -1 lets everybody in
        kept_anyway = ((score > margins[..., 0]) | ~batch.valid).all(1)
        ask_whole = open_gate & ~kept_anyway
        asks = (open_sign & ((gate >= 0) & ~open_gate)[:, None]) | (batch.newest & ask_whole[:, None])
        wanted = (asks & ~known) | (batch.newest & ((asks & known).any(1) & ~whole)[:, None])
        return (gate < 0)[:, None] | masking.decided(score), wanted


def scores(
    model: IADSR, batch: Batch, unit: Tensor, long: Tensor, short: Tensor
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, " batch"]]:
    """Scores and the gate's cosines, by the long-term projections of one tensor and the short-term ones of another."""
    width = unit.shape[-1]
    semantic = F.normalize(long[..., :width], dim=-1), F.normalize(short[..., width:], dim=-1)
    cosines = model.judge_from_newest(batch, unit, *semantic)
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
