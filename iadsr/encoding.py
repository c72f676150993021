"""Titles and prefixes -> arrays on disk: each distinct text once, whatever happens meanwhile."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float16, Int
from pydantic import Field, model_validator
from tqdm import tqdm

from iadsr import encoders
from iadsr.artifacts import file_digest, new_memory_map, replacing_folder, write_array, write_json
from iadsr.encoders import Encoder, EncoderParams, Tokens
from iadsr.encoders.prefix_sharing import METHOD
from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.text_encoding import Budget, Encoded, encoded
from iadsr.texts import TITLE_MARK, TITLES_MARK, Corpus, Wording, prefix_texts
from iadsr.vector_store import Claim, DamagedShard, Plan, Store, locked

T = TypeVar("T")
ROWS_AT_ONCE = 8192  # of an output array
SHARED = "shared"  # of a source's identity, where it computes texts together


class EncodeParams(Group):
    """`encode` of params.yaml."""

    prefixes: Literal["joint", "shared", "mean"]
    item_template: str = TITLE_MARK
    prefix_template: str = TITLES_MARK
    separator: str
    batch_tokens: int = Field(ge=0)
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str = "auto"
    threads: int = Field(default=0, ge=0)
    engine: Literal["local", "ray"] = "local"
    actors: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _marks_are_there(self) -> EncodeParams:
        for name, mark in (("item_template", TITLE_MARK), ("prefix_template", TITLES_MARK)):
            if mark not in getattr(self, name):
                raise ValueError(f"{name} has no {mark}, where the text of the data goes")
        ends, times = self.prefix_template.endswith(TITLES_MARK), self.prefix_template.count(TITLES_MARK)
        if self.prefixes == "shared" and not (self.separator and ends and times == 1):
            raise ValueError(
                f"prefixes: shared needs a separator, and a prefix_template that ends with {TITLES_MARK} and has it "
                "once: the text of a prefix must begin that of the next one"
            )
        if self.prefixes == "shared" and self.separator in self.item_template:
            raise ValueError("prefixes: shared needs an item_template without the separator: items are to be exact")
        return self

    @property
    def templates(self) -> dict[str, str]:
        """What decides the texts, as the manifest keeps it."""
        return {name: getattr(self, name) for name in ("item_template", "prefix_template", "separator")}

    @property
    def wording(self) -> Wording:
        return wording_of(self.templates)

    @property
    def sharing_separator(self) -> str:
        """The separator behind which texts go on that are computed together; empty: each is computed by itself."""
        return separator_of({"prefixes": self.prefixes, **self.templates})

    def budget(self, device: str) -> int:
        """Tokens in a batch; chosen here, a CPU's batch stays within its caches (1024: 1.4 times 8192's speed)."""
        return self.batch_tokens or (1024 if device == "cpu" else 16384)


def wording_of(manifest: dict[str, Any]) -> Wording:
    return Wording(manifest["item_template"], manifest["prefix_template"], manifest["separator"])


def separator_of(manifest: dict[str, Any]) -> str:
    """For `open_encoder`."""
    separator: str = manifest["separator"] if manifest["prefixes"] == "shared" else ""
    return separator


@dataclass(frozen=True)
class Recipe:
    """All that params.yaml says about the vectors: the encoder's name and parameters, and how prefixes are cut."""

    name: str
    spec: EncoderParams
    settings: EncodeParams
    max_length: int

    def __post_init__(self) -> None:
        if self.settings.sharing_separator and self.spec.pooling == "cls":
            raise UserError(
                f"params.yaml: encode.prefixes: shared, but encoders.{self.name}.pooling is cls, and the first token "
                "sees the first item alone; use pooling: mean, or prefixes: joint"
            )

    @property
    def prefixes_are_texts(self) -> bool:
        return self.settings.prefixes != "mean"


@dataclass(frozen=True)
class Counts:
    """What was encoded: texts asked for, distinct ones, their tokens, and how many distinct ones were cut."""

    texts: int
    distinct_texts: int
    tokens: int
    truncated_texts: int


class Written(NamedTuple):
    """What was written: the counts, how many of the distinct texts were in no shard before, and the vectors' width."""

    counts: Counts
    new_texts: int
    dim: int


@runtime_checkable
class Source(Protocol):
    """An encoder that is opened only where something must be computed: weights are large."""

    identity: dict[str, Any]  # differs between any two ways to compute

    def open(self) -> Encoder:
        """The same one at every call."""
        ...

    def budget(self) -> Budget:
        """For a batch, on its device."""
        ...


class Weights:
    """The encoder of a recipe, loaded when it is first asked for."""

    def __init__(self, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
        """UserError for weights that are not to be had, or do not fit the encoder's kind."""
        self.recipe, self.device, self.dtype = recipe, device, dtype
        known = encoders.identity(recipe.spec)
        self.identity = {
            **{key: value for key, value in described(recipe.name, recipe.spec).items() if key != "encoder"},
            "weights": known.fingerprint,
            "revision": known.revision,
            "dtype": str(dtype).removeprefix("torch."),
            "device": device.type,
        }
        if recipe.settings.sharing_separator:
            self.identity[SHARED] = {"separator": recipe.settings.sharing_separator, "method": METHOD}
        self._encoder: Encoder | None = None
        self._opening = threading.Lock()  # a shard is tokenized while another is computed

    def open(self) -> Encoder:
        with self._opening:
            if self._encoder is None:
                separator = self.recipe.settings.sharing_separator
                self._encoder = encoders.open_encoder(self.recipe.spec, self.device, self.dtype, separator)
            return self._encoder

    def budget(self) -> Budget:
        return Budget(self.recipe.settings.budget(self.device.type))


Engine = Callable[[Plan, Source], object]


def in_this_process(ranks: int = 1) -> Engine:
    """The engine `local`: this process, the first of so many."""
    return lambda plan, source: fill(plan, source, 0, ranks)


def all_texts(corpus: Corpus, recipe: Recipe) -> Iterator[str]:
    """What must be encoded: the titles, and behind them the prefixes unless they are means."""
    wording = recipe.settings.wording
    yield from map(wording.of_item, corpus.titles)
    if recipe.prefixes_are_texts:
        yield from prefix_texts(corpus, recipe.max_length, wording)


def write_encoded(
    folder: Path, corpus: Corpus, source: Source, recipe: Recipe, work: Path, engine: Engine | None = None
) -> Written:
    """Encode all titles and prefixes of `corpus` into `folder`, which appears whole or not at all.

    items.npy [items + 1, dim] float16: row i is item i's title (Eq. 3), row 0 is zeros.
    prefixes.npy [distinct, dim] float16: the prefixes (Eq. 4-5), in the order of their first row.
    rows.npy [rows] int32: the row of prefixes.npy for each row of the sequences, -1 where no split may use it.
    manifest.json: how they were made, and the checksums of the arrays.

    What was encoded stays in `work`, a store of vectors by text: a run that was killed goes on from there, and other
    texts of the same encoder cost only what is new in them.
    """
    texts, numbers = distinct(all_texts(corpus, recipe))
    store = store_of(work, source.identity)
    plan = store.plan(texts)
    new = sum(len(plan.shards[number]) for number in plan.pending())
    (engine or in_this_process())(plan, source)
    with locked(work / "writing"), scratch_file(work) as scratch:
        try:
            found = store.gathered(plan.digests, scratch, plan.folder)
        except DamagedShard:
            plan = store.plan(texts)
            fill(plan, source)
            found = store.gathered(plan.digests, scratch, plan.folder)
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):  # by a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        counts = Counts(len(numbers), len(texts), int(found.tokens.sum()), int(found.truncated.sum()))
        of_item, of_prefix = np.split(numbers, [len(corpus.titles)])
        with replacing_folder(folder) as into:
            _write_items(into, found.vectors, of_item)
            if recipe.prefixes_are_texts:
                _write_prefixes(into, corpus, found.vectors, of_prefix)
            else:
                _write_means(into, corpus, recipe.max_length)
            sums = {path.name: file_digest(path) for path in sorted(into.iterdir())}
            write_json(into / "manifest.json", manifest(recipe, source.identity, counts, found, sums))
    return Written(counts, new, found.vectors.shape[1])


def store_of(work: Path, identity: dict[str, Any]) -> Store:
    """Of the vectors that a source makes; texts that are computed together are to stand in one shard."""
    return Store(work, identity, alphabetical=SHARED in identity)


def write_share(corpus: Corpus, source: Source, recipe: Recipe, work: Path, rank: int, ranks: int) -> Path:
    """Encode only, as one of several processes, into the store that is returned; the first one writes the arrays.

    Processes with other weights, versions or number formats fill other stores, and so work for nothing.
    """
    store = store_of(work, source.identity)
    fill(store.plan(distinct(all_texts(corpus, recipe))[0]), source, rank, ranks)
    return store.folder


@contextmanager
def scratch_file(folder: Path) -> Iterator[Path]:
    path = folder / "gathered.npy"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def manifest(
    recipe: Recipe, identity: dict[str, Any], counts: Counts, found: Encoded, checksums: dict[str, str]
) -> dict[str, Any]:
    """What the arrays hold and how they were made.

    Nothing in it names this machine or this day. The checksums of two runs agree where batches held the same texts:
    where the same was in the store before, on equal hardware.
    """
    return {
        **described(recipe.name, recipe.spec),
        **asdict(counts),
        "revision": identity["revision"],
        "prefixes": recipe.settings.prefixes,
        **recipe.settings.templates,
        "max_length": recipe.max_length,
        "dim": found.vectors.shape[1],
        "computed_in": identity["dtype"],
        "dtype": "float16",
        "sha256": checksums,
    }


def described(name: str, spec: EncoderParams) -> dict[str, Any]:
    """An encoder's name and parameters as the manifest keeps them."""
    values = spec.model_dump()
    adapters = [_portable(adapter) for adapter in values.get("adapters", [])]
    return {**values, "encoder": name, "model": _portable(spec.model), "adapters": adapters}


def _portable(model: str) -> str:
    """A folder's own name in place of its path, which would differ from machine to machine."""
    return Path(model).name if Path(model).is_absolute() else model


def distinct(texts: Iterable[str]) -> tuple[list[str], Int[np.ndarray, " texts"]]:
    """The distinct texts in the order of their first appearance, and the number of each text among them."""
    seen: dict[str, int] = {}
    numbers = [seen.setdefault(text, len(seen)) for text in texts]
    return list(seen), np.asarray(numbers, dtype=np.int64)


def fill(plan: Plan, source: Source, rank: int = 0, ranks: int = 1) -> None:
    """Encode in this process what is pending and unclaimed; the first rank at last sees to it that nothing is missing.

    The next shard is tokenized and the last one written while one is computed.
    """
    pending, budget = plan.pending(), source.budget()
    with _progress(plan.characters(pending)) as bar:
        with releasing() as held, ThreadPoolExecutor(1) as tokenizer, ThreadPoolExecutor(1) as writer:

            def tokenized() -> Iterator[tuple[Claim, Future[list[Tokens]]]]:
                for claim in plan.claims(rank, ranks):
                    held.append(claim)
                    yield claim, tokenizer.submit(source.open().tokenize, claim.texts)

            writing: Future[None] | None = None
            for claim, tokens in one_ahead(tokenized()):
                content = encoded(source.open(), claim.texts, budget, tokens.result(), bar.update)
                if writing:
                    writing.result()
                writing = writer.submit(claim.write, content)
            if writing:
                writing.result()
        if rank == 0:
            for claim in plan.left_over():
                finish(claim, source, budget, bar.update)


def finish(
    claim: Claim, source: Source, budget: Budget, advance: Callable[[int], object] = lambda characters: None
) -> None:
    """Encode and write one shard."""
    with releasing() as held:
        held.append(claim)
        claim.write(encoded(source.open(), claim.texts, budget, advance=advance))


@contextmanager
def releasing() -> Iterator[list[Claim]]:
    """Give up what is not written at the end, for others to take over."""
    held: list[Claim] = []
    try:
        yield held
    finally:
        for claim in held:
            claim.release()


def one_ahead(things: Iterable[T]) -> Iterator[T]:
    """The same, the next one always being fetched before one is handed out."""
    before: list[T] = []
    for thing in things:
        before.append(thing)
        if len(before) > 1:
            yield before.pop(0)
    yield from before


def _progress(characters: int) -> tqdm[None]:
    seconds = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants few lines
    return tqdm(total=characters, desc="encode", unit="char", unit_scale=True, mininterval=seconds)


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
