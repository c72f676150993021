"""What HSD and SSDRec share: two signals judge each item of a history, and what both call noise is left out.

The sequence's signal: a bidirectional LSTM rebuilds the history, and how the rebuilt items differ from the items
decides. The item's: its embedding beside the user's. Each is a pair of numbers in (0, 1), "keep" and "noise"; a hard
Gumbel-softmax decides, and an item goes where both say noise. What is kept moves together, and a backbone reads it.
Since the two numbers differ by less than 1, an item is dropped with a probability between 7% and 53%, 25% where nothing
is known.

The signals look at a history from both sides, so every prefix is an example of its own (sequences/prefix_examples.py).
Decisions are sampled in training and deterministic (the larger number) wherever a model is used.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.bilstm import BiLSTM, Ends
from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import Jagged, LengthGroup, gather_rows, length_groups, padded
from iadsr.layers.linear import Linear
from iadsr.models.denoisers import masking
from iadsr.models.recommender import Recommender, Traits, Verdicts, newest
from iadsr.params import Group
from iadsr.sequences.prefix_examples import Prefixes, prefixes_with_target
from iadsr.sequences.windows import Batch


class TwoSignalParams(Group):
    """What the methods of this kind have in common in params.yaml."""

    embedding_dropout: float = Field(ge=0, lt=1)
    signal_dropout: float = Field(ge=0, lt=1)
    temperature: float = Field(gt=0)  # of the Gumbel-softmax, at first
    cooling: float = Field(ge=0)  # every COOLED_EVERY batches the temperature falls by exp(-cooling * batches)
    left_out: float = Field(ge=0, lt=1)  # examples that rebuild worst, at first; later, losses of the user
    curriculum: int = Field(ge=1)  # epochs until no example is left out
    quirks: Sequence[str]  # of the released code


COOLED_EVERY, COLDEST = 40, 1e-3


class Signals(NamedTuple):
    """How much each signal prefers "noise" to "keep", in (-1, 1), and the error of the rebuilt history."""

    sequence: Float[Tensor, " real"]
    item: Float[Tensor, " real"]
    rebuilding: Float[Tensor, " batch"]


class View(NamedTuple):
    """Histories to judge, whom the item's signal asks, and what that signal reads (None: what all else reads)."""

    histories: Batch
    query: Float[Tensor, "batch dim"]
    seen: Float[Tensor, "real dim"] | None = None


class TwoSignals(Recommender, ABC):
    """Any backbone over histories without what both signals call noise."""

    traits = Traits(largest_gradient=5.0)

    @abstractmethod
    def view_in_training(self, batch: Batch, examples: Prefixes) -> View:
        """What training judges in place of the prefixes of a batch."""

    @abstractmethod
    def view_in_use(self, batch: Batch, real: Jagged) -> View:
        """The histories of a batch as they are judged where the model is used."""

    def __init__(
        self,
        item_count: int,
        user_count: int,
        dim: int,
        max_length: int,
        backbone: Any,
        params: TwoSignalParams,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(item_count, dim, backbone)
        self.params = params
        self.users = nn.Embedding(user_count + 1, dim, padding_idx=0)
        self.rebuild = BiLSTM(dim)
        self.compare = PositionMixer(max_length)
        self.sequence_signal = Linear(dim, 2, bias=False)
        self.norm = BatchNorm(max_length) if "batch_norm" in params.quirks else nn.LayerNorm(dim)
        self.of_item, self.of_query = Linear(dim, dim, bias=False), Linear(dim, dim, bias=False)
        self.item_signal = Linear(dim, 2, bias=False)
        self.embedding_dropout, self.signal_dropout = Dropout(params.embedding_dropout), Dropout(params.signal_dropout)
        nn.init.normal_(self.users.weight, std=0.02)
        with torch.no_grad():
            self.users.weight[0].zero_()
        self.generator = generator or torch.Generator()
        self.epoch = self.batches = 0
        self.temperature = params.temperature
        self.dropped: Tensor | int = 0
        self.judged: Tensor | int = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and rebuilding error of the examples that rebuild best, and the user's loss."""
        examples = prefixes_with_target(batch, self.settings.prefixes_drawn)
        if not len(examples.targets):
            return dict.fromkeys(("ce", "rebuild", "user"), self.items(examples.targets).sum())
        targets, (histories, query, seen) = examples.targets, self.view_in_training(batch, examples)
        if "target_query" in self.params.quirks:
            query = self.items(targets)
        real = Jagged(histories.valid)
        embedded = self.items(real.rows(histories.items))
        signals = self.signals(embedded, real, query, seen)
        keep = 1 - self.sampled(signals.sequence, real) * self.sampled(signals.item, real)
        self.judged += len(keep)
        self.dropped += (keep < 0.5).sum()
        states = self.cleaned_states(embedded, keep, real)
        chosen = self.best_rebuilt(signals.rebuilding)
        self.cool()
        return {
            "ce": self.cross_entropy(states[chosen][:, None], targets[chosen][:, None]),
            "rebuild": signals.rebuilding[chosen].mean(),
            "user": self.user_loss(embedded, real, histories.users),
        }

    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The state after each history without what the deterministic rule drops."""
        real = Jagged(batch.valid)
        embedded = self.items(real.rows(batch.items))
        keep = self.judged_by_rule(self.signals_in_use(embedded, real, batch))
        return self.head(self.cleaned_states(embedded, keep.to(embedded.dtype), real))

    def judge(self, batch: Batch) -> Verdicts:
        """The score is how much the milder of the two signals prefers "keep"; below 0 an item is dropped."""
        real = Jagged(batch.valid)
        signals = self.signals_in_use(self.items(real.rows(batch.items)), real, batch)
        score = -torch.minimum(signals.sequence, signals.item)
        probability = 1 - torch.sigmoid(signals.sequence) * torch.sigmoid(signals.item)
        columns = (real.padded(rows) for rows in (score, probability, self.judged_by_rule(signals)))
        return Verdicts.without_cosines(*columns)

    @staticmethod
    def judged_by_rule(signals: Signals) -> Bool[Tensor, " real"]:
        """Which items are kept: those that the two signals do not both call noise."""
        return torch.minimum(signals.sequence, signals.item) <= 0

    # --- signals ---

    def signals_in_use(self, embedded: Float[Tensor, "real dim"], real: Jagged, batch: Batch) -> Signals:
        """Both signals where a model is used."""
        view = self.view_in_use(batch, real)
        return self.signals(embedded, real, view.query, view.seen)

    def signals(
        self,
        embedded: Float[Tensor, "real dim"],
        real: Jagged,
        query: Float[Tensor, "batch dim"],
        seen: Float[Tensor, "real dim"] | None = None,
    ) -> Signals:
        """What both signals say of each item of each history, from the history alone.

        The item's signal reads `seen`, or `embedded` if that is None.
        """
        sequence, rebuilding = self.by_sequence(embedded, real)
        return Signals(sequence, self.by_item(embedded if seen is None else seen, real, query), rebuilding)

    def by_sequence(
        self, embedded: Float[Tensor, "real dim"], real: Jagged
    ) -> tuple[Float[Tensor, " real"], Float[Tensor, " batch"]]:
        """The LSTM reads the history, then what it has read; a convolution compares the result with the items."""
        ends = Ends(real.lengths)
        once = sum(self.rebuild(self.embedding_dropout(embedded), ends))
        rebuilt = sum(self.rebuild(once, ends))
        error = real.sums((rebuilt - embedded).square().sum(1)) / real.lengths
        numbers, groups = length_groups(real.valid)
        order = torch.searchsorted(real.numbers, numbers)
        compared = self.compare(gather_rows(rebuilt, order), gather_rows(embedded, order), groups)
        judged = preference(self.sequence_signal, F.relu(self.signal_dropout(compared)))
        return torch.empty_like(judged).index_copy(0, order, judged), error

    def by_item(
        self, embedded: Float[Tensor, "real dim"], real: Jagged, query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, " real"]:
        """sigmoid(W_e tanh(W_u x_t + W_v q))."""
        normed = self.signal_dropout(self.normed(embedded, real))
        return preference(self.item_signal, torch.tanh(self.of_item(normed) + real.spread(self.of_query(query))))

    def normed(self, embedded: Float[Tensor, "real dim"], real: Jagged) -> Float[Tensor, "real dim"]:
        """The items' embeddings, each normalised by itself unless a quirk asks for the batch's statistics."""
        if isinstance(self.norm, BatchNorm):
            return gather_rows(self.norm(padded(embedded, real.valid)).flatten(0, 1), real.numbers)
        return self.norm(embedded)

    # --- decisions ---

    def sampled(self, preference: Float[Tensor, " real"], real: Jagged) -> Float[Tensor, " real"]:
        """1 where a hard two-class Gumbel-softmax says noise, with a straight-through gradient.

        Random numbers are drawn for padding too, so that a longer history leaves those of the others as they are.
        """
        noise = real.rows(masking.logistic(real.valid.shape, self.generator, preference.device))
        return masking.straight_through(masking.soft_mask(preference, noise, self.temperature))

    def cleaned_states(
        self, embedded: Float[Tensor, "real dim"], keep: Float[Tensor, " real"], real: Jagged
    ) -> Float[Tensor, "batch hidden"]:
        """The backbone's state after the kept items, moved together; after one zero vector where none is kept.

        What is dropped never enters the backbone, so the cross-entropy teaches a signal only at items that it would
        keep while the other one objects.
        """
        kept = keep > 0.5
        lengths = real.sums(kept.long())
        kept = kept.index_fill(0, real.first[lengths == 0], True)  # its flag is 0, and so its vector
        lengths = lengths.clamp(min=1)
        places, last = torch.arange(int(lengths.max()), device=kept.device), lengths - 1
        inside = places < lengths[:, None]
        masked = gather_rows(embedded * keep[:, None], kept.nonzero().flatten())
        return newest(self.backbone(padded(masked, inside), inside, places == last[:, None]), last)

    # --- losses ---

    def left_out(self) -> float:
        """The share of examples that are left out: from `left_out` to 0 in `curriculum` epochs."""
        steps = max(1, self.params.curriculum - 1)
        return self.params.left_out * max(0.0, 1 - self.epoch / steps)

    def best_rebuilt(self, error: Float[Tensor, " batch"]) -> Int[Tensor, " chosen"]:
        """The examples with the least error, fewer in early epochs."""
        count = max(1, round((1 - self.left_out()) * len(error)))
        return torch.argsort(error.detach(), stable=True)[:count].sort().values

    def user_loss(
        self, embedded: Float[Tensor, "real dim"], real: Jagged, users: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Mean of -log sigmoid(u.e_i - u.e_j) over items i, j a random item; each history's largest count as 0."""
        negatives = torch.randint(1, len(self.items.weight), users.shape, generator=self.generator)
        vectors = self.users(users)
        others = (self.items(negatives.to(users.device)) * vectors).sum(1)
        losses = F.softplus(real.spread(others) - (embedded * real.spread(vectors)).sum(1))
        counted = real.rows(~self.largest(real.padded(losses.detach()), real.valid))
        return (losses * counted).mean()

    def largest(self, losses: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]) -> Tensor:
        """Which of a history's losses are left out: a share, rounded down, that grows as that of the examples falls."""
        lengths = valid.sum(1, keepdim=True)
        count = ((self.params.left_out - self.left_out()) * lengths + 1e-6).floor()
        if "short_user_loss" in self.params.quirks:
            count = torch.where(count < 1, lengths, count)  # a slice from -0 on is the whole
        order = torch.argsort(losses.masked_fill(~valid, float("-inf")), dim=1, descending=True, stable=True)
        places = torch.arange(losses.shape[1], device=losses.device).expand_as(losses)
        return torch.empty_like(places).scatter(1, order, places) < count

    # --- epochs ---

    def cool(self) -> None:
        """Lower the temperature as the released code does: more each time."""
        self.batches += 1
        if self.batches % COOLED_EVERY == 0:
            self.temperature = max(COLDEST, self.temperature * math.exp(-self.params.cooling * self.batches))

    def end_epoch(self) -> dict[str, float]:
        """Go on in the curriculum; report the sampled drop rate."""
        figures = {"drop_rate": int(self.dropped) / max(1, int(self.judged))}
        self.dropped = self.judged = 0
        self.epoch += 1
        return figures

    def training_state(self) -> dict[str, Tensor]:
        counters = torch.tensor([self.epoch, self.batches, self.temperature], dtype=torch.float64)
        return {"counters": counters, "generator": self.generator.get_state()}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.epoch, self.batches = (int(number) for number in state["counters"][:2])
        self.temperature = state["counters"][2].item()
        self.generator.set_state(state["generator"])


def preference(layer: nn.Module, states: Float[Tensor, "real dim"]) -> Float[Tensor, " real"]:
    """How much larger the second of sigmoid(layer(state)), "noise", is than the first."""
    keep, noise = torch.sigmoid(layer(states)).unbind(1)
    return noise - keep


class PositionMixer(nn.Module):
    """A convolution whose channels are the positions and whose kernel is (1, 2): over rebuilt and given items."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        bound = (2 * max_length) ** -0.5  # as nn.Conv2d draws
        self.weight = nn.Parameter(torch.empty(2, max_length, max_length).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(max_length).uniform_(-bound, bound))

    def forward(
        self, rebuilt: Float[Tensor, "real dim"], given: Float[Tensor, "real dim"], groups: list[LengthGroup]
    ) -> Float[Tensor, "real dim"]:
        """bias[p] + the sum over positions t of weight[0, p, t] rebuilt[t] + weight[1, p, t] given[t], at each real p.

        The rows stand in the order of `groups`, so that short histories are not mixed as long as the longest.
        """
        both = torch.cat([rebuilt, given], dim=1)
        return torch.cat([group.unpadded(self.mixed(both, group)) for group in groups])

    def mixed(self, both: Float[Tensor, "real both"], group: LengthGroup) -> Float[Tensor, "windows longest dim"]:
        padded_both = group.padded(both[group.part]) * group.valid[..., None]
        time = padded_both.shape[1]
        weight, (rebuilt, given) = self.weight[:, :time, :time], padded_both.chunk(2, dim=2)
        return weight[0] @ rebuilt + weight[1] @ given + self.bias[:time, None]


class BatchNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d whose channels are the positions, for batches of shorter histories than the longest."""

    def forward(self, inputs: Float[Tensor, "batch time dim"]) -> Float[Tensor, "batch time dim"]:
        time = inputs.shape[1]
        if self.training:
            variance, mean = torch.var_mean(inputs.detach(), (0, 2))
            with torch.no_grad():
                for running, value in ((self.running_mean, mean), (self.running_var, variance)):
                    running[:time].lerp_(value, self.momentum)  # type: ignore[index, arg-type]
        return F.batch_norm(
            inputs,
            None if self.training else self.running_mean[:time],  # type: ignore[index]
            None if self.training else self.running_var[:time],  # type: ignore[index]
            self.weight[:time],
            self.bias[:time],
            self.training,
            0.0,
            self.eps,
        )
