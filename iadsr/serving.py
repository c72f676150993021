"""Top-k recommendations for any history of known items, seen in training or not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from iadsr.artifacts import read_columns
from iadsr.device import pick_dtype
from iadsr.encode.batches import Budget, encoded, prefix_means
from iadsr.encode.encoders.interface import Encoder, EncoderParams, encoder_params
from iadsr.encode.encoders.registry import open_encoder
from iadsr.encode.recipe import described, separator_of, wording_of
from iadsr.encode.texts import Corpus, prefix_texts
from iadsr.errors import UserError
from iadsr.models.files import load_model
from iadsr.params import Params
from iadsr.schemas import RAW_ITEM, TITLE
from iadsr.sequences.windows import Batch

BATCH = 256  # histories scored at once
SERVING_TOKENS = 8192  # in a batch of the encoder


class Recommendation(NamedTuple):
    """One item of a list; `score` is the model's inner product, comparable within one list."""

    item: str
    title: str
    score: float


class Server:
    """A trained model with its catalogue; one that reads prefixes needs the texts' encoder, opened at the first use."""

    def __init__(self, model: Path, items: Path, encoder: EncoderParams | None, item_vectors: Path | None) -> None:
        """`item_vectors` (items.npy) is needed where prefixes are means of item vectors, `encoder` where texts are."""
        self.model, self.config = load_model(model, torch.device("cpu"))
        self.ids, self.titles = read_catalogue(items, self.config.item_count)
        self.index = {raw: number for number, raw in enumerate(self.ids, 1)}
        self.encoder_params, self.item_vectors = encoder, item_vectors
        self._encoder: Encoder | None = None

    @torch.no_grad()
    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude_seen: bool = True,
        titles: Sequence[Sequence[str] | None] | None = None,
        names: Sequence[str] | None = None,
    ) -> list[list[Recommendation]]:
        """For each history (raw item ids, oldest first) the k best items, best first.

        `titles` may replace the catalogue's titles in what the denoiser reads; `names` say in messages whose history it
        is. UserError for an empty history, an unknown item, a k outside 1..catalogue, or titles that do not match.
        """
        if not 1 <= k <= len(self.ids):
            raise UserError(f"k: expected 1 to {len(self.ids)} (the catalogue), found {k}")
        if titles and len(titles) != len(histories):
            raise UserError(f"titles: {len(titles)} lists for {len(histories)} histories")
        names = names or [f"history {place}" for place in range(1, len(histories) + 1)]
        known = [self._numbers(history, name) for history, name in zip(histories, names, strict=True)]
        texts = [self._texts(row, titles[place] if titles else None) for place, row in enumerate(known)]
        result: list[list[Recommendation]] = []
        for start in range(0, len(known), BATCH):
            part = slice(start, start + BATCH)
            result += self._best(known[part], self._batch(known[part], texts[part]), k, exclude_seen)
        return result

    def _numbers(self, history: Sequence[str], name: str) -> list[int]:
        if not len(history):
            raise UserError(f"{name}: empty; give at least one item id")
        unknown = [item for item in history if str(item) not in self.index]
        if unknown:
            example = ", ".join(self.ids[:3])
            raise UserError(f"{name}: unknown item {unknown[0]!r}; ids are those of the data set, as {example}")
        return [self.index[str(item)] for item in history]

    def _texts(self, history: list[int], titles: Sequence[str] | None) -> list[str]:
        if titles is None or not len(titles):
            return [self.titles[number - 1] for number in history]
        encodings = self.config.encodings
        if encodings and (encodings["prefixes"] == "mean" or not self.model.traits.reads_prefix_texts):
            raise UserError("titles: this model reads the vectors of catalogue items, not texts; leave titles out")
        if len(titles) != len(history):
            raise UserError(f"titles: {len(titles)} titles for a history of {len(history)} items")
        return list(titles)

    def _best(self, known: list[list[int]], batch: Batch, k: int, exclude_seen: bool) -> list[list[Recommendation]]:
        scores = self.model.states(batch) @ self.model.item_table()[1:].T
        if exclude_seen:
            for row, history in enumerate(known):
                scores[row, torch.tensor(history) - 1] = float("-inf")
        values, places = scores.topk(k)
        return [
            [
                Recommendation(self.ids[place], self.titles[place], value)
                for value, place in zip(*pair, strict=True)
                if value > float("-inf")
            ]
            for pair in zip(values.tolist(), places.tolist(), strict=True)
        ]

    def _batch(self, known: list[list[int]], texts: list[list[str]]) -> Batch:
        length = self.config.max_length
        newest = [torch.tensor(history[-length:]) for history in known]
        items = torch.nn.utils.rnn.pad_sequence(newest, batch_first=True)
        rows = torch.where(items > 0, 0, -1)
        text_vectors = (
            self._text_vectors(known, texts, items.shape[1]) if self.model.traits.reads_prefix_texts else None
        )
        nobody = torch.zeros(len(known), dtype=torch.long)
        return Batch(rows, items, torch.zeros_like(items), nobody, text_vectors)

    def _text_vectors(
        self, known: list[list[int]], texts: list[list[str]], width: int
    ) -> Float[Tensor, "batch time dim"]:
        """The encoding of every prefix that ends in the newest `max_length` items of each history."""
        assert self.config.encodings is not None
        of = self._means if self.config.encodings["prefixes"] == "mean" else self._encoded
        parts = [torch.from_numpy(of(*pair).astype(np.float32)) for pair in zip(known, texts, strict=True)]
        return torch.stack([torch.nn.functional.pad(part, (0, 0, 0, width - len(part))) for part in parts])

    def _encoded(self, history: list[int], texts: list[str]) -> np.ndarray:
        assert self.config.encodings is not None
        length, wording = self.config.max_length, wording_of(self.config.encodings)
        everything = range(1, len(texts) + 1)
        prefixes = list(prefix_texts(_corpus(texts, everything), length, wording))[-length:]
        return encoded(self._opened(), prefixes, Budget(SERVING_TOKENS)).vectors

    def _means(self, history: list[int], texts: list[str]) -> np.ndarray:
        if self.item_vectors is None or not self.item_vectors.exists():
            raise UserError("the model was trained with encode.prefixes: mean, so it needs data/encoded/items.npy")
        vectors = np.load(self.item_vectors, mmap_mode="r")
        newest = np.arange(len(history))[-self.config.max_length :]
        return prefix_means(vectors, _corpus([], history), self.config.max_length, newest)

    def _opened(self) -> Encoder:
        if self._encoder is None:
            if self.encoder_params is None:
                raise UserError("the model's masks need the text encoder that it was trained with; none was given")
            assert self.config.encodings is not None
            dtype = pick_dtype(self.config.encodings["computed_in"], torch.device("cpu"))  # as in training
            separator = separator_of(self.config.encodings)
            self._encoder = open_encoder(self.encoder_params, torch.device("cpu"), dtype, separator)
        return self._encoder


def read_catalogue(path: Path, item_count: int) -> tuple[list[str], list[str]]:
    """Raw ids and titles of items.parquet, item 1 first; UserError when it is not that of a model of `item_count`."""
    table = read_columns(path, (RAW_ITEM, TITLE), "filter")
    if len(table) != item_count:
        trained_on = f"the model was trained on {item_count}"
        raise UserError(f"{path}: {len(table)} items, but {trained_on}; run `dvc repro train` again")
    return table[RAW_ITEM].to_pylist(), table[TITLE].to_pylist()


def trained_encoder(params: Params, encodings: dict[str, Any]) -> EncoderParams:
    """The encoder of the manifest `encodings` that a model was trained with, as params.yaml describes it.

    UserError where params.yaml describes it otherwise by now: the model would read other vectors than it has learnt.
    """
    name = encodings["encoder"]
    spec = encoder_params(params, name)
    for key, value in described(name, spec).items():
        if encodings.get(key) != value:
            raise UserError(
                f"params.yaml: encoders.{name}.{key} is {value!r}, but the model was trained with "
                f"{encodings.get(key)!r}; set it back, or train again with `dvc repro train`"
            )
    return spec


def _corpus(titles: list[str], history: Iterable[int]) -> Corpus:
    """One history as a corpus of its own."""
    items = np.array(list(history))
    return Corpus(titles, items, np.arange(len(items)), np.ones(len(items), dtype=bool))
