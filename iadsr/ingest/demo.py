"""A generated data set with ground truth: which interactions are accidents is known, so denoising can be scored.

How it is drawn, from one seeded generator, in this order:

1. The catalogue. `demo_vocabulary` holds a dozen categories, each with five kinds of products in a ring. Items are
   dealt to categories, kinds and brands in turn (small catalogues use fewer categories, about 20 items each) and get a
   qualifier of their category: "Brewhaus Pour-Over Coffee Grinder". Where a brand has more items of a kind than there
   are qualifiers, the others also get an attribute: "Brewhaus Pour-Over Coffee Grinder, Cafe Quality". Ranks of
   popularity are dealt at random; the item of rank r weighs r ** -0.6, a long tail.
2. The users. Each has 1 to 3 categories as interests, drawn by the weight of their items, and two sets of shares for
   them, uniform over all possible: one holds at the first interaction, one at the last, a linear blend between. A
   history has 5 interactions and a geometric number more, 8.5 on average, at most 50 and at most half a category.
3. The places of accidents. They are drawn uniformly from the interactions that are not among their user's last two, as
   many as make a share of `noise` of all interactions. The last two of each user are what leave-one-out validates and
   tests on: they are always real preferences.
4. The real interactions. With probability 0.6 the user stays with the interest of the previous one, else an interest is
   drawn by the blended shares. Within it, the user moves from the kind bought there last to the next kind in the ring
   with probability 0.6, buys the same kind again with 0.2, and else (or at first) any kind by popularity. Among that
   kind's items that the user has not got, one is drawn by popularity, where the brand last bought in this interest
   counts 6 times. Accidents in between change nothing.
5. The accidents. Each is an item from outside the user's interests, not bought before, drawn by how often users really
   bought it: so popularity does not tell accidents apart.
6. Times. Histories begin within one year from 2023-01-01; between interactions pass a minute and an exponential time
   with a mean of five days. Rows stand in order of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import pydantic
from numpy.typing import NDArray

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.demo_vocabulary import FIELDS
from iadsr.ingest.raw import CATEGORY_SEPARATOR, Item, ItemRows, Names, Raw, raw_tables
from iadsr.ingest.rejects import Rejects
from iadsr.params import Group

POPULARITY_EXPONENT = 0.6
ITEMS_A_CATEGORY = 20
SHORTEST, MEAN_LENGTH, LONGEST = 5, 8.5, 50
PROTECTED = 2
MOST_INTERESTS = 3
SAME_INTEREST = 0.6
NEXT_KIND, SAME_KIND = 0.6, 0.2
BRAND_LOYALTY = 6.0
BEGIN = 1_672_531_200
YEAR, MINUTE, MEAN_GAP = 365 * 86_400, 60, 5 * 86_400

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Demo(Group):
    """params.yaml, `datasets.<name>.source`: how much to generate; `noise` is the share of planted accidents."""

    kind: Literal["demo"]
    users: int = pydantic.Field(default=2000, ge=3)
    items: int = pydantic.Field(default=1000, ge=20)
    noise: float = pydantic.Field(default=0.15, ge=0, lt=1)
    seed: int = pydantic.Field(default=0, ge=0)


@dataclass(frozen=True)
class Catalogue:
    """All items as columns [items]: text, place in the vocabulary, and weight of popularity (sums to 1)."""

    texts: list[Item]
    category: Integers
    kind: Integers
    brand: Integers
    weight: Floats

    def members(self, category: int, kind: int) -> Integers:
        return np.flatnonzero((self.category == category) & (self.kind == kind))


def load(source: Demo) -> Raw:
    """Generate both tables; the same parameters give the same rows. Interactions carry `is_noise`.

    UserError if `noise` asks for more accidents than there are interactions before the last two of each user.
    """
    generator = np.random.default_rng(source.seed)
    catalogue = new_catalogue(source.items, generator)
    interests = [_interests(catalogue, generator) for _ in range(source.users)]
    lengths = _lengths(source.users, catalogue, generator)
    accidents = np.split(_accidents(lengths, source.noise, generator), np.cumsum(lengths)[:-1])
    shopper = Shopper(catalogue, generator)
    items = [shopper.purchases(own, planted) for own, planted in zip(interests, accidents, strict=True)]
    _fill_accidents(items, interests, catalogue, generator)
    interactions = _in_order_of_time(np.concatenate(items), np.concatenate(accidents), lengths, generator)
    found = ItemRows({item_id(index): text for index, text in enumerate(catalogue.texts)})
    return raw_tables(interactions, found, Names("demo", "demo"), Rejects())


def item_id(index: int) -> str:
    return f"item-{index + 1:05d}"


def user_id(index: int) -> str:
    return f"user-{index + 1:05d}"


def new_catalogue(items: int, generator: np.random.Generator) -> Catalogue:
    """Deal items to categories, kinds and brands in turn, then draw their texts and ranks of popularity."""
    categories = min(len(FIELDS), max(2, items // ITEMS_A_CATEGORY))
    index, category = np.divmod(np.arange(items), categories)
    kinds = np.array([len(field.kinds) for field in FIELDS])[category]
    index, kind = np.divmod(index, kinds)
    brands = np.array([len(field.brands) for field in FIELDS])[category]
    copy, brand = np.divmod(index, brands)
    weight = (1.0 + generator.permutation(items)) ** -POPULARITY_EXPONENT
    texts = _texts(category, kind, brand, copy, generator)
    return Catalogue(texts, category, kind, brand, weight / weight.sum())


def _texts(
    category: Integers, kind: Integers, brand: Integers, copy: Integers, generator: np.random.Generator
) -> list[Item]:
    """Texts whose titles all differ: copies of a kind and brand take the shuffled names of their category."""
    qualifiers = max(len(field.qualifiers) for field in FIELDS)
    pairs = max(len(field.qualifiers) * len(field.attributes) for field in FIELDS)
    shelves = (len(FIELDS), kind.max() + 1, brand.max() + 1, 1)
    plain = generator.permuted(np.tile(np.arange(qualifiers), shelves), axis=-1)
    with_attribute = generator.permuted(np.tile(qualifiers + np.arange(pairs), shelves), axis=-1)
    order = np.concatenate([plain, with_attribute], axis=-1)
    series, place = np.divmod(copy, qualifiers + pairs)
    name = order[category, kind, brand, place]
    return [_text(*(int(number) for number in row)) for row in zip(category, kind, brand, name, series, strict=True)]


def _text(category: int, kind: int, brand: int, name: int, series: int) -> Item:
    """Names count the category's qualifiers first, then all pairs of a qualifier and an attribute."""
    field = FIELDS[category]
    sort, noun = list(field.kinds.items())[kind]
    pair = divmod(name - len(field.qualifiers), len(field.attributes))
    qualifier, ending = (name, "") if pair[0] < 0 else (pair[0], f", {field.attributes[pair[1]]}")
    title = f"{field.brands[brand]} {field.qualifiers[qualifier]} {noun}{ending}"
    return Item(title if series == 0 else f"{title}, Series {series + 1}", f"{field.path}{CATEGORY_SEPARATOR}{sort}")


def _interests(catalogue: Catalogue, generator: np.random.Generator) -> Integers:
    """One user's categories, drawn by the popularity of their items; at least one category stays outside."""
    popularity = np.bincount(catalogue.category, catalogue.weight)
    count = generator.integers(1, min(MOST_INTERESTS, len(popularity) - 1), endpoint=True)
    return generator.choice(len(popularity), size=count, replace=False, p=popularity / popularity.sum())


def _lengths(users: int, catalogue: Catalogue, generator: np.random.Generator) -> Integers:
    """Length of each history [users]."""
    # half a category, so that no interest is ever sold out for a user
    longest = min(LONGEST, max(SHORTEST, int(np.bincount(catalogue.category).min()) // 2))
    drawn = SHORTEST - 1 + generator.geometric(1 / (MEAN_LENGTH - SHORTEST + 1), size=users)
    return np.minimum(drawn, longest)


def _accidents(lengths: Integers, noise: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Which of all interactions, user after user, are accidents: a share of exactly `noise`, rounded to whole ones."""
    from_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(lengths.sum())
    open_places = np.flatnonzero(from_end > PROTECTED)
    count = round(noise * len(from_end))
    if count > len(open_places):
        raise UserError(
            f"params.yaml: `noise` of the demo: expected at most {len(open_places) / len(from_end):.2f}, because the "
            f"last {PROTECTED} interactions of a user are never accidents, found {noise}"
        )
    chosen = np.zeros(len(from_end), dtype=np.bool_)
    chosen[generator.choice(open_places, size=count, replace=False)] = True
    return chosen


class Shopper:
    """Draws the purchases of one user after another, accidents left out."""

    def __init__(self, catalogue: Catalogue, generator: np.random.Generator) -> None:
        self.catalogue = catalogue
        self.generator = generator
        self.shelves = [
            [catalogue.members(category, kind) for kind in range(len(FIELDS[category].kinds))]
            for category in range(int(catalogue.category.max()) + 1)
        ]
        self.kind_weights = [np.array([catalogue.weight[shelf].sum() for shelf in shelves]) for shelves in self.shelves]

    def purchases(self, interests: Integers, accidents: NDArray[np.bool_]) -> Integers:
        """Items [length] of a user with these interests, and -1 where `accidents` [length] is true."""
        first, last = self.generator.dirichlet(np.ones(len(interests)), size=2)
        items = np.full(len(accidents), -1)
        available = np.ones(len(self.catalogue.texts), dtype=np.bool_)
        latest: dict[int, int] = {}  # interest -> the item bought there last
        interest = -1
        for place in np.flatnonzero(~accidents):
            if interest < 0 or self.generator.random() >= SAME_INTEREST:
                share = place / (len(accidents) - 1)
                interest = int(interests[_pick((1 - share) * first + share * last, self.generator)])
            item = self._purchase(interest, latest.get(interest), available)
            items[place] = latest[int(self.catalogue.category[item])] = item
            available[item] = False
        return items

    def _purchase(self, interest: int, latest: int | None, available: NDArray[np.bool_]) -> int:
        shelf = self.shelves[interest][self._kind(interest, latest)]
        shelf = shelf[available[shelf]]
        if len(shelf) == 0:
            # sold out for this user: anything else of the category; half of it at least is still new
            shelf = np.flatnonzero((self.catalogue.category == interest) & available)
        weights = self.catalogue.weight[shelf]
        if latest is not None:
            same_brand = self.catalogue.brand[shelf] == self.catalogue.brand[latest]
            weights = np.where(same_brand, BRAND_LOYALTY * weights, weights)
        return int(shelf[_pick(weights, self.generator)])

    def _kind(self, interest: int, latest: int | None) -> int:
        """The kind of the next item: the next in the ring, the same, or any by popularity."""
        move = self.generator.random()
        if latest is not None and move < NEXT_KIND + SAME_KIND:
            step = 1 if move < NEXT_KIND else 0
            return (int(self.catalogue.kind[latest]) + step) % len(self.shelves[interest])
        return _pick(self.kind_weights[interest], self.generator)


def _pick(weights: Floats, generator: np.random.Generator) -> int:
    """An index, drawn in proportion to the weights."""
    cumulative = weights.cumsum()
    return min(int(cumulative.searchsorted(generator.random() * cumulative[-1], side="right")), len(weights) - 1)


def _fill_accidents(
    items: list[Integers], interests: list[Integers], catalogue: Catalogue, generator: np.random.Generator
) -> None:
    """Put an item from outside the interests wherever a history holds -1, in proportion to real purchases."""
    everything = np.concatenate(items)
    # the catalogue's weights (1 in all) only matter where nothing outside the interests was ever bought
    weights = np.bincount(everything[everything >= 0], minlength=len(catalogue.texts)) + catalogue.weight
    for history, own in zip(items, interests, strict=True):
        outside = np.where(np.isin(catalogue.category, own), 0.0, weights)
        for place in np.flatnonzero(history < 0):
            history[place] = _pick(outside, generator)
            outside[history[place]] = 0.0


def _in_order_of_time(
    items: Integers, accidents: NDArray[np.bool_], lengths: Integers, generator: np.random.Generator
) -> pl.DataFrame:
    """The rows of all histories with times, sorted by time; equal times keep the order of users."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    gaps = MINUTE + generator.exponential(MEAN_GAP, size=len(users)).astype(np.int64)
    elapsed = np.cumsum(gaps)
    starts = np.cumsum(lengths) - lengths
    begin = BEGIN + generator.integers(YEAR, size=len(lengths))
    times = elapsed + np.repeat(begin - elapsed[starts], lengths)
    columns = {
        schemas.USER: [user_id(int(user)) for user in users],
        schemas.ITEM: [item_id(int(item)) for item in items],
        schemas.TIMESTAMP: times,
        schemas.IS_NOISE: accidents,
    }
    return pl.DataFrame(columns).sort(schemas.TIMESTAMP, maintain_order=True)
