"""Titles and prefixes -> arrays on disk: each distinct text once, sorted by length, in shards that survive a kill."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float16, Int
from pydantic import Field
from tqdm import tqdm

from iadsr.artifacts import new_memory_map, replacing_folder, text_digest, write_array, write_json
from iadsr.encoders import Encoder, EncoderParams, Tokens
from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.texts import Corpus, prefix_texts

SHARD = 2048  # texts; a kill loses at most one shard
TOKENIZED_AT_ONCE = 1024  # texts; bounds the tokenizer's memory
ROWS_AT_ONCE = 8192  # of an output array


class EncodeParams(Group):
    """`encode` of params.yaml."""

    prefixes: Literal["joint", "mean"]
    separator: str
    batch_tokens: int = Field(ge=0)
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str = "auto"
    threads: int = Field(default=0, ge=0)

    def budget(self, device: str) -> int:
        """Tokens in a batch; chosen here, a CPU's batch stays within its caches (1024: 1.4 times 8192's speed)."""
        return self.batch_tokens or (1024 if device == "cpu" else 16384)


@dataclass(frozen=True)
class Recipe:
    """All that params.yaml says about the vectors: the encoder's name and parameters, and how prefixes are cut."""

    name: str
    spec: EncoderParams
    settings: EncodeParams
    max_length: int


@dataclass(frozen=True)
class Counts:
    """What was encoded: texts asked for, distinct ones, their tokens, and how many distinct ones were cut."""

    texts: int
    distinct_texts: int
    tokens: int
    truncated_texts: int


def write_encoded(folder: Path, corpus: Corpus, encoder: Encoder, recipe: Recipe, work: Path) -> Counts:
    """Encode all titles and prefixes of `corpus` into `folder`, which appears whole or not at all.

    items.npy [items + 1, dim] float16: row i is item i's title (Eq. 3), row 0 is zeros.
    prefixes.npy [distinct, dim] float16: the prefixes (Eq. 4-5), in the order of their first row.
    rows.npy [rows] int32: the row of prefixes.npy for each row of the sequences, -1 where no split may use it.
    manifest.json: how they were made. Until then finished shards stay in `work`, from where the next run goes on.
    """
    joint = recipe.settings.prefixes == "joint"
    prefixes: Iterable[str] = prefix_texts(corpus, recipe.max_length, recipe.settings.separator) if joint else ()
    texts, numbers = distinct(chain(corpus.titles, prefixes))
    tokens = tokenized(encoder, texts)
    counts = Counts(len(numbers), len(texts), _total(tokens), sum(each.truncated for each in tokens))
    shards = Shards(work, _key(recipe, encoder), texts, tokens)
    vectors = shards.encode(encoder, recipe.settings.budget(encoder.device.type))
    of_item, of_prefix = np.split(numbers, [len(corpus.titles)])
    with replacing_folder(folder) as new:
        _write_items(new, vectors, of_item)
        if joint:
            _write_prefixes(new, corpus, vectors, of_prefix)
        else:
            _write_means(new, corpus, recipe.max_length)
        write_json(new / "manifest.json", manifest(recipe, encoder, counts))
    shards.remove()
    return counts


def manifest(recipe: Recipe, encoder: Encoder, counts: Counts) -> dict[str, Any]:
    """What the arrays hold and how they were made; nothing in it differs between two runs on the same input."""
    return {
        **described(recipe.name, recipe.spec),
        **asdict(counts),
        "prefixes": recipe.settings.prefixes,
        "separator": recipe.settings.separator,
        "max_length": recipe.max_length,
        "dim": encoder.dim,
        "computed_in": encoder.dtype,
        "dtype": "float16",
    }


def described(name: str, spec: EncoderParams) -> dict[str, Any]:
    """An encoder's name and parameters as the manifest keeps them."""
    values = spec.model_dump()
    adapters = [_portable(adapter) for adapter in values.get("adapters", [])]
    return {**values, "encoder": name, "model": _portable(spec.model), "adapters": adapters}


def _portable(model: str) -> str:
    """A folder's own name in place of its path, which would differ from machine to machine."""
    return Path(model).name if Path(model).is_absolute() else model


def _key(recipe: Recipe, encoder: Encoder) -> str:
    """Differs between any two ways to compute, so that no shard of one is taken for the other's."""
    device = encoder.device.type
    budget = str(recipe.settings.budget(device))
    return text_digest(recipe.spec.model_dump_json(), encoder.fingerprint, encoder.dtype, device, budget)


def _total(tokens: Iterable[Tokens]) -> int:
    return sum(len(each.ids) for each in tokens)


def distinct(texts: Iterable[str]) -> tuple[list[str], Int[np.ndarray, " texts"]]:
    """The distinct texts in the order of their first appearance, and the number of each text among them."""
    seen: dict[str, int] = {}
    numbers = [seen.setdefault(text, len(seen)) for text in texts]
    return list(seen), np.asarray(numbers, dtype=np.int64)


def tokenized(encoder: Encoder, texts: Sequence[str]) -> list[Tokens]:
    """Tokens of each text; a minute or two for 150,000 prefixes, so it shows that it lives."""
    tokens: list[Tokens] = []
    with _progress("tokenize", "text", len(texts)) as bar:
        for start in range(0, len(texts), TOKENIZED_AT_ONCE):
            tokens += encoder.tokenize(texts[start : start + TOKENIZED_AT_ONCE])
            bar.update(len(tokens) - start)
    return tokens


def batches(lengths: Sequence[int], budget: int) -> Iterator[slice]:
    """Cut ascending `lengths` into runs of at most `budget` tokens, padding included; a longer text stands alone."""
    start = 0
    for stop, length in enumerate(lengths):
        if stop > start and (stop + 1 - start) * length > budget:
            yield slice(start, stop)
            start = stop
    if start < len(lengths):
        yield slice(start, len(lengths))


class Shards:
    """Vectors of distinct texts, computed shortest text first and kept on disk, one .npy file a shard.

    A shard's bytes depend only on its texts and on the encoder, so a run that was killed goes on where it stopped and
    ends with the same files.
    """

    def __init__(self, work: Path, key: str, texts: Sequence[str], tokens: Sequence[Tokens]) -> None:
        self.texts, self.tokens = texts, tokens
        self.order = sorted(range(len(texts)), key=lambda number: (len(tokens[number].ids), texts[number]))
        self.folder = work / text_digest(key, str(SHARD), *(texts[number] for number in self.order))[:16]

    def encode(self, encoder: Encoder, budget: int) -> Float16[np.ndarray, "texts dim"]:
        """Vectors in the order of `texts`, as a memory map; only shards that no earlier run finished are computed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with _progress("encode", "token", _total(self.tokens)) as bar:
            for start in range(0, len(self.order), SHARD):
                self._finish(self.order[start : start + SHARD], self._path(start), encoder, budget, bar.update)
        return self._gathered(encoder.dim)

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def _path(self, start: int) -> Path:
        return self.folder / f"{start // SHARD:06d}.npy"

    def _finish(
        self, numbers: list[int], path: Path, encoder: Encoder, budget: int, advance: Callable[[int], object]
    ) -> None:
        texts, tokens = [self.texts[number] for number in numbers], [self.tokens[number] for number in numbers]
        if path.exists():
            advance(_total(tokens))
        else:
            write_array(path, encoded(encoder, texts, tokens, budget, advance))

    def _gathered(self, dim: int) -> Float16[np.ndarray, "texts dim"]:
        shape = (len(self.order), dim)
        vectors = new_memory_map(self.folder / "all.npy", shape, np.float16)
        for start in range(0, len(self.order), SHARD):
            vectors[self.order[start : start + SHARD]] = np.load(self._path(start))
        return vectors


def encoded(
    encoder: Encoder,
    texts: Sequence[str],
    tokens: Sequence[Tokens],
    budget: int,
    advance: Callable[[int], object] = lambda count: None,
) -> Float16[np.ndarray, "texts dim"]:
    """Vectors of texts that are sorted by length, batch by batch; UserError names a text that float16 cannot hold."""
    parts = []
    for batch in batches([len(each.ids) for each in tokens], budget):
        parts.append(_half(encoder.vectors(tokens[batch]), texts[batch]))
        advance(_total(tokens[batch]))
    return np.concatenate(parts)


def _half(vectors: Float[np.ndarray, "batch dim"], texts: Sequence[str]) -> Float16[np.ndarray, "batch dim"]:
    with np.errstate(over="ignore"):  # an overflow is infinite, and reported below with its text
        half = vectors.astype(np.float16)
    wrong = np.flatnonzero(~np.isfinite(half).all(axis=1))
    if len(wrong):
        worst, text = np.abs(vectors[wrong[0]]).max(), texts[wrong[0]]
        raise UserError(
            f"the vector of a text is not finite in float16 (largest value {worst:g}): {text[:200]!r}; "
            "set encode.dtype to float32, or choose another encoder"
        )
    return half


def _progress(doing: str, unit: str, total: int) -> tqdm[None]:
    seconds = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants few lines
    return tqdm(total=total, desc=doing, unit=unit, unit_scale=True, mininterval=seconds)


def _write_items(folder: Path, vectors: Float16[np.ndarray, "texts dim"], of_item: Int[np.ndarray, " items"]) -> None:
    zeros = np.zeros((1, vectors.shape[1]), dtype=np.float16)
    write_array(folder / "items.npy", np.concatenate([zeros, vectors[of_item]]))


def _write_prefixes(
    folder: Path, corpus: Corpus, vectors: Float16[np.ndarray, "texts dim"], of_prefix: Int[np.ndarray, " usable"]
) -> None:
    values, first, inverse = np.unique(of_prefix, return_index=True, return_inverse=True)
    order = np.argsort(first)  # neighbours in the sequences stay neighbours on disk
    _write_rows(folder, corpus, np.argsort(order)[inverse])
    numbers = values[order]
    _write_parts(folder, len(numbers), vectors.shape[1], lambda part: vectors[numbers[part]])


def _write_means(folder: Path, corpus: Corpus, max_length: int) -> None:
    items, rows = np.load(folder / "items.npy", mmap_mode="r"), np.flatnonzero(corpus.usable)
    _write_rows(folder, corpus, np.arange(len(rows)))
    _write_parts(folder, len(rows), items.shape[1], lambda part: prefix_means(items, corpus, max_length, rows[part]))


def prefix_means(
    vectors: Float16[np.ndarray, "items dim"], corpus: Corpus, max_length: int, rows: Int[np.ndarray, " some"]
) -> Float16[np.ndarray, "some dim"]:
    """Mean of the vectors of the newest `max_length` items up to each of `rows`, summed in float32, newest first."""
    lengths = np.minimum(corpus.positions[rows] + 1, max_length)
    sums = np.zeros((len(rows), vectors.shape[1]), dtype=np.float32)
    for back in range(int(lengths.max(initial=0))):
        reach = np.flatnonzero(lengths > back)
        sums[reach] += vectors[corpus.items[rows[reach] - back]]
    return (sums / lengths[:, None]).astype(np.float16)


def _write_rows(folder: Path, corpus: Corpus, of_usable: Int[np.ndarray, " usable"]) -> None:
    rows = np.full(len(corpus.items), -1, dtype=np.int32)
    rows[corpus.usable] = of_usable
    write_array(folder / "rows.npy", rows)


def _write_parts(folder: Path, rows: int, dim: int, part: Callable[[slice], np.ndarray]) -> None:
    """Write prefixes.npy piece by piece: it may be larger than the memory."""
    array = new_memory_map(folder / "prefixes.npy", (rows, dim), np.float16)
    for start in range(0, rows, ROWS_AT_ONCE):
        array[start : start + ROWS_AT_ONCE] = part(slice(start, start + ROWS_AT_ONCE))
    array.flush()
