"""Missing shards -> the cache of vectors, by one process or several."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from tqdm import tqdm

from iadsr.device import dtype_name, pick_device, pick_dtype, set_threads
from iadsr.encode.batches import Budget, encoded
from iadsr.encode.cache import Claim, Plan, Store
from iadsr.encode.encoders import registry
from iadsr.encode.encoders.interface import Encoder
from iadsr.encode.encoders.prefix_sharing import METHOD
from iadsr.encode.launcher import Share
from iadsr.encode.recipe import Recipe, described
from iadsr.encode.texts import Corpus, prefix_texts

T = TypeVar("T")
SHARED = "shared"  # key in an encoder's identity, where it computes texts together


@runtime_checkable
class LazyEncoder(Protocol):
    """An encoder that is opened only where something must be computed: weights are large."""

    identity: dict[str, Any]  # differs between any two ways to compute

    def open(self) -> Encoder:
        """The encoder, the same one at every call."""
        ...

    def budget(self) -> Budget:
        """The budget for a batch on the encoder's device."""
        ...


class RecipeEncoder:
    """The encoder of a recipe, loaded when it is first asked for."""

    def __init__(self, recipe: Recipe, device: torch.device, dtype: torch.dtype) -> None:
        """UserError for weights that are not available, or do not fit the encoder's kind."""
        self.recipe, self.device, self.dtype = recipe, device, dtype
        known = registry.identity(recipe.spec)
        self.identity = {
            **{key: value for key, value in described(recipe.name, recipe.spec).items() if key != "encoder"},
            "weights": known.fingerprint,
            "revision": known.revision,
            "dtype": dtype_name(dtype),
            "device": device.type,
        }
        if recipe.sharing_separator:
            self.identity[SHARED] = {"separator": recipe.sharing_separator, "method": METHOD}
        self._encoder: Encoder | None = None
        self._opening = threading.Lock()  # a shard is tokenized while another is computed

    @classmethod
    def here(cls, recipe: Recipe, share: Share) -> RecipeEncoder:
        """An encoder on this machine's device and threads, which the recipe and this process's share determine."""
        set_threads(recipe.settings.threads, "encode.threads")
        device = pick_device(share.device(recipe.settings.device), "encode.device")
        return cls(recipe, device, pick_dtype(recipe.settings.dtype, device))

    def open(self) -> Encoder:
        with self._opening:
            if self._encoder is None:
                separator = self.recipe.sharing_separator
                self._encoder = registry.open_encoder(self.recipe.spec, self.device, self.dtype, separator)
            return self._encoder

    def budget(self) -> Budget:
        return Budget(self.recipe.settings.budget(self.device.type))


Engine = Callable[[Plan, LazyEncoder], object]


def in_this_process(ranks: int = 1) -> Engine:
    """The engine `local`: this process, the first of `ranks`."""
    return lambda plan, lazy: fill(plan, lazy, 0, ranks)


def all_texts(corpus: Corpus, recipe: Recipe) -> Iterator[str]:
    """The texts to encode: the titles, followed by the prefixes unless these are means, or not read."""
    wording = recipe.settings.wording
    yield from map(wording.of_item, corpus.titles)
    if recipe.prefixes_are_texts:
        yield from prefix_texts(corpus, recipe.max_length, wording)


def distinct(texts: Iterable[str]) -> tuple[list[str], Int[np.ndarray, " texts"]]:
    """The distinct texts in the order of their first appearance, and the number of each text among them."""
    seen: dict[str, int] = {}
    numbers = [seen.setdefault(text, len(seen)) for text in texts]
    return list(seen), np.asarray(numbers, dtype=np.int64)


def store_of(work: Path, identity: dict[str, Any]) -> Store:
    """The store of an encoder's vectors; texts that are computed together are to stand in one shard."""
    return Store(work, identity, alphabetical=SHARED in identity)


def fill_share(corpus: Corpus, lazy: LazyEncoder, recipe: Recipe, work: Path, share: Share) -> Path:
    """Only encode, as one of several processes, into the store that is returned; the first one writes the arrays.

    Processes with other weights, versions or number formats fill other stores, and so work for nothing.
    """
    store = store_of(work, lazy.identity)
    fill(store.plan(distinct(all_texts(corpus, recipe))[0]), lazy, share.rank, share.ranks)
    return store.folder


def fill(plan: Plan, lazy: LazyEncoder, rank: int = 0, ranks: int = 1) -> None:
    """Encode in this process what is pending and unclaimed; the first rank then encodes what is still missing."""
    budget = lazy.budget()
    with _progress(plan.characters(plan.pending())) as bar:
        with releasing() as held:
            overlapping(noted(plan.claims(rank, ranks), held), lazy, budget, bar.update)
        if rank == 0:
            for claim in plan.left_over():
                finish(claim, lazy, budget, bar.update)


def overlapping(claims: Iterable[Claim], lazy: LazyEncoder, budget: Budget, advance: Callable[[int], object]) -> None:
    """Encode and write shards; the next one is tokenized and the last one written while one is computed."""
    with ThreadPoolExecutor(1) as tokenizer, ThreadPoolExecutor(1) as writer:
        tokenized = ((claim, tokenizer.submit(lazy.open().tokenize, claim.texts)) for claim in claims)
        writing: Future[None] | None = None
        for claim, tokens in one_ahead(tokenized):
            content = encoded(lazy.open(), claim.texts, budget, tokens.result(), advance)
            if writing:
                writing.result()
            writing = writer.submit(claim.write, content)
        if writing:
            writing.result()


def noted(claims: Iterable[Claim], held: list[Claim]) -> Iterator[Claim]:
    """Yield the claims, putting each into `held` as it comes."""
    for claim in claims:
        held.append(claim)
        yield claim


def finish(
    claim: Claim, lazy: LazyEncoder, budget: Budget, advance: Callable[[int], object] = lambda characters: None
) -> None:
    """Encode and write one shard."""
    with releasing() as held:
        held.append(claim)
        claim.write(encoded(lazy.open(), claim.texts, budget, advance=advance))


@contextmanager
def releasing() -> Iterator[list[Claim]]:
    """At the end, give up the claims that are not written, for others to take over."""
    held: list[Claim] = []
    try:
        yield held
    finally:
        for claim in held:
            claim.release()


def one_ahead(things: Iterable[T]) -> Iterator[T]:
    """Yield the things, always fetching the next one before one is handed out."""
    before: list[T] = []
    for thing in things:
        before.append(thing)
        if len(before) > 1:
            yield before.pop(0)
    yield from before


def _progress(characters: int) -> tqdm[None]:
    seconds = 0.2 if sys.stderr.isatty() else 30.0  # a log file wants few lines
    return tqdm(total=characters, desc="encode", unit="char", unit_scale=True, mininterval=seconds)
