"""What is timed: a model with its data, one epoch or one ranking at a time. Only here do benchmarks use the library.

Each public function but `synthetic` is a generator for `processes.Child`: a warm-up comes first, and every item that it
yields carries what was measured since the item before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks import machine
from benchmarks.multiply_adds import Load, Shape
from iadsr.device import dtype_name, pick_device, set_threads
from iadsr.layers.jagged import length_groups
from iadsr.layers.linear import ROWS
from iadsr.models.assembly import build, configured
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.ranking import rank_targets
from iadsr.models.recommender import Recommender
from iadsr.params import group
from iadsr.schemas import TEST, TRAIN
from iadsr.sequences.text_vectors import ItemVectors, PrefixVectors
from iadsr.sequences.windows import Batch, Feed, Sequences, Windows, read_sequences
from iadsr.train.checkpoint import Progress
from iadsr.train.fit import TrainParams, start, train_epoch
from stages import paths

Item = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class PartFeed(Feed):
    """Windows of every n-th user alone, since neighbours in a file may be alike (None: of all)."""

    some: int | None = None  # users

    def shuffled(self, windows: Windows, size: int, generator: torch.Generator) -> Iterator[Batch]:
        if self.some is not None:
            users = self.sequences.users
            count = min(self.some, users)
            chosen = torch.arange(count, device=windows.starts.device) * users // count
            owners = torch.searchsorted(self.sequences.offsets, windows.starts, right=True) - 1
            windows = windows[torch.isin(owners, chosen).nonzero().flatten()]
        yield from super().shuffled(windows, size, generator)


@dataclass(frozen=True)
class CountingFeed(PartFeed):
    """A feed that notes what its batches hold; counting takes time, so it feeds the warm-up alone."""

    loads: list[Load] = field(default_factory=list)

    def batch(self, windows: Windows) -> Batch:
        batch = super().batch(windows)
        self.loads.append(load_of(batch))
        return batch

    def total(self) -> Load:
        return sum(self.loads, Load())


def load_of(batch: Batch) -> Load:
    """What one batch holds."""
    lengths = batch.valid.sum(1)
    windows, tokens = len(lengths), int(lengths.sum())
    return Load(
        windows=windows,
        places=batch.valid.numel(),
        grouped=sum(group.valid.numel() for group in length_groups(batch.valid)[1]),
        rows=-(-tokens // ROWS) * ROWS,
        tokens=tokens,
        pairs=int((lengths * (lengths + 1) // 2).sum()),
        examples=int((batch.targets > 0).sum()),
        contrasts=(tokens - windows) ** 2 + windows**2,
    )


@dataclass(frozen=True)
class Workload:
    """A fresh model, its data and its settings, on the device and threads that the parameters name."""

    model: Recommender
    feed: Feed
    settings: TrainParams
    config: ModelConfig
    progress: Progress

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def epoch(self, feed: Feed) -> Item:
        """One epoch over what `feed` holds: seconds, peak memory, and the figures that training reports."""
        arguments = (self.model, feed, self.settings, self.config.max_length, self.progress)
        figures, measured = self.timed(train_epoch, *arguments)
        return measured | {"figures": figures}

    def ranking(self, feed: Feed) -> Item:
        """The rank of the test item of every user of `feed`."""
        self.model.eval()
        return self.timed(rank_targets, self.model, feed, TEST, self.config.max_length)[1]

    def timed(self, work: Callable[..., T], *arguments: Any) -> tuple[T, Item]:
        """The result of `work`, and what it took."""
        machine.finish(self.device)
        began = time.perf_counter()
        result = work(*arguments)
        machine.finish(self.device)
        seconds = time.perf_counter() - began
        return result, {"seconds": seconds, "peak_memory_bytes": machine.peak_memory(self.device)}

    def described(self, load: Load) -> Item:
        """The warm-up's item: what is measured."""
        plain = self.config.encodings is None
        return {
            "load": load,
            "shape": Shape(
                self.config.backbone,
                self.config.backbone_params,
                self.config.item_count,
                self.config.dim,
                0 if plain else self.config.encodings["dim"],  # type: ignore[index]  # not plain
                self.model.settings.negatives,
                self.config.denoiser,
            ),
            "machine": machine.described(self.device),
            "matmul_dtype": dtype_name(self.model.settings.matmul_dtype),
        }


def opened(content: Item, folder: Path) -> Workload:
    """The workload that `content` asks for, on the data set that `prepared` has made in `folder`."""
    sequences = read_sequences(folder / paths.SEQUENCES)
    traits = DENOISERS[content["denoiser"]].traits
    kind = PrefixVectors if traits.reads_prefix_texts else ItemVectors
    vectors = kind(folder / paths.ENCODED) if traits.reads_texts else None
    return assembled(content, sequences, sequences.item_count, vectors)


def assembled(content: Item, sequences: Sequences, item_count: int, vectors: ItemVectors | None = None) -> Workload:
    """A workload, put together as the stage `train` does it."""
    settings = group(content, "train", TrainParams)
    set_threads(settings.threads, "train.threads")
    device = pick_device(settings.device, "train.device")
    manifest = vectors.manifest if vectors else None
    config = configured(content, settings.dim, sequences.users, item_count, manifest)
    model = build(config, Feed(sequences, vectors)).to(device)
    progress = start(model, settings, config.seed)
    feed = Feed(sequences.to(device), vectors)
    return Workload(model, feed, settings, config, progress)


def training_epochs(content: Item, folder: Path, users: int | None = None) -> Iterator[Item]:
    """Yield the description with the figures of the warm-up, then an epoch at a time, without end.

    The epochs are over `users` users (None: over all), with the model at full size.
    """
    work = opened(content, folder)
    yield from passes(replace(work, feed=PartFeed(work.feed.sequences, work.feed.vectors, users)), work.epoch)


def rankings(content: Item, folder: Path) -> Iterator[Item]:
    """Yield the description, then a full ranking of all test users at a time, without end."""
    work = opened(content, folder)
    yield from passes(work, work.ranking)


def passes(work: Workload, run: Callable[[Feed], Item]) -> Iterator[Item]:
    """The first pass is the warm-up, and counts what the batches hold."""
    counting = CountingFeed(**vars(work.feed))
    warm_up = run(counting)
    yield work.described(counting.total()) | warm_up
    while True:
        yield run(work.feed)


# --- one example at a time, as in frameworks that store every prefix as a row of its own ---


def prefix_batches(content: Item, folder: Path, size: int) -> Iterator[Item]:
    """Yield one training step at a time: `size` prefixes, each a padded row with a loss at its newest item alone."""
    work = opened(content, folder)
    prefixes = every_prefix(work.feed.sequences, work.config.max_length)
    order = torch.randperm(len(prefixes), generator=work.progress.order).to(work.device)
    work.model.train()
    warm_up = True
    while True:
        for numbers in order.split(size)[: max(1, len(order) // size)]:  # whole batches, where there is one
            yield one_step(work, prefixes[numbers]) | (work.described(Load()) if warm_up else {})
            warm_up = False


def one_step(work: Workload, prefixes: Windows) -> Item:
    """One step as in `train_epoch`, from the making of the batch to the optimiser's step."""

    def step() -> Batch:
        batch = newest_targets(work.feed.batch(prefixes))
        total = torch.stack(list(work.model.loss(batch).values())).sum()
        for optimizer in work.progress.optimizers:
            optimizer.zero_grad(set_to_none=True)
        total.backward()
        for optimizer in work.progress.optimizers:
            optimizer.step()
        total.item()
        return batch

    batch, measured = work.timed(step)
    return measured | {"load": load_of(batch)}


def every_prefix(sequences: Sequences, max_length: int) -> Windows:
    """A window for each training example: the newest `max_length` items of a prefix that has a next training item."""
    begins, ends = sequences.offsets[:-1], sequences.history_ends(TRAIN)
    counts = (ends - begins - 1).clamp(min=0)
    owner = torch.repeat_interleave(torch.arange(len(begins), device=begins.device), counts)
    newest = torch.arange(len(owner), device=begins.device) - (counts.cumsum(0) - counts)[owner] + begins[owner]
    starts = torch.maximum(begins[owner], newest + 1 - max_length)
    return Windows(starts, newest + 1 - starts, newest + 2)


def newest_targets(batch: Batch) -> Batch:
    """The same windows with no target but that of the newest item."""
    places = torch.arange(batch.items.shape[1], device=batch.items.device)
    return replace(batch, targets=torch.where(places == batch.last[:, None], batch.targets, 0))


# --- growth: generated users and items, and as large a part of them as the time allows ---

SHORTEST, LONGEST, MEDIAN_MORE, SPREAD = 5, 200, 1.9, 1.3  # lengths as on Beauty: median 6, mean 9, 90% below 15
FLATTENED, EXPONENT = 10, 0.6  # (rank + 10)^-0.6: the most popular items of Beauty have 0.2% of all interactions
PILOT = 8  # batches


def synthetic(users: int, items: int, seed: int = 0) -> Sequences:
    """Histories with the lengths of Beauty and items by a Zipf-Mandelbrot law; items carry no order of popularity."""
    generator = torch.Generator().manual_seed(seed)
    more = (torch.randn(users, generator=generator) * SPREAD).exp() * MEDIAN_MORE
    lengths = (SHORTEST + more.long()).clamp(max=LONGEST)
    weights = (torch.arange(items, dtype=torch.float64) + 1 + FLATTENED) ** -EXPONENT
    ranks = torch.multinomial(weights, int(lengths.sum()), replacement=True, generator=generator)
    names = torch.randperm(items, generator=generator) + 1
    return Sequences(names[ranks], torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]))


def first_users(sequences: Sequences, count: int) -> Sequences:
    """The same data set with its first `count` users alone."""
    return Sequences(sequences.items[: int(sequences.offsets[count])], sequences.offsets[: count + 1])


def growth_point(content: Item, users: int, items: int, limit: float) -> Iterator[Item]:
    """Yield the times and the memory of an epoch and of a ranking on a given number of generated users and items.

    What would take longer than `limit` seconds is timed on a part of the users and extrapolated: users are drawn alike,
    so each costs the same. A part of an epoch is an epoch over fewer users, with the model at full size.
    """
    work = assembled(content, synthetic(users, items), items)
    yield work.described(Load(examples=len(every_prefix(work.feed.sequences, work.config.max_length)))) | {
        "interactions": len(work.feed.sequences.items),
        "training": extrapolated(work.epoch, work, limit),
        "ranking": extrapolated(work.ranking, work, limit),
    }


def extrapolated(run: Callable[[Feed], Item], work: Workload, limit: float) -> Item:
    """Seconds of `run` over all users, from the share of them that fits `limit`; a few batches say how many fit."""
    sequences = work.feed.sequences
    few = min(sequences.users, PILOT * work.settings.batch_size)
    pilot = Feed(first_users(sequences, few))
    run(pilot)  # the warm-up
    estimate = run(pilot)["seconds"] * sequences.users / few
    count = sequences.users if estimate <= limit else max(few, int(sequences.users * limit / estimate))
    measured = run(Feed(first_users(sequences, count)))
    share = count / sequences.users
    return {**measured, "seconds": measured["seconds"] / share, "measured_share": share}
