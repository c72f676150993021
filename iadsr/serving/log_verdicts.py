"""Verdicts on every row of a log by the detector of a trained model, with reasons; nothing is trained.

Users may have been seen in training or not: a known user is judged by the gap model that has not seen him, a stranger
by all. Rows that cannot be judged say why.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.denoisers.cloze.signals import NAMES, TEXT
from iadsr.sequences.windows import Batch, Feed, Sequences, shortest_first, tail_tiles

FEWEST = 3  # interactions of a user: of two, each is judged by nothing but the other
AT_ONCE = 512  # windows
BLOCK = 1 << 18  # rows that are judged at a time, and those of the last user among them
NEAREST = 2  # titles that a reason names
NOT_JUDGED = "not judged: "
TOO_SHORT, UNKNOWN = f"{NOT_JUDGED}too few interactions of this user", f"{NOT_JUDGED}nothing is known of this item"
BY_TEXT, BY_BEHAVIOUR = "its title is unlike the others", "seldom chosen beside the others"
SIDES = (", above all those before it", ", above all those after it")  # beside which alone a row fits worse


Texts = Shaped[np.ndarray, " rows"]  # of objects: what many rows have in common is there once


class Log(NamedTuple):
    """The rows of a log, each user's in the order of time; others may stand between them."""

    users: Int[np.ndarray, " rows"]  # numbers from 0
    items: Int[np.ndarray, " rows"]  # of the catalogue, from 1, then of `others`; 0: nothing is known of it
    known_as: Int[np.ndarray, " users"]  # the model's number of each user, from 1; 0: a stranger
    others: Float[Tensor, "others width"]  # texts of items beyond the catalogue, as the detector reads them


class RowVerdicts(NamedTuple):
    """What the detector says of each row; NaN where it is not judged."""

    noise: Float[np.ndarray, " rows"]  # the probability
    views: Float[np.ndarray, "rows 2"]  # what the title and what behaviour add to the fit


class Neighbourhood(NamedTuple):
    """What stands beside a row that is dropped."""

    likest: tuple[int, ...]  # the kept items of its window whose titles are most like its own, nearest first
    side: str  # one of SIDES, or ""


class JudgedHistories:
    """The judged rows of some users as sequences, user after user."""

    def __init__(self, log: Log, rows: Int[np.ndarray, " rows"]) -> None:
        """`rows`: all those of these users, user after user."""
        known = rows[log.items[rows] > 0]
        users, counts = np.unique(log.users[known], return_counts=True)
        enough = counts >= FEWEST
        self.rows = known[np.repeat(enough, counts)]
        self.known_as = torch.from_numpy(log.known_as[users[enough]].astype(np.int64))
        offsets = torch.from_numpy(np.append(0, counts[enough].cumsum()))
        self.feed = Feed(Sequences(torch.from_numpy(log.items[self.rows].astype(np.int64)), offsets))

    def batches(self, max_length: int) -> Iterator[Batch]:
        """All windows, each user under the number by which the model knows him."""
        offsets = self.feed.sequences.offsets
        windows = tail_tiles(offsets[:-1], offsets[1:], max_length)
        for numbers in shortest_first(windows, AT_ONCE):
            batch = self.feed.batch(windows[numbers])
            yield Batch(batch.rows, batch.items, batch.targets, self.known_as[batch.users - 1])


def in_blocks(log: Log) -> Iterator[JudgedHistories]:
    """All that is judged, some users at a time: of all rows at once there are a few numbers each, and no more."""
    by_user = np.argsort(log.users, kind="stable").astype(np.int32)
    ends = np.bincount(log.users, minlength=len(log.known_as)).cumsum()
    first = 0
    while first < len(by_user):
        last = int(ends[min(int(np.searchsorted(ends, first + BLOCK)), len(ends) - 1)])
        histories = JudgedHistories(log, by_user[first:last])
        if len(histories.rows):
            yield histories
        first = last
        if len(by_user) > BLOCK:  # else it is a request, which the next one follows
            give_back()


def give_back() -> None:
    """Give memory that is free back to the system: batches of ever other shapes leave holes in glibc's heap."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not every libc has it
        if trim is not None:
            trim(0)


@torch.no_grad()
def judged(model: Cloze, log: Log, max_length: int) -> RowVerdicts:
    """The verdicts on all rows."""
    noise = np.full(len(log.items), np.nan, dtype=np.float32)
    views = np.full((len(log.items), 2), np.nan, dtype=np.float16)
    for histories in in_blocks(log):
        for batch in histories.batches(max_length):
            clean, of_signals = model.examined(batch, log.others)
            where = histories.rows[batch.rows[batch.valid].numpy()]
            noise[where] = 1 - clean[batch.valid].numpy()
            views[where] = np.stack(of_views(of_signals[batch.valid].numpy()), axis=1)
    return RowVerdicts(noise, views)


def ascending(noise: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " judged"]:
    """The probabilities of the rows that are judged."""
    return np.sort(noise[np.isfinite(noise)])


def threshold_for(noise: Float[np.ndarray, " rows"], budget: float) -> float:
    """The probability above which at most this share of the judged rows lies."""
    known = ascending(noise)
    return float(known[max(0, len(known) - 1 - int(budget * len(known)))]) if len(known) else 1.0


def kept(noise: Float[np.ndarray, " rows"], threshold: float) -> Bool[np.ndarray, " rows"]:
    """Which rows are no more likely noise than the threshold, or are not judged."""
    with np.errstate(invalid="ignore"):
        return ~(noise > threshold)


def reasons_of(
    model: Cloze,
    log: Log,
    verdicts: RowVerdicts,
    keep: Bool[np.ndarray, " rows"],
    titles: Sequence[str],
    max_length: int,
    among: Float[np.ndarray, " others"] | None = None,
) -> Texts:
    """Why rows are not kept, or why nothing is known of them; "" where a row is kept. `titles`: of all items.

    `among` are the probabilities beside which a row is said to fit worse than so many; by default those of these rows.
    """
    reasons: Texts = np.full(len(keep), "", dtype=object)
    judged_none, known = np.isnan(verdicts.noise), ascending(verdicts.noise if among is None else among)
    reasons[judged_none & (log.items > 0)] = TOO_SHORT
    reasons[judged_none & (log.items == 0)] = UNKNOWN
    for rows, neighbours in neighbourhoods(model, log, keep, max_length):
        worse = shares_that_fit_better(known, verdicts.noise[rows])
        text, behaviour = verdicts.views[rows].astype(np.float32).T
        for place, (row, near) in enumerate(zip(rows.tolist(), neighbours, strict=True)):
            view = words(float(text[place]), float(behaviour[place]), near.side)
            beside = "; ".join(titles[item - 1] for item in near.likest)
            reason = f"{view}; fits worse than {worse[place]:.0%} of this log"
            reasons[row] = f"{reason}; nearest kept: {beside}" if beside else reason
    return reasons


def of_views(
    parts: Float[np.ndarray, "*rows signals"],
) -> tuple[Float[np.ndarray, "*rows"], Float[np.ndarray, "*rows"]]:
    """What the title and what behaviour add to the fit; below 0 what speaks against a row."""
    of_text = np.isin(NAMES, TEXT)
    wide = parts.astype(np.float32)
    return wide[..., of_text].sum(-1), wide[..., ~of_text].sum(-1)


def words(text: float, behaviour: float, side: str = "") -> str:
    """The views that speak against a row, first the one without which the fit would rise most; `side`: see SIDES.

    >>> words(-0.5, -2.0), words(-2.0, 0.1)
    ('seldom chosen beside the others, and its title is unlike theirs', 'its title is unlike the others')
    """
    if text < behaviour:
        return BY_TEXT if behaviour >= 0 else f"{BY_TEXT}, and it is {BY_BEHAVIOUR}{side}"
    return f"{BY_BEHAVIOUR}{side}" if text >= 0 else f"{BY_BEHAVIOUR}{side}, and its title is unlike theirs"


def shares_that_fit_better(
    known: Float[np.ndarray, " judged"], asked: Float[np.ndarray, " some"]
) -> Float[np.ndarray, " some"]:
    """For each probability that is asked for the share of the judged rows, `ascending`, that are less likely noise."""
    return np.searchsorted(known, asked, "left") / max(1, len(known))


@torch.no_grad()
def neighbourhoods(
    model: Cloze, log: Log, keep: Bool[np.ndarray, " rows"], max_length: int
) -> Iterator[tuple[Int[np.ndarray, " dropped"], list[Neighbourhood]]]:
    """Of each row that is dropped, with the rows' numbers, some at a time."""
    texts = F.normalize(torch.cat([model.detector.texts.float(), log.others]), dim=1)
    for histories in in_blocks(log):
        for batch in histories.batches(max_length):
            rows = np.where(batch.valid.numpy(), histories.rows[batch.rows.clamp(min=0).numpy()], 0)
            kept = torch.from_numpy(keep[rows]) & batch.valid
            dropped = ~kept & batch.valid
            if not dropped.any():
                continue
            some = dropped.any(1)
            likest_kept = likest(batch.items[some], dropped[some], kept[some], texts)
            sides = sides_against(model, batch, dropped, log.others)
            yield rows[dropped.numpy()], list(map(Neighbourhood, likest_kept, sides))


def sides_against(
    model: Cloze, batch: Batch, dropped: Bool[Tensor, "batch time"], others: Float[Tensor, "others width"]
) -> list[str]:
    """For each dropped place, in order, the side beside which alone behaviour speaks more against its item.

    There is one such place at least. "" where both say the same, or nothing else stands on one of them.
    """
    windows, places = dropped.nonzero(as_tuple=True)
    time, fits = torch.arange(batch.items.shape[1]), list[Tensor]()
    for some in torch.arange(len(windows)).split(AT_ONCE):
        items, place = batch.items[windows[some]], places[some, None]
        before = items * (time <= place)
        after = items.gather(1, (place + time).clamp(max=len(time) - 1)) * (place + time < len(time))
        sides = []
        for side, own in ((before, place), (after, torch.zeros_like(place))):
            used = side[:, : int((side > 0).sum(1).max())]
            nothing, asked = torch.zeros_like(used), torch.arange(used.shape[1]) == own
            alone_on = Batch(nothing - 1, used, nothing, batch.users[windows[some]])
            parts = model.detector.judge(alone_on, others, asked).parts
            fit = of_views(parts.numpy())[1]
            alone = ((used > 0) & (used != used.gather(1, own))).sum(1) == 0
            sides.append(torch.from_numpy(fit).gather(1, own)[:, 0].masked_fill(alone, float("nan")))
        fits.append(torch.stack(sides, 1))
    found = torch.cat(fits).tolist()
    return [SIDES[0] if first < second else SIDES[1] if second < first else "" for first, second in found]


def likest(
    items: Int[Tensor, "batch time"],
    dropped: Bool[Tensor, "batch time"],
    kept: Bool[Tensor, "batch time"],
    texts: Tensor,
) -> list[tuple[int, ...]]:
    """Of each dropped place, in order, the kept items of its window, those of like titles first."""
    units = texts[items]
    cosines = (units @ units.mT).masked_fill(~kept[:, None, :], float("-inf"))
    values, places = cosines.topk(min(NEAREST, items.shape[1]), dim=2)
    named = items[torch.arange(len(items))[:, None, None], places].where(values.isfinite(), 0)
    return [tuple(dict.fromkeys(item for item in each if item)) for each in named[dropped].tolist()]
