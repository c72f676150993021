"""A trained model that judges logs: whose ids it knows, and what it decides of rows in the order of their file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from iadsr.artifacts import read_columns
from iadsr.device import pick_dtype
from iadsr.encode.batches import Budget, encoded
from iadsr.encode.encoders.interface import EncoderParams
from iadsr.encode.encoders.registry import open_encoder
from iadsr.encode.texts import Wording
from iadsr.errors import UserError
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.files import load_model
from iadsr.schemas import RAW_USER
from iadsr.serving.catalogue import read_catalogue
from iadsr.serving.coded import Coded, LogRows
from iadsr.serving.histories import as_list, raw_id, shown
from iadsr.serving.log_verdicts import NOT_JUDGED, Log, RowVerdicts, judged, kept, reasons_of, threshold_for
from iadsr.serving.texts import SERVING_TOKENS

CPU = torch.device("cpu")


class Decided(NamedTuple):
    """Of every row of a log, in its order."""

    noise: Float[np.ndarray, " rows"]  # the probability; NaN where a row is not judged
    keep: Bool[np.ndarray, " rows"]
    reasons: list[str]  # why a row is dropped or not judged, else ""
    threshold: float  # the probability above which rows are dropped


class JudgedHistory(NamedTuple):
    """Verdicts on the items of a history, in its order."""

    noise: list[float | None]  # the probability; None where an item is not judged
    keep: list[bool]
    reasons: list[str]
    note: str  # why there are none


def can_judge(config: ModelConfig) -> bool:
    """Whether a model has a detector."""
    return issubclass(DENOISERS[config.denoiser], Cloze)


class Judge:
    """The detector of a model that was trained with cloze."""

    def __init__(self, model: Any, config: ModelConfig, ids: list[str], titles: list[str], users: list[str]) -> None:
        """`ids`, `titles`: of the catalogue, item 1 first. `users`: those that the model was trained on, or none.

        UserError for a model without a detector.
        """
        if not isinstance(model, Cloze):
            raise UserError(
                f"the model was trained with denoiser {config.denoiser}, which cannot judge other logs; train one "
                "with `dvc exp run -S denoiser=cloze`"
            )
        self.model, self.config, self.titles = model, config, titles
        self.catalogue = {raw: number for number, raw in enumerate(ids, 1)}
        self.known = {raw: number for number, raw in enumerate(users, 1)} if len(users) == config.user_count else {}
        self.others = torch.zeros(0, model.detector.texts.shape[1])

    @property
    def expected(self) -> float:
        """The share of noise that was found in the training data."""
        return float(self.model.detector.weighing.rate)

    def learn_titles(self, titles: Mapping[str, str], spec: EncoderParams) -> None:
        """Judge items that the model does not know by these titles, by id; `spec` is the encoder of its texts."""
        new = {raw: title for raw, title in titles.items() if title and raw not in self.catalogue}
        if not new:
            return
        made = self.config.encodings
        assert made is not None
        encoder = open_encoder(spec, CPU, pick_dtype(made["computed_in"], CPU))
        texts = [Wording(item=made["item_template"]).of_item(title) for title in new.values()]
        found = torch.from_numpy(encoded(encoder, texts, Budget(SERVING_TOKENS)).vectors)
        vectors = self.model.detector.like_those_read(found.float())
        self.others = torch.cat([self.others, vectors])
        self.catalogue |= {raw: number for number, raw in enumerate(new, len(self.catalogue) + 1)}
        self.titles = [*self.titles, *new.values()]

    @classmethod
    def opened(cls, folder: Path, items: Path, users: Path) -> Judge:
        """A saved model with the tables that it was trained on; without that of users all are strangers."""
        model, config = load_model(folder, CPU)
        known = read_columns(users, (RAW_USER,), "filter")[RAW_USER].to_pylist() if users.exists() else []
        return cls(model, config, *read_catalogue(items, config), known)

    def decide(self, asked: LogRows, threshold: float | None = None, budget: float | None = None) -> Decided:
        """Drop rows more likely noise than `threshold`, by default the model's own, or at most a share, `budget`."""
        log = self._log(asked)
        verdicts = judged(self.model, log, self.config.max_length)
        limit = self.model.params.drop_above if threshold is None else threshold
        if budget is not None:
            limit = threshold_for(verdicts.noise, budget)
        keep = kept(verdicts.noise, limit)
        reasons = reasons_of(self.model, log, verdicts, keep, self.titles, self.config.max_length)
        noise, keep, reasons = (in_file_order(each, asked.order) for each in (verdicts.noise, keep, reasons))
        for row, fault in asked.faults.items():
            reasons[row] = f"{NOT_JUDGED}{fault}"
        return Decided(noise, keep, reasons.tolist(), limit)

    def reasons(
        self,
        asked: LogRows,
        noise: Float[np.ndarray, " rows"],
        keep: Bool[np.ndarray, " rows"],
        among: Float[np.ndarray, " others"],
    ) -> list[str]:
        """Why rows that stand in the order of time were not kept, by verdicts on them that are known already.

        `among` are those on all rows. Nothing is said of a row that this log is too short to judge anew.
        """
        log = self._log(asked)
        views = judged(self.model, log, self.config.max_length).views
        sayable = np.isfinite(views[:, 0])
        verdicts = RowVerdicts(np.where(sayable, noise, np.float32("nan")), views)
        found = reasons_of(self.model, log, verdicts, keep | ~sayable, self.titles, self.config.max_length, among)
        found[~sayable] = ""
        return found.tolist()

    def histories(self, histories: Sequence[Any]) -> list[JudgedHistory]:
        """Verdicts on lists of raw ids, oldest first, each of somebody else; what is no list, or empty, gets a note.

        Shares that reasons name are of all these items together.
        """
        lists = [as_list(history) for history in histories]
        items = [item for history in lists for item in history or ()]
        owners = np.repeat(np.arange(len(lists)), [len(history or ()) for history in lists])
        asked = coded(items)
        nobody = dict.fromkeys(np.flatnonzero(asked.places < 0).tolist(), "item is missing")
        users = Coded([f"history {place}" for place in range(len(lists))], owners)
        found = self.decide(LogRows(users, asked, np.arange(len(items)), nobody)) if items else None
        noise = [None if np.isnan(value) else value for value in found.noise.tolist()] if found else []
        answers, first = [], 0
        for given, history in zip(histories, lists, strict=True):
            rows = slice(first, first + len(history or ()))
            first = rows.stop
            note = "" if history else "history: empty; give at least one item id"
            if history is None:
                note = f"history: expected a list of item ids, found {shown(given)}"
            keep, reasons = (found.keep[rows].tolist(), found.reasons[rows]) if found else ([], [])
            answers.append(JudgedHistory(noise[rows], keep, reasons, note))
        return answers

    def _log(self, asked: LogRows) -> Log:
        """The rows in the order of time, in the model's numbers; rows with a fault count as unknown items."""
        numbers = [*(self.catalogue.get(raw, 0) for raw in asked.items.ids), 0]
        items = np.array(numbers, dtype=np.int32)[asked.items.places]
        items[np.fromiter(asked.faults, dtype=np.int64, count=len(asked.faults))] = 0
        users = np.maximum(asked.users.places, 0)
        known_as = np.array([self.known.get(raw, 0) for raw in asked.users.ids] or [0])
        return Log(users[asked.order], items[asked.order], known_as, self.others)


def coded(values: list[Any]) -> Coded:
    """Ids as a data set has them; what is null or no number has none."""
    numbers = dict[str, int]()
    places = [-1 if missing(value) else numbers.setdefault(raw_id(value), len(numbers)) for value in values]
    return Coded(list(numbers), np.array(places, dtype=np.int64))


def missing(value: Any) -> bool:
    return value is None or value != value or value == ""


def in_file_order(values: np.ndarray, order: Int[np.ndarray, " rows"]) -> np.ndarray:
    """What stands in the order of time, in that of the file."""
    found = np.empty_like(values)
    found[order] = values
    return found
