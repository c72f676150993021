"""The library in ten lines: a trained model that recommends and judges, for whoever holds a frame in memory."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np

from iadsr.errors import UserError
from iadsr.ingest.whole_rows import refuse_taken
from iadsr.params import read_params
from iadsr.schemas import OF_VERDICTS
from iadsr.serving.catalogue import trained_encoder
from iadsr.serving.coded import LogRows
from iadsr.serving.histories import raw_id
from iadsr.serving.judge import Judge, coded
from iadsr.serving.server import SEEN_ALL, Recommendation, Server

ITEMS, USERS, PARAMS = "items.parquet", "users.parquet", "params.yaml"
TABLES = Path("data/filtered")  # of a project


class Loaded:
    """A model, with the folder of the tables that it was trained on: its items, and its users if they are there."""

    def __init__(self, model: Path, tables: Path) -> None:
        self._model, self._tables = model, tables
        self._server: Server | None = None
        self._judge: Judge | None = None

    def recommend(
        self, history: list[Any], k: int = 10, exclude_seen: bool = True, clean: bool = False
    ) -> list[Recommendation]:
        """The k best items after a history of raw ids, oldest first; UserError where the model knows none of them.

        With `clean` they follow from what is left once the model has dropped what is noise (from all of it if nothing
        is left); what is dropped has been seen all the same.
        """
        if self._server is None:
            self._server = Server(self._model, self._tables / ITEMS)
        left = self._left(history) if clean else history
        dropped = {raw_id(item) for item in history} - {raw_id(item) for item in left} if left is not history else set()
        catalogue = len(self._server.catalogue.ids)
        most = min(k + len(dropped), catalogue) if 1 <= k <= catalogue else k
        (answer,) = self._server.recommend([left], most, exclude_seen)
        if answer.note and not answer.items:
            raise UserError(answer.note)
        found = [item for item in answer.items if not exclude_seen or item.item not in dropped][:k]
        if not found:
            raise UserError(SEEN_ALL)
        return found

    def _left(self, history: list[Any]) -> list[Any]:
        """The history itself where nothing that the model has judged is left, or it is no history."""
        (judged,) = self._judges().histories([history])
        kept = [place for place, keep in enumerate(judged.keep) if keep]
        if not any(judged.noise[place] is not None for place in kept):
            return history
        return [history[place] for place in kept]

    def _judges(self) -> Judge:
        if self._judge is None:
            self._judge = Judge.opened(self._model, self._tables / ITEMS, self._tables / USERS)
        return self._judge

    def denoise(
        self,
        frame: Any,
        user: str = "user",
        item: str = "item",
        timestamp: str | None = "timestamp",
        threshold: float | None = None,
        budget: float | None = None,
        titles: Mapping[Any, str] | None = None,
    ) -> Any:
        """A polars or pandas frame of interactions with noise_probability, keep and reason behind its columns.

        Rows stay as they are. With `timestamp=None` their order counts; so it does where there is no such column, and a
        warning says so. Items that the model was not trained on are judged by their `titles`, by id, as long as the
        project's params.yaml describes the encoder; without they are not judged. Dropped is what is more likely noise
        than `threshold` (by default the model's own), or at most a share of the judged rows, `budget`. UserError for a
        frame that lacks a column, or has one of the new ones.
        """
        given = nw.from_native(frame, eager_only=True)
        for name in (user, item):
            if name not in given.columns:
                raise UserError(
                    f"frame: no column {name!r}; it has: {', '.join(map(str, given.columns))}; name yours by user=, "
                    "item= and timestamp="
                )
        refuse_taken("frame", given.columns)
        users, items = (coded(given[name].to_list()) for name in (user, item))
        nobody = np.flatnonzero((users.places < 0) | (items.places < 0)).tolist()
        wrong = dict.fromkeys(nobody, "user or item is missing")
        order = by_time(given, timestamp)
        if titles:
            self._learn(titles)
        decided = self._judges().decide(LogRows(users, items, order, wrong), threshold, budget)
        noise = [None if np.isnan(value) else value for value in decided.noise.tolist()]
        added = zip(OF_VERDICTS, (noise, decided.keep.tolist(), decided.reasons), strict=True)
        columns = [nw.new_series(name, values, backend=given.implementation) for name, values in added]
        return given.with_columns(*columns).to_native()

    def _learn(self, titles: Mapping[Any, str]) -> None:
        """UserError for a published model, beside which nothing says what its encoder is."""
        params, judge = self._model.resolve().parents[1] / PARAMS, self._judges()
        if self._tables == self._model or not params.exists():
            raise UserError(f"titles: {params} would say how to encode them; load the model of a project")
        assert judge.config.encodings is not None
        encoder = trained_encoder(read_params(params), judge.config.encodings)
        judge.learn_titles({raw_id(item): title for item, title in titles.items()}, encoder)


def by_time(given: Any, timestamp: str | None) -> np.ndarray:
    """All rows, oldest first; equal times, and rows without one, as they stand."""
    if timestamp is None:
        return np.arange(len(given))
    if timestamp not in given.columns:
        said = f"frame: no column {timestamp!r}, so the order of its rows counts; name that of times by timestamp="
        warnings.warn(said, stacklevel=3)
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
