"""Top-k recommendations for any history with an item that the model knows, seen in training or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from iadsr.encode.encoders.interface import EncoderParams
from iadsr.errors import UserError
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.files import load_model
from iadsr.sequences.windows import Batch
from iadsr.serving.catalogue import read_catalogue
from iadsr.serving.histories import KnownItems, ReadHistory
from iadsr.serving.screen import Allowance, Screen, estimates, features, projections
from iadsr.serving.texts import TextVectors, TitleRuns, reads_texts

BATCH = 1024  # histories read at once
SCORES = 2**22  # counted at once
MOST_TEXTS = 150  # of histories that a request has encoded, unless it asks for exact answers: some 3 to 7 s of one core
Unknown = Literal["skip", "fail"]


class Recommendation(NamedTuple):
    """One item of a list; `score` is the model's, comparable within one list."""

    item: str
    title: str
    score: float


class Answer(NamedTuple):
    """The k best items for one history, best first; where there are none, `note` says why."""

    items: list[Recommendation]
    note: str
    unknown: list[str]  # items of the history that the model does not know


class Server:
    """A trained model with its catalogue; one that reads prefixes needs the texts' encoder."""

    def __init__(
        self,
        model: Path,
        items: Path,
        encoder: EncoderParams | None = None,
        item_vectors: Path | None = None,
        screen: Screen | None = None,
        others: Mapping[str, str] | None = None,
    ) -> None:
        """`encoder` is needed where prefixes are texts, `item_vectors` (items.npy) where they are means or screened.

        `others`: titles by id of items that the model does not know.
        """
        self.model, self.config = load_model(model, torch.device("cpu"))
        self.catalogue = KnownItems(*read_catalogue(items, self.config), others or {})
        self.screen, self.texts = screen, None
        if reads_texts(self.model):
            assert self.config.encodings is not None
            self.texts = TextVectors(self.config.encodings, self.config.max_length, encoder, item_vectors)

    def warm_up(self) -> None:
        """Load the encoder, if the model needs it for every history."""
        if self.texts is not None and not self.texts.are_means:
            self.texts.opened()

    @torch.no_grad()
    def recommend(
        self,
        histories: Sequence[Any],
        k: int = 10,
        exclude_seen: bool = True,
        titles: Sequence[Any] | None = None,
        unknown: Unknown = "skip",
        names: Sequence[str] | None = None,
        exact: bool = True,
    ) -> list[Answer]:
        """For each history (raw item ids, oldest first) the k best items, best first.

        `titles` may replace titles of the catalogue, and tell those of other items, in what the denoiser reads. Items
        that the model does not know are skipped; a history that is no list or of which nothing is left gets a note.
        Unless `exact`, at most `MOST_TEXTS` texts of histories are encoded, and what they leave open is estimated,
        which the note says. UserError for a k outside 1..catalogue, lists of titles for another number of histories
        and, where `unknown` is "fail", an unknown item; `names` say whose history it is.
        """
        count = len(self.catalogue.ids)
        if not 1 <= k <= count:
            raise UserError(f"k: expected 1 to {count} (the catalogue), found {k}")
        if titles is not None and len(titles) != len(histories):
            raise UserError(f"titles: {len(titles)} lists for {len(histories)} histories")
        pairs = zip(histories, titles if titles is not None else [None] * len(histories), strict=True)
        readings = [self.catalogue.read(history, own, self.texts is not None) for history, own in pairs]
        if unknown == "fail":
            names = names or [f"history {place}" for place in range(1, len(histories) + 1)]
            self.catalogue.refuse_unknown(readings, names)
        answers = [Answer([], reading.note, reading.unknown) for reading in readings]
        allowance = Allowance() if exact else Allowance(MOST_TEXTS)
        good = [place for place, reading in enumerate(readings) if not reading.note]
        for start in range(0, len(good), BATCH):
            part = good[start : start + BATCH]
            lists, sure = self._best([readings[place] for place in part], k, exclude_seen, allowance)
            for place, items, exactly in zip(part, lists, sure, strict=True):
                note = ("" if exactly else ESTIMATED) if items else SEEN_ALL
                answers[place] = Answer(items, note, readings[place].unknown)
        return answers

    def _best(
        self, readings: list[ReadHistory], k: int, exclude_seen: bool, allowance: Allowance
    ) -> tuple[list[list[Recommendation]], list[bool]]:
        """The lists, and whether each is as with exact texts."""
        table: Tensor = self.model.item_table()[1:]
        found: list[list[Recommendation]] = []
        batch = self._batch(readings)
        states, sure = self._states(readings, batch, allowance)
        for rows in torch.arange(len(readings)).split(max(1, SCORES // len(self.catalogue.ids))):
            scores = self.model.scores(states[rows], table, batch.items[rows])
            if exclude_seen:
                for row, place in enumerate(rows.tolist()):
                    seen = [number - 1 for number in readings[place].numbers if number]
                    scores[row, torch.tensor(seen)] = float("-inf")
            values, places = scores.topk(k)
            found += [self._named(*pair) for pair in zip(values.tolist(), places.tolist(), strict=True)]
        return found, sure

    def _named(self, values: list[float], places: list[int]) -> list[Recommendation]:
        ids, titles = self.catalogue.ids, self.catalogue.titles
        pairs = zip(values, places, strict=True)
        return [Recommendation(ids[place], titles[place], value) for value, place in pairs if value > float("-inf")]

    def _states(
        self, readings: list[ReadHistory], batch: Batch, allowance: Allowance
    ) -> tuple[Float[Tensor, "batch dim"], list[bool]]:
        everybody = [True] * len(readings)
        if self.texts is None:
            return self.model.states(batch), everybody
        prefixes = TitleRuns.of([reading.numbers for reading in readings], self.config.max_length)
        if self.screen is None or self.texts.are_means:
            vectors = self.texts.of_prefixes(readings, prefixes)
            return self.model.states(Batch(batch.rows, batch.items, batch.targets, batch.users, vectors)), everybody
        assert isinstance(self.model, IADSR)
        kept, sure = self._screened(self.screen, readings, batch, prefixes, allowance)
        return self.model.states_keeping(batch, kept), sure.tolist()

    def _screened(
        self,
        screen: Screen,
        readings: list[ReadHistory],
        batch: Batch,
        prefixes: TitleRuns,
        allowance: Allowance,
    ) -> tuple[Bool[Tensor, "batch time"], Bool[Tensor, " batch"]]:
        """The verdicts of the screen; it has the texts encoded that it is not sure without."""
        assert self.texts is not None and isinstance(self.model, IADSR)
        texts, model = self.texts, self.model
        titles = texts.of_titles(readings)
        projected = projections(model, torch.cat(titles)).split([len(each) for each in titles])
        found = estimates(screen.weights, features(projected, prefixes, self.config.max_length))
        estimated = found.new_zeros(*batch.items.shape, found.shape[1])
        estimated[batch.valid] = found
        sizes = prefixes.ends - prefixes.starts
        exact = partial(texts.of_some, readings, prefixes)
        return screen.kept(model, batch, sizes, estimated, exact, allowance)

    def _batch(self, readings: list[ReadHistory]) -> Batch:
        length = self.config.max_length
        known = [[number for number in reading.numbers if number][-length:] for reading in readings]
        items = torch.nn.utils.rnn.pad_sequence([torch.tensor(each) for each in known], batch_first=True)
        nobody = torch.zeros(len(known), dtype=torch.long)
        return Batch(torch.where(items > 0, 0, -1), items, torch.zeros_like(items), nobody)


ESTIMATED = (
    "some verdicts on this history are estimated; params exact: true has their texts encoded, which takes longer"
)
SEEN_ALL = "nothing left to recommend: every item of the catalogue is in the history"
