"""A log whose rows are to be judged, read from wherever: who, which item, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Coded(NamedTuple):
    """A column of ids: the different ones, and for each row the place of its own; -1: the row has none."""

    ids: list[str]
    places: Int[np.ndarray, " rows"]


class LogRows(NamedTuple):
    """The rows of a log as they stand: who, which item, in which order; and what is wrong with some of them."""

    users: Coded
    items: Coded
    order: Int[np.ndarray, " rows"]  # all rows, oldest first
    faults: Mapping[int, str]
    notes: Sequence[str] = ()  # on how a file was read
    separator: str = ""  # of a CSV's fields
