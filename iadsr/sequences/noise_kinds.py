"""Kinds of noise: items to be put into histories, as if a user had had them by accident.

Histories are flat arrays of training interactions, and no draw looks at what is held out. All orders of a history's
items and plants (or runs of them) are equally likely, and no item is planted twice in a history while others are left:
so neither its place nor a repetition gives a plant away. Only `duplicates` must stand after what they repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from iadsr.errors import UserError

FACTORS, BEST = 64, 100  # of the recommender behind `boundary`: its size, and its best items, from which one is drawn
SCORED, PRECISION = 1024, 1e-6  # users at once; scores that differ by less are equal
TRIES = 30  # at items that are not planted in the history yet; then as many at any; then any item of the catalogue
SHORTEST_RUN, LONGEST_RUN = 2, 5  # of a burst


class TrainingHistories(NamedTuple):
    """User u's training items are items[offsets[u]:offsets[u + 1]], oldest first; the catalogue is 1 to `last_item`."""

    items: Int[np.ndarray, " rows"]
    offsets: Int[np.ndarray, " bounds"]
    last_item: int

    @property
    def owner(self) -> Int[np.ndarray, " rows"]:
        """The user of each row."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def rows_of(self, users: Int[np.ndarray, " some"], generator: np.random.Generator) -> Int[np.ndarray, " some"]:
        """A row of each of these users, uniformly drawn; each has one."""
        return self.offsets[users] + generator.integers(np.diff(self.offsets)[users])


class Plants(NamedTuple):
    """Items for histories, sorted by user and place; `places` counts the user's own items before each."""

    users: Int[np.ndarray, " plants"]
    places: Int[np.ndarray, " plants"]
    items: Int[np.ndarray, " plants"]


Runs = list[Int[np.ndarray, " _"]]
# the plants' numbers -> an item for each; 0 where none was found
Draw = Callable[[Int[np.ndarray, " some"]], Int[np.ndarray, " some"]]


def drawn_users(histories: TrainingHistories, count: int, generator: np.random.Generator) -> Int[np.ndarray, " plants"]:
    """The users of so many plants, sorted: spread evenly at random over the gaps before, between and after all items.

    Evenly, so that the lengths of histories tell as little as can be.
    """
    first = histories.offsets[:-1] + np.arange(len(histories.offsets) - 1)  # gap of each user's
    gaps = histories.offsets[-1] + len(first)
    drawn = (np.arange(count) * gaps + generator.integers(gaps, size=count)) // max(count, 1)
    return np.searchsorted(first, drawn, side="right") - 1


def drawn_places(
    histories: TrainingHistories, users: Int[np.ndarray, " plants"], generator: np.random.Generator
) -> Int[np.ndarray, " plants"]:
    """The places of plants of these users, sorted; all orders of a history's items and plants are equally likely."""
    plants = np.bincount(users, minlength=len(histories.offsets) - 1)
    lengths = np.diff(histories.offsets) + plants
    owner = np.repeat(np.arange(len(lengths)), lengths)
    shuffled = np.lexsort((generator.random(len(owner)), owner))
    rank = np.arange(len(owner)) - np.repeat(lengths.cumsum() - lengths, lengths)
    chosen = np.sort(shuffled[rank < plants[owner]])  # among all items and plants, so n plants stand before the n-th
    return chosen - np.arange(len(users)) - histories.offsets[users]


def foreign(
    kind: str,
    histories: TrainingHistories,
    count: int,
    categories: Int[np.ndarray, " catalogue"],
    generator: np.random.Generator,
) -> Plants:
    """So many plants of a kind that brings items of its own: uniform, popularity, near_miss or boundary.

    `categories` has a number from 0 for each item, item 0 being padding, and -1 for none.
    """
    users = drawn_users(histories, count, generator)
    if kind == "near_miss":
        found = near_miss(histories, users, categories, generator)
    else:
        found = {"uniform": uniform, "popularity": popularity, "boundary": boundary}[kind](histories, users, generator)
    return Plants(users, drawn_places(histories, users, generator), found)


def uniform(
    histories: TrainingHistories, users: Int[np.ndarray, " plants"], generator: np.random.Generator
) -> Int[np.ndarray, " plants"]:
    """Any item that the user has not met."""
    return _foreign(histories, users, _any_item(histories, generator), generator)


def popularity(
    histories: TrainingHistories, users: Int[np.ndarray, " plants"], generator: np.random.Generator
) -> Int[np.ndarray, " plants"]:
    """An item that the user has not met, in proportion to its training interactions."""

    def draw(plants: np.ndarray) -> np.ndarray:
        return histories.items[generator.integers(len(histories.items), size=len(plants))]

    return _foreign(histories, users, draw, generator)


def near_miss(
    histories: TrainingHistories,
    users: Int[np.ndarray, " plants"],
    categories: Int[np.ndarray, " catalogue"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " plants"]:
    """Like a real item drawn for each: of a category that several of the user's share, if that one's is; else of a new.

    So a shared category gives nothing away. `categories` has a number from 0 for each item, item 0 being padding, and
    -1 for none. UserError where no item has any.
    """
    owner, own, width = histories.owner, categories[histories.items], int(categories.max()) + 1
    if own.max() < 0:
        raise UserError(
            "noise.kind: near_miss needs categories of items, and this data set has none; add them to the item table, "
            "or choose another kind"
        )
    keys = np.where(own >= 0, owner * width + own, -1)
    met, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sharing = (own >= 0) & (counts[which] > 1)
    several = TrainingHistories(
        own[sharing], np.append(0, sharing.cumsum())[histories.offsets], width - 1
    )  # of categories
    alike = sharing[histories.rows_of(users, generator)]
    ordered = np.argsort(categories, kind="stable")
    bounds = np.searchsorted(categories[ordered], np.arange(width + 1))

    def of_shared(users: np.ndarray) -> np.ndarray:
        category = several.items[several.rows_of(users, generator)]
        return ordered[generator.integers(bounds[category], bounds[category + 1])]

    def of_new(users: np.ndarray) -> np.ndarray:
        found = generator.integers(1, histories.last_item + 1, size=len(users))
        old = (categories[found] >= 0) & _among(users * width + categories[found], met)
        return np.where(old, 0, found)

    def draw(plants: np.ndarray) -> np.ndarray:
        found, like = np.zeros(len(plants), dtype=np.int64), alike[plants]
        found[like], found[~like] = of_shared(users[plants[like]]), of_new(users[plants[~like]])
        return found

    return _foreign(histories, users, draw, generator)


def boundary(
    histories: TrainingHistories, users: Int[np.ndarray, " plants"], generator: np.random.Generator
) -> Int[np.ndarray, " plants"]:
    """One of the 100 items that a recommender, trained on these histories, ranks highest of those not met.

    The recommender is PureSVD (Cremonesi et al. 2010): users times items, factorised. UserError where somebody has
    no more left than these.
    """
    left = histories.last_item - Met(histories).most
    if left <= BEST:
        raise UserError(
            f"noise.kind: boundary draws from a user's best {BEST} items, and one has only {left} not met; "
            "choose another kind"
        )
    asked, place = np.unique(users, return_inverse=True)
    best = _best_of_pure_svd(histories, asked, generator)

    def draw(plants: np.ndarray) -> np.ndarray:
        return best[place[plants], generator.integers(BEST, size=len(plants))]

    return _foreign(histories, users, draw, generator)


def _best_of_pure_svd(
    histories: TrainingHistories, users: Int[np.ndarray, " some"], generator: np.random.Generator
) -> Int[np.ndarray, "some best"]:
    """The best items of each user among those not met, in order of their numbers.

    Scores that are equal but for rounding are put in an order drawn at random, so that no processor decides.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import LinearOperator, eigsh

    rows, last = histories.items, histories.last_item
    met = csr_array(
        (np.ones(len(rows)), rows, histories.offsets), shape=(len(histories.offsets) - 1, last + 1), copy=True
    )
    met.sum_duplicates()
    met.data[:] = 1
    gram = LinearOperator((last + 1, last + 1), matvec=lambda vector: met.T @ (met @ vector), dtype=np.float64)
    factors = eigsh(gram, k=FACTORS, rng=generator)[1]  # of items
    ties = generator.permutation(last + 1) / (last + 1)
    result = np.empty((len(users), BEST), dtype=np.int64)
    for begin in range(0, len(users), SCORED):
        own = met[users[begin : begin + SCORED]]
        scores = np.rint(own @ (factors / PRECISION) @ factors.T)
        scores += ties
        scores[own.nonzero()] = -np.inf
        scores[:, 0] = -np.inf
        result[begin : begin + SCORED] = np.argpartition(scores, -BEST, axis=1)[:, -BEST:]
    return np.sort(result, axis=1)


def burst(histories: TrainingHistories, runs: Runs, generator: np.random.Generator) -> Plants:
    """Each run, items that somebody else had in a row, into one place of a user who has met none, if one is found.

    UserError where there is no run.
    """
    if not runs:
        raise UserError(
            "noise.kind: burst found no two items in a row, of those who left the data, that others have too; choose "
            "another kind"
        )
    met, lengths = Met(histories), np.array([len(run) for run in runs])
    run, items = np.repeat(np.arange(len(runs)), lengths), np.concatenate(runs)
    users = generator.permutation(drawn_users(histories, len(runs), generator))
    for _ in range(TRIES):
        wrong = np.unique(run[met.holds(users[run], items) | met.repeats(users[run], items)])
        if not len(wrong):
            break
        users[wrong] = generator.permutation(drawn_users(histories, len(wrong), generator))
    order = np.argsort(users, kind="stable")
    places = drawn_places(histories, users[order], generator)
    whole = np.concatenate([runs[number] for number in order])
    return Plants(np.repeat(users[order], lengths[order]), np.repeat(places, lengths[order]), whole)


def as_runs(
    items: Int[np.ndarray, " rows"], bounds: Int[np.ndarray, " bounds"], generator: np.random.Generator
) -> Runs:
    """These pieces of histories cut into runs of 2 to 5 items; one that is left over joins the run before, if any."""
    runs = []
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        while end - begin >= SHORTEST_RUN:
            length = min(int(generator.integers(SHORTEST_RUN, LONGEST_RUN + 1)), end - begin)
            length += end - begin - length == 1
            runs.append(items[begin : begin + length])
            begin += length
    return runs


def duplicates(histories: TrainingHistories, count: int, generator: np.random.Generator) -> Plants:
    """Again an item that the user has had before, somewhere after it."""
    users = drawn_users(histories, count, generator)
    begins, rows = histories.offsets[users], np.sort(histories.rows_of(users, generator))  # stands right after these
    again = begins + generator.integers(rows - begins + 1)
    return Plants(users, rows - begins + 1, histories.items[again])


def swaps(histories: TrainingHistories, count: int, generator: np.random.Generator) -> Int[np.ndarray, " rows"]:
    """The order of all rows once `count` of them, or all that can, have changed places with another of their history.

    The rows of each history are paired at random; as many pairs as needed, drawn at random, change places, but never
    equal items. So nothing changes places twice.
    """
    owner = histories.owner
    shuffled = np.lexsort((generator.random(len(owner)), owner))
    rank = np.arange(len(owner)) - histories.offsets[owner]
    first = np.flatnonzero((rank[:-1] % 2 == 0) & (owner[1:] == owner[:-1]))
    pairs = np.stack([shuffled[first], shuffled[first + 1]])
    pairs = generator.permutation(pairs[:, np.not_equal(*histories.items[pairs])], axis=1)[:, : count // 2]
    order = np.arange(len(owner))
    order[pairs] = pairs[::-1]
    return order


class Met:
    """Which items each user has met, and `most`, how many one has at most; UserError where one has met all."""

    def __init__(self, histories: TrainingHistories) -> None:
        self.width = histories.last_item + 1
        self.keys = np.unique(histories.owner * self.width + histories.items)
        self.most = int(np.bincount(self.keys // self.width).max())
        if self.most == histories.last_item:
            raise UserError(
                "noise.ratio: a user has met every item of the catalogue, so none is left to plant; set it to 0, or "
                "noise.kind to duplicates or swaps"
            )

    def holds(self, users: Int[np.ndarray, " some"], items: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        return _among(users * self.width + items, self.keys)

    def repeats(self, users: Int[np.ndarray, " some"], items: Int[np.ndarray, " some"]) -> Bool[np.ndarray, " some"]:
        """Whether an earlier one of these has the same user and item."""
        again = np.ones(len(users), dtype=bool)
        again[np.unique(users * self.width + items, return_index=True)[1]] = False
        return again


def _among(keys: Int[np.ndarray, " some"], ordered: Int[np.ndarray, " known"]) -> Bool[np.ndarray, " some"]:
    """Which keys are in the ascending `ordered`."""
    return ordered[np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)] == keys


def _any_item(histories: TrainingHistories, generator: np.random.Generator) -> Draw:
    return lambda plants: generator.integers(1, histories.last_item + 1, size=len(plants))


def _foreign(
    histories: TrainingHistories, users: Int[np.ndarray, " plants"], draw: Draw, generator: np.random.Generator
) -> Int[np.ndarray, " plants"]:
    """Items that these users have not met, and of which no user gets one twice while there are others."""
    met, items, wanted, tries = Met(histories), np.zeros(len(users), dtype=np.int64), np.arange(len(users)), 0
    while len(wanted):
        items[wanted] = (draw if tries < 2 * TRIES else _any_item(histories, generator))(wanted)
        wrong = np.zeros(len(users), dtype=bool)
        wrong[wanted] = (items[wanted] == 0) | met.holds(users[wanted], items[wanted])
        if tries < TRIES:
            wrong |= met.repeats(users, items)
        wanted, tries = np.flatnonzero(wrong), tries + 1
    return items
