"""SSDRec's second stage: two items of the catalogue are put around the likeliest noise of a history, in training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.bilstm import BiLSTM, Ends
from iadsr.layers.hard_gumbel import Choice, hard_choice
from iadsr.layers.jagged import Jagged, gather_rows, scatter_rows
from iadsr.models.denoisers import masking
from iadsr.sequences.prefix_examples import Prefixes
from iadsr.sequences.windows import Batch

ROUNDING = 1e-5  # of a noise score


class Augmented(NamedTuple):
    """The histories, the graphs' embeddings of their items, and where something was inserted."""

    histories: Batch
    embedded: Float[Tensor, "real dim"]
    changed: Bool[Tensor, " batch"]


class Picked(NamedTuple):
    """A position of each history, and 1 with the gradient of the soft choice."""

    place: Int[Tensor, " batch"]
    flag: Float[Tensor, " batch"]


class Spots(NamedTuple):
    """Where in each history items are inserted, if there is room for them."""

    real: Jagged
    place: Int[Tensor, " batch"]
    room: Bool[Tensor, " batch"]


class Layout(NamedTuple):
    """What stands where in each history: numbers of a pool, of which the first `lengths` count."""

    source: Int[Tensor, "batch places"]
    lengths: Int[Tensor, " batch"]

    @property
    def inside(self) -> Bool[Tensor, "batch places"]:
        return torch.arange(self.source.shape[1], device=self.source.device) < self.lengths[:, None]


class Augmenter(nn.Module):
    """Picks a position, chooses an item for each side of it, and may pick one of the three for removal."""

    def __init__(self, dim: int, max_length: int, quirks: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.reader = BiLSTM(dim)
        self.ends = nn.Parameter(torch.empty(2, dim))  # before the first item and after the last
        nn.init.xavier_normal_(self.ends)
        self.max_length, self.quirks = max_length, quirks

    def forward(
        self,
        prefixes: Prefixes,
        items: Float[Tensor, "items dim"],
        users: Float[Tensor, "windows dim"],
        temperature: float,
        generator: torch.Generator,
    ) -> Augmented:
        """`items` are the graphs' embeddings of the catalogue, `users` those of each window's user.

        A window's prefixes share the random numbers of the catalogue.
        """
        histories, real = prefixes.batch, Jagged(prefixes.batch.valid)
        embedded = F.embedding(real.rows(histories.items), items)
        states = embedded + real.spread(users[prefixes.window] / real.lengths[:, None])
        beside = self.around(states, real)
        picked = self.picked(noise_score(states, *beside, real), real.valid, temperature, generator)
        room = (real.lengths <= self.max_length - 2) & (picked.place < real.lengths)
        at = Spots(real, picked.place, room)
        asked = prefixes.window, len(users)
        sides = [chosen(states_beside, at, items, *asked, temperature, generator) for states_beside in beside]
        layout = self.layout(at, states, sides, generator)
        flagged = [side.rows * picked.flag[:, None] for side in sides]
        return Augmented(laid_out(histories, sides, layout), gathered(embedded, real, flagged, layout), room)

    def layout(
        self, at: Spots, states: Float[Tensor, "real dim"], sides: list[Choice], generator: torch.Generator
    ) -> Layout:
        """The layout with both items, unless one of the three goes again; by a quirk no longer than the history was."""
        whole = inserted(at.real.lengths, at.place, at.room, at.real.valid.shape[1])
        found = self.second_look(whole, at, states, sides, generator)
        if "cut_tails" in self.quirks:
            found = Layout(found.source, torch.minimum(found.lengths, at.real.lengths))
        return Layout(found.source[:, : int(found.lengths.max())], found.lengths)

    def around(
        self, states: Float[Tensor, "real dim"], real: Jagged
    ) -> tuple[Float[Tensor, "real dim"], Float[Tensor, "real dim"]]:
        """An LSTM's states before each position, read from the left, and after it, read from the right.

        Each history stands between a start and an end.
        """
        first = 2 * torch.arange(len(real.lengths), device=states.device) + real.first
        own = torch.arange(len(real), device=states.device) + 2 * real.owner + 1
        framed = scatter_rows(states, own, len(real) + 2 * len(first))
        for end, places in zip(self.ends, (first, first + real.lengths + 1), strict=True):
            framed = framed.index_copy(0, places, end.expand(len(first), -1))
        left, right = self.reader(framed, Ends(real.lengths + 2))
        return gather_rows(left, own - 1), gather_rows(right, own + 1)

    def picked(
        self,
        score: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"],
        temperature: float,
        generator: torch.Generator,
    ) -> Picked:
        """A position of each history, picked by a hard Gumbel-softmax of the noise scores."""
        score, valid = self.offered(score, valid)
        noisy = score + masking.gumbel(score.shape, generator, score.device)
        noisy = noisy.masked_fill(~valid, float("-inf"))
        place = noisy.argmax(1)
        soft = torch.softmax(noisy / temperature, dim=1).gather(1, place[:, None])[:, 0]
        return Picked(place, 1 + (soft - soft.detach()))

    def offered(
        self, score: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "batch places"], Bool[Tensor, "batch places"]]:
        """The positions to pick from: the real ones; by a quirk padding too, with the largest score."""
        if "void_positions" not in self.quirks:
            return score, valid
        more = max(0, self.max_length - valid.shape[1])
        score = F.pad(score.masked_fill(~valid, 1.0), (0, more), value=1.0)
        return score, torch.ones_like(score, dtype=torch.bool)

    @torch.no_grad()
    def second_look(
        self,
        layout: Layout,
        at: Spots,
        states: Float[Tensor, "real dim"],
        sides: list[Choice],
        generator: torch.Generator,
    ) -> Layout:
        """The layout without the noise that a second pick finds, where it is one of the three."""
        seen = gathered(states, at.real, [side.rows for side in sides], layout)
        again = self.picked_again(seen, Jagged(layout.inside), generator)
        return without(layout, again, at.room & (again >= at.place) & (again <= at.place + 2))

    def picked_again(
        self, states: Float[Tensor, "real dim"], real: Jagged, generator: torch.Generator
    ) -> Int[Tensor, " batch"]:
        """The place that `picked` would choose. The LSTM reads only histories for which the rest leaves it open.

        A noise score is at most 1, and at least 1 minus the fit of the items alone.
        """
        lowest, offered = self.offered(1 - item_fit(states, real), real.valid)
        noise = masking.gumbel(lowest.shape, generator, lowest.device).masked_fill(~offered, float("-inf"))
        least, place = (lowest + noise).max(1)
        others = 1 + noise.scatter(1, place[:, None], float("-inf")).amax(1)
        unsure = least <= others + ROUNDING
        if unsure.any():
            some, open_ones = states[real.spread(unsure)], Jagged(real.valid[unsure])
            score = noise_score(some, *self.around(some, open_ones), open_ones)
            score, _ = self.offered(score, open_ones.valid)
            place[unsure] = (score + noise[unsure]).argmax(1)
        return place


def noise_score(
    states: Float[Tensor, "real dim"], before: Float[Tensor, "real dim"], after: Float[Tensor, "real dim"], real: Jagged
) -> Float[Tensor, "batch time"]:
    """1 - p_sequence p_item: how little a position fits what is around it, and the other items."""
    fits = real.padded((states * before * after).sum(1), float("-inf"))
    return 1 - torch.softmax(fits, dim=1) * item_fit(states, real)


def item_fit(states: Float[Tensor, "real dim"], real: Jagged) -> Float[Tensor, "batch time"]:
    """p_item: how well a position fits the other items, summing to 1 over a history."""
    clamped = states.clamp(-1, 1)
    others = real.spread(real.sums(clamped)) - clamped
    return torch.softmax(real.padded((clamped * others).sum(1), float("-inf")), dim=1)


def chosen(
    states: Float[Tensor, "real dim"],
    at: Spots,
    items: Float[Tensor, "items dim"],
    window: Int[Tensor, " batch"],
    windows: int,
    temperature: float,
    generator: torch.Generator,
) -> Choice:
    """An item of the catalogue for one side of each history's place, zeros where there is no room.

    A window's prefixes share its random numbers.
    """
    rooms = at.room.nonzero().flatten()
    own = gather_rows(states, at.real.first[rooms] + at.place[rooms])
    noise = masking.gumbel(torch.Size([windows, len(items) - 1]), generator, items.device)
    choice = hard_choice(own, items[1:], noise, window[rooms], temperature)
    filled = scatter_rows(choice.rows, rooms, len(at.room))
    return Choice(filled, choice.numbers.new_zeros(len(at.room)).index_copy(0, rooms, choice.numbers + 1))


def inserted(
    lengths: Int[Tensor, " batch"], place: Int[Tensor, " batch"], room: Bool[Tensor, " batch"], time: int
) -> Layout:
    """Pool numbers below `time` are the history's own, `time` and `time + 1` the items left and right of `place`."""
    target = torch.arange(time + 2, device=place.device)
    shift = target - place[:, None]
    source = torch.where(shift > 2, target - 2, torch.where(shift < 0, target, place[:, None]))
    source = torch.where(shift == 0, time, torch.where(shift == 2, time + 1, source))
    return Layout(torch.where(room[:, None], source, target), lengths + 2 * room)


def without(layout: Layout, place: Int[Tensor, " batch"], gone: Bool[Tensor, " batch"]) -> Layout:
    """The layout without `place` in the histories where it is gone."""
    target = torch.arange(layout.source.shape[1], device=place.device)
    moved = target + (gone[:, None] & (target >= place[:, None]))
    return Layout(layout.source.gather(1, moved.clamp(max=len(target) - 1)), layout.lengths - gone.long())


def gathered(
    own: Float[Tensor, "real dim"], real: Jagged, sides: list[Tensor], layout: Layout
) -> Float[Tensor, "placed dim"]:
    """The pool's vectors where the layout has them, history by history."""
    batch, time = real.valid.shape
    history = torch.arange(batch, device=own.device)[:, None]
    inserted_ones = len(real) + (layout.source - time) * batch + history
    numbers = torch.where(layout.source < time, real.first[:, None] + layout.source, inserted_ones)
    return gather_rows(torch.cat([own, *sides]), numbers[layout.inside])


def laid_out(histories: Batch, sides: list[Choice], layout: Layout) -> Batch:
    """The pool's items as a batch; an inserted item has no row, and no item has a target."""
    items = torch.cat([histories.items, torch.stack([side.numbers for side in sides], dim=1)], dim=1)
    rows = F.pad(histories.rows, (0, 2), value=-1)
    return Batch(
        torch.where(layout.inside, rows.gather(1, layout.source), -1),
        torch.where(layout.inside, items.gather(1, layout.source), 0),
        torch.zeros_like(layout.source),
        histories.users,
    )
