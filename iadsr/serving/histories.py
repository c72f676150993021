"""What callers hand in as histories -> items and titles that a model can read, with a word on what it cannot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from iadsr.errors import UserError

SHOWN = 40  # characters of a value in a message
LARGEST_FLOAT = 2**53  # from here on a float may stand for several integers


class ReadHistory(NamedTuple):
    """One history, oldest first: every item that the model knows, and others where their title is known."""

    numbers: list[int]  # of the catalogue, from 1; 0: unknown, here for its title alone
    titles: list[str]
    own: list[bool]  # whether the title is not the catalogue's
    unknown: list[str]  # the ids that the model does not know, as they were given
    note: str  # why nothing can be recommended; empty where something can


class KnownItems:
    """Ids and titles of the items that a model knows, and titles of others."""

    def __init__(self, ids: Sequence[str], titles: Sequence[str], others: Mapping[str, str]) -> None:
        """`others`: titles by id of items that the model does not know, read where it reads texts."""
        self.ids, self.titles, self.others = ids, titles, others
        self.index = {raw: number for number, raw in enumerate(ids, 1)}

    @property
    def example(self) -> str:
        return f"ids are those of the data set, as {', '.join(self.ids[:3])}"

    def read(self, history: Any, titles: Any, reads_titles: bool) -> ReadHistory:
        """The history as far as the model can read it; nothing that stands in it is an error."""
        items, given = as_list(history), as_list(titles)
        if items is None:
            return nothing(f"history: expected a list of item ids, found {shown(history)}")
        if not items:
            return nothing("history: empty; give at least one item id")
        if given is None:
            return nothing(f"titles: expected a list of texts, found {shown(titles)}")
        if given and len(given) != len(items):
            return nothing(f"titles: {len(given)} for a history of {len(items)}; give one an item, null where unknown")
        found = self._read([raw_id(item) for item in items], given or [None] * len(items), reads_titles)
        if any(found.numbers):
            return found
        unknown = f"the model knows none of the items, as {shown(found.unknown[0])}; {self.example}"
        return found._replace(note=f"history: {unknown}")

    def _read(self, items: list[str], given: list[Any], reads_titles: bool) -> ReadHistory:
        found = ReadHistory([], [], [], [], "")
        for item, title in zip(items, given, strict=True):
            number = self.index.get(item, 0)
            own = text_of(title) if reads_titles else ""
            of_catalogue = self.titles[number - 1] if number else ""
            text = own or of_catalogue or (self.others.get(item, "") if reads_titles else "")
            if not number:
                found.unknown.append(item)
            if number or text:
                found.numbers.append(number)
                found.titles.append(text)
                found.own.append(text != of_catalogue)
        return found

    def refuse_unknown(self, readings: Iterable[ReadHistory], names: Iterable[str]) -> None:
        """UserError for the first item that the model does not know."""
        for reading, name in zip(readings, names, strict=True):
            if reading.unknown:
                raise UserError(f"{name}: unknown item {shown(reading.unknown[0])}; {self.example}")


def nothing(note: str) -> ReadHistory:
    return ReadHistory([], [], [], [], note)


def as_list(value: Any) -> list[Any] | None:
    """What may stand for a list, as one: null is empty; None for anything else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, np.ndarray):
        return list(value.tolist()) if value.ndim else None
    return list(value) if isinstance(value, list | tuple) else None


def raw_id(value: Any) -> str:
    """The id as a data set has it: a whole number reads alike as 3, 3.0 and "3".

    >>> [raw_id(value) for value in (3, 3.0, "3", 3.5, None)]
    ['3', '3', '3', '3.5', 'null']
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real) and float(value).is_integer() and abs(float(value)) < LARGEST_FLOAT:
        return str(int(float(value)))
    return "null" if value is None else shown(value)


def text_of(title: Any) -> str:
    """A title as text; empty where there is none."""
    if title is None or (isinstance(title, float) and math.isnan(title)):
        return ""
    return title.strip() and title if isinstance(title, str) else raw_id(title)


def shown(value: Any) -> str:
    """A value as a message can show it."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
