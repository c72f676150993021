"""Titles and prefixes -> arrays on disk: each distinct text once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float16, Int

from iadsr.artifacts import new_memory_map, replacing_folder, write_array
from iadsr.encode.batches import Encoded, prefix_means
from iadsr.encode.cache import DamagedShard, Plan, Store, locked
from iadsr.encode.fill import Engine, LazyEncoder, all_texts, distinct, fill, in_this_process, store_of
from iadsr.encode.recipe import Recipe, manifest
from iadsr.encode.texts import Corpus
from iadsr.provenance import digest_of, write_sealed

ROWS_AT_ONCE = 8192  # of an output array


@dataclass(frozen=True)
class TextCounts:
    """What was encoded: texts asked for, distinct ones, their tokens, and how many distinct ones were cut."""

    texts: int
    distinct_texts: int
    tokens: int
    truncated_texts: int


class Written(NamedTuple):
    """What was written: the counts, how many of the distinct texts were in no shard before, and the vectors' width."""

    counts: TextCounts
    new_texts: int
    dim: int


def write_encoded(
    folder: Path, corpus: Corpus, lazy: LazyEncoder, recipe: Recipe, work: Path, engine: Engine | None = None
) -> Written:
    """Encode the titles of `corpus`, and prefixes if they are read, into `folder`, which appears whole or not at all.

    items.npy [items + 1, dim] float16: row i is item i's title (Eq. 3), row 0 is zeros.
    prefixes.npy [distinct, dim] float16: the prefixes (Eq. 4-5), in the order of their first row.
    rows.npy [rows] int32: the row of prefixes.npy for each row of the sequences, -1 where no split may use it.
        Where the denoiser reads no prefixes, neither of the two is there, not even from before.
    manifest.json: how they were made, and the checksums of the arrays; these agree in two runs whose batches held the
    same texts, that is where the store held the same before, on equal hardware.

    What was encoded stays in `work`, a store of vectors by text: a run that was killed goes on from there, and other
    texts of the same encoder cost only what is new in them.
    """
    texts, numbers = distinct(all_texts(corpus, recipe))
    store = store_of(work, lazy.identity)
    plan = store.plan(texts)
    new = sum(len(plan.shards[number]) for number in plan.pending())
    (engine or in_this_process())(plan, lazy)
    with locked(work / "writing"), scratch_file(work) as scratch:
        found = gathered(store, plan, lazy, scratch)
        counts = TextCounts(len(numbers), len(texts), int(found.tokens.sum()), int(found.truncated.sum()))
        write_arrays(folder, corpus, recipe, found, numbers, {**asdict(counts), **_computed_by(lazy)})
    return Written(counts, new, found.vectors.shape[1])


def gathered(store: Store, plan: Plan, lazy: LazyEncoder, scratch: Path) -> Encoded:
    """What the shards hold for the plan's texts; those of a shard that turns out to be damaged are encoded again."""
    try:
        return store.gathered(plan.digests, scratch, plan.folder)
    except DamagedShard:
        fill(store.plan(plan.texts), lazy)
        return store.gathered(plan.digests, scratch, plan.folder)


def write_arrays(
    folder: Path,
    corpus: Corpus,
    recipe: Recipe,
    found: Encoded,
    numbers: Int[np.ndarray, " asked"],
    described_by: dict[str, Any],
) -> None:
    """Write the arrays; `numbers` tells which text in `found` each title is, then each prefix."""
    of_item, of_prefix = np.split(numbers, [len(corpus.titles)])
    with replacing_folder(folder) as into:
        _write_items(into, found.vectors, of_item)
        if recipe.prefixes_are_texts:
            _write_prefixes(into, corpus, found.vectors, of_prefix)
        elif recipe.prefixes == "mean":
            _write_means(into, corpus, recipe.max_length)
        sums = {path.name: digest_of(path) for path in sorted(into.iterdir())}
        shape = {"dim": found.vectors.shape[1], "dtype": "float16", "sha256": sums, "inputs": corpus.made_from}
        write_sealed(into / "manifest.json", manifest(recipe) | described_by | shape)


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    path = folder / "gathered.npy"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _computed_by(lazy: LazyEncoder) -> dict[str, Any]:
    return {"revision": lazy.identity["revision"], "computed_in": lazy.identity["dtype"]}


def _write_items(folder: Path, vectors: Float16[np.ndarray, "texts dim"], of_item: Int[np.ndarray, " items"]) -> None:
    array = new_memory_map(folder / "items.npy", (len(of_item) + 1, vectors.shape[1]), np.float16)
    for start in range(0, len(of_item), ROWS_AT_ONCE):  # row 0 stays zeros
        array[1 + start : 1 + start + ROWS_AT_ONCE] = vectors[of_item[start : start + ROWS_AT_ONCE]]
    array.flush()


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
