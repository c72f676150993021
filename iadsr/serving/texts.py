"""The text vectors that a served model reads: of titles and of prefixes, encoded once and kept."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from iadsr.device import pick_dtype
from iadsr.encode.batches import Budget, encoded
from iadsr.encode.encoders.interface import Encoder, EncoderParams
from iadsr.encode.encoders.registry import open_encoder
from iadsr.encode.recipe import separator_of, wording_of
from iadsr.errors import UserError
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.sequences.text_vectors import mapped, require_noted
from iadsr.serving.histories import ReadHistory

SERVING_TOKENS = 1024  # in a batch of the encoder: what a CPU's caches hold
KEPT_BYTES = 2**28  # of vectors and their texts


class TitleRuns(NamedTuple):
    """Which titles of each reading make up the prefix of each of its newest known items; zeros are padding.

    A prefix holds the newest `max_length` titles up to its item, that of the newest item all to the history's end.
    """

    starts: Int[Tensor, "batch time"]
    ends: Int[Tensor, "batch time"]

    @classmethod
    def of(cls, histories: Sequence[list[int]], max_length: int) -> TitleRuns:
        """Of histories of numbers of items, 0 where only the title is known."""
        ends = []
        for numbers in histories:
            own = [place for place, number in enumerate(numbers, 1) if number][-max_length:]
            own[-1] = len(numbers)
            ends.append(torch.tensor(own))
        padded = torch.nn.utils.rnn.pad_sequence(ends, batch_first=True)
        return cls((padded - max_length).clamp(min=0), padded)


class KeptVectors:
    """Vectors by text, of which those unused for longest go when they take more than `most` bytes together."""

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self.most, self.bytes = most, 0
        self._vectors: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()  # a server answers several requests at once

    def get(self, text: str) -> np.ndarray | None:
        with self._lock:
            vector = self._vectors.get(text)
            if vector is not None:
                self._vectors.move_to_end(text)
            return vector

    def keep(self, text: str, vector: np.ndarray) -> None:
        with self._lock:
            if text not in self._vectors:
                self._vectors[text] = vector
                self.bytes += size(text, vector)
            while self.bytes > self.most:
                self.bytes -= size(*self._vectors.popitem(last=False))


def size(text: str, vector: np.ndarray) -> int:
    """Bytes that both take."""
    return sys.getsizeof(text) + sys.getsizeof(vector)


class TextVectors:
    """What `encode` would have written for any history; vectors of texts seen before are not computed again."""

    def __init__(
        self, encodings: dict[str, Any], max_length: int, encoder: EncoderParams | None, items: Path | None
    ) -> None:
        """`encodings`: the manifest that the model was trained with. `items`: items.npy, for means and screening."""
        self.encodings, self.max_length, self.spec = encodings, max_length, encoder
        self.wording = wording_of(encodings)
        self.items = None
        if items is not None and items.exists():
            require_noted(items, encodings)
            self.items = mapped(items, encodings["dim"])
        self.kept, self.encoded = KeptVectors(), 0  # how many texts were encoded so far
        self._encoder: Encoder | None = None
        self._opening = threading.Lock()
        if self.are_means and self.items is None:
            raise UserError("the model was trained with encode.prefixes: mean, so it needs data/encoded/items.npy")

    @property
    def are_means(self) -> bool:
        return bool(self.encodings["prefixes"] == "mean")

    def of_prefixes(self, readings: Sequence[ReadHistory], prefixes: TitleRuns) -> Float[Tensor, "batch time dim"]:
        """The vector of every prefix; zeros at padding."""
        if self.are_means:
            return means(self.of_titles(readings), prefixes)
        real = prefixes.ends > 0
        found = self.of_some(readings, prefixes, real)
        return found.new_zeros(*real.shape, found.shape[1]).masked_scatter_(real[..., None], found)

    def of_some(self, readings: Sequence[ReadHistory], prefixes: TitleRuns, where: Tensor) -> Float[Tensor, "some dim"]:
        """The vectors of the texts of the prefixes at `where`."""
        rows, starts, ends = where.nonzero()[:, 0].tolist(), prefixes.starts[where].tolist(), prefixes.ends[where]
        parts = zip(rows, starts, ends.tolist(), strict=True)
        texts = [self.wording.of_prefix(readings[row].titles[start:end]) for row, start, end in parts]
        return torch.from_numpy(self.of_texts(texts).astype(np.float32))

    def of_titles(self, readings: Sequence[ReadHistory]) -> list[Tensor]:
        """The vectors of the titles of each history, [titles, dim]; those of the catalogue are from items.npy."""
        assert self.items is not None
        found = [torch.from_numpy(self.items[np.array(reading.numbers)].astype(np.float32)) for reading in readings]
        places = [(row, place) for row, each in enumerate(readings) for place, own in enumerate(each.own) if own]
        if places:
            own = self.of_texts([self.wording.of_item(readings[row].titles[place]) for row, place in places])
            for (row, place), vector in zip(places, own, strict=True):
                found[row][place] = torch.from_numpy(vector.astype(np.float32))
        return found

    def of_texts(self, texts: Sequence[str]) -> Float16[np.ndarray, "texts dim"]:
        """The vectors of texts, all new ones encoded together."""
        asked = {text: self.kept.get(text) for text in texts}
        new = [text for text, vector in asked.items() if vector is None]
        found = {text: vector for text, vector in asked.items() if vector is not None}
        if new:
            vectors = encoded(self.opened(), new, Budget(SERVING_TOKENS)).vectors
            self.encoded += len(new)
            for text, vector in zip(new, vectors, strict=True):
                found[text] = vector.copy()  # a view would hold all others in memory
                self.kept.keep(text, found[text])
        return np.stack([found[text] for text in texts])

    def opened(self) -> Encoder:
        """The encoder, loaded when it is first asked for, and computing as in training."""
        with self._opening:
            if self._encoder is None:
                if self.spec is None:
                    raise UserError("the model's masks need the text encoder that it was trained with; none was given")
                dtype = pick_dtype(self.encodings["computed_in"], torch.device("cpu"))
                self._encoder = open_encoder(self.spec, torch.device("cpu"), dtype, separator_of(self.encodings))
            return self._encoder


def means(titles: Sequence[Tensor], prefixes: TitleRuns) -> Float[Tensor, "batch time dim"]:
    """The mean of each prefix's vectors, summed newest first and rounded to float16, as `encode` writes it."""
    vectors = torch.nn.utils.rnn.pad_sequence(list(titles), batch_first=True)
    lengths, rows = prefixes.ends - prefixes.starts, torch.arange(len(vectors))[:, None]
    sums = vectors.new_zeros(*lengths.shape, vectors.shape[2])
    for back in range(int(lengths.max())):
        own = vectors[rows, (prefixes.ends - 1 - back).clamp(min=0)]
        sums += own.where((lengths > back)[..., None], 0)
    return (sums / lengths.clamp(min=1)[..., None]).half().float()


def reads_texts(model: torch.nn.Module) -> bool:
    """Whether a model's recommendations depend on texts of histories."""
    return isinstance(model, IADSR) and model.masks_at_test
