"""The library in ten lines: a trained model that recommends and judges, for whoever holds a frame in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np

from iadsr.errors import UserError
from iadsr.serving.coded import LogRows
from iadsr.serving.judge import Judge, coded
from iadsr.serving.log_files import ADDED, refuse_taken
from iadsr.serving.server import Recommendation, Server

ITEMS, USERS = "items.parquet", "users.parquet"
TABLES = Path("data/filtered")  # of a project


class Loaded:
    """A model, with the folder of the tables that it was trained on: its items, and its users if they are there."""

    def __init__(self, model: Path, tables: Path) -> None:
        self._model, self._tables = model, tables
        self._server: Server | None = None
        self._judge: Judge | None = None

    def recommend(self, history: list[Any], k: int = 10, exclude_seen: bool = True) -> list[Recommendation]:
        """The k best items after a history of raw ids, oldest first; UserError where the model knows none of them."""
        if self._server is None:
            self._server = Server(self._model, self._tables / ITEMS)
        (answer,) = self._server.recommend([history], k, exclude_seen)
        if answer.note and not answer.items:
            raise UserError(answer.note)
        return answer.items

    def denoise(
        self,
        frame: Any,
        user: str = "user",
        item: str = "item",
        timestamp: str = "timestamp",
        threshold: float | None = None,
        budget: float | None = None,
    ) -> Any:
        """A polars or pandas frame of interactions with noise_probability, keep and reason behind its columns.

        Rows stay as they are. Without a column of times their order counts. Dropped is what is more likely noise than
        `threshold` (by default the model's own), or at most a share of the judged rows, `budget`. UserError for a frame
        that lacks a column, or has one of the new ones.
        """
        given = nw.from_native(frame, eager_only=True)
        for name in (user, item):
            if name not in given.columns:
                raise UserError(f"frame: no column {name!r}; it has: {', '.join(map(str, given.columns))}")
        refuse_taken("frame", given.columns)
        if self._judge is None:
            self._judge = Judge.opened(self._model, self._tables / ITEMS, self._tables / USERS)
        users, items = (coded(given[name].to_list()) for name in (user, item))
        nobody = np.flatnonzero((users.places < 0) | (items.places < 0)).tolist()
        wrong = dict.fromkeys(nobody, "user or item is missing")
        order = by_time(given, timestamp)
        decided = self._judge.decide(LogRows(users, items, order, wrong), threshold, budget)
        noise = [None if np.isnan(value) else value for value in decided.noise.tolist()]
        added = zip(ADDED, (noise, decided.keep.tolist(), decided.reasons), strict=True)
        columns = [nw.new_series(name, values, backend=given.implementation) for name, values in added]
        return given.with_columns(*columns).to_native()


def by_time(given: Any, timestamp: str) -> np.ndarray:
    """All rows, oldest first; equal times, and rows without one, as they stand."""
    if timestamp not in given.columns:
        return np.arange(len(given))
    rows = given.select(timestamp).with_row_index("row").sort(timestamp, nulls_last=False)
    return np.asarray(rows.sort(timestamp, "row", nulls_last=False)["row"].to_list(), dtype=np.int64)


def load(model: str | Path = "models/model") -> Loaded:
    """The model in a folder of a project, beside whose folder `models` stands `data`, or in one that was published.

    UserError where it, or the table of its items, is missing.
    """
    folder = Path(model)
    published = (folder / ITEMS).exists()
    tables = folder if published else folder.resolve().parents[1] / TABLES
    for path in (folder / "config.json", tables / ITEMS):
        if not path.exists():
            raise UserError(f"{path}: no such file; train a model with `dvc repro`")
    return Loaded(folder, tables)
