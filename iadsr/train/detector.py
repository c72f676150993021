"""Training of the detector: gap models of all folds, noise that it plants itself, and what its signals are worth.

A gap model never sees its fold's users. So noise that is planted into their histories is to it what their own noise is,
and it need not be trained again for it. Planted rows are examples of noise; rows of the same histories before planting
are noise by an unknown share, which is estimated. What signals are worth is learnt from all folds together: a dozen
numbers a signal, on which nobody's own rows have a say that matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from iadsr.artifacts import replacing
from iadsr.device import pick_dtype
from iadsr.errors import UserError
from iadsr.models.denoisers.cloze.detector import Detector, DetectorParams
from iadsr.models.denoisers.cloze.gap_model import GAPS, GapModel, Negatives
from iadsr.models.denoisers.cloze.signals import signals_of
from iadsr.seeds import derived_seed
from iadsr.sequences import noise_kinds
from iadsr.sequences.noise_kinds import Plants, TrainingHistories
from iadsr.sequences.windows import Feed, Sequences, moving_tiles, shortest_first, tail_tiles
from iadsr.train.source import Source, of_users
from iadsr.train.weighing import fit_weighing

RATIO = 0.2  # of planted to real rows
MOST_USERS = 10_000  # of a fold, for each kind
DONORS = 0.25  # for each user who gets a burst
JUDGED = 512  # windows at once
WARMING = 0.05  # share of the training in which the learning rate rises


class Examples(NamedTuple):
    """Signals of the rows of some users, as they are, and of noise planted into histories, by kind."""

    real: Float[Tensor, "real signals"]
    planted: dict[str, Float[Tensor, "planted signals"]]

    def numbered(self, kinds: Sequence[str]) -> tuple[Float[Tensor, "rows signals"], Int[Tensor, " rows"]]:
        """All rows, planted ones being of these kinds alone, and the place of each row's kind; -1: real."""
        parts = [self.real, *(self.planted[kind] for kind in kinds)]
        numbers = torch.arange(-1, len(kinds)).repeat_interleave(torch.tensor([len(part) for part in parts]))
        return torch.cat(parts), numbers


def together(parts: Sequence[Examples]) -> Examples:
    """Those of all folds; UserError without any kind."""
    kinds = dict.fromkeys(kind for part in parts for kind in part.planted)
    if not kinds:
        raise UserError(
            "denoisers.cloze.detector.kinds: none of these kinds of noise can be planted into this data set"
        )
    planted = {kind: torch.cat([part.planted[kind] for part in parts if kind in part.planted]) for kind in kinds}
    return Examples(torch.cat([part.real for part in parts]), planted)


class Popularity(NamedTuple):
    """Each item's share of the training rows, one being added to every count, and its logarithm; padding has none."""

    shares: Float[Tensor, " catalogue"]  # on the CPU, where items are drawn
    logarithms: Float[Tensor, " catalogue"]


def train_detector(detector: Detector, source: Source, work: Path) -> None:
    """Train all parts in place; what is finished lies in `work`, from where an interrupted training goes on.

    UserError for more folds than users, for weights that become infinite, and where no kind of noise can be planted.
    """
    whole, params = work / "detector.safetensors", detector.params
    if not whole.exists():
        users = len(source.histories.offsets) - 1
        if users < params.folds:
            raise UserError(f"denoisers.cloze.detector.folds: {params.folds}, but there are {users} users; lower it")
        fold = generator_for(params.seed, "folds").permutation(users) % params.folds
        detector.fold_of_user[1:] = torch.from_numpy(fold).to(detector.fold_of_user)
        examples = []
        for number in tqdm(range(params.folds), desc="detector", unit="fold"):
            gap_model(detector, number, of_users(source.histories, np.flatnonzero(fold != number)), work)
            judged = of_users(source.histories, np.flatnonzero(fold == number))
            examples.append(examples_of(detector, number, judged, source.categories))
        found = together(examples)
        fit_weighing(detector.weighing, *found.numbered(list(found.planted)))
        save(whole, detector)
    detector.load_state_dict(load_file(whole))
    detector.eval()


def gap_model(detector: Detector, number: int, others: TrainingHistories, work: Path) -> None:
    """Train the model of a fold on the histories of all others, or take it from `work`."""
    path = work / f"fold-{number}.safetensors"
    if not path.exists():
        texts = detector.texts.float()
        torch.manual_seed(derived_seed(detector.params.seed, f"fold {number}"))
        model = detector.fresh_model().to(texts.device)
        model.start_from(texts)
        fit_gap_model(model, others, texts, detector.params, detector.max_length)
        save(path, model)
    detector.models[number].load_state_dict(load_file(path))
    detector.models[number].eval()


def save(path: Path, part: nn.Module) -> None:
    """Write its weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        save_file({name: value.cpu().contiguous() for name, value in part.state_dict().items()}, temporary)


def fit_gap_model(
    model: GapModel, histories: TrainingHistories, texts: Tensor, params: DetectorParams, max_length: int
) -> None:
    """Every item of every history is predicted from the rest, `epochs` times; draws come from torch's generator.

    The learning rate rises over the first of the steps and falls to 0.
    """
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    model.train()
    sparse = [model.own.weight, model.bias.weight]
    dense = [each for each in model.parameters() if all(each is not other for other in sparse)]
    optimizers = [torch.optim.Adam(dense, fused=True), torch.optim.SparseAdam(sparse)]
    feed, (begins, ends) = feed_of(histories, texts.device)
    popular = popularity(feed.sequences.items, len(texts))
    for epoch in range(params.epochs):
        windows = moving_tiles(begins, ends, max_length, generator)
        steps = -(-len(windows) // params.batch_size)
        for step, batch in enumerate(feed.shuffled(windows, params.batch_size, generator)):
            pace = pace_at((epoch + step / steps) / params.epochs)
            negatives = drawn(popular, params.negatives, generator)
            gap = GAPS[int(torch.randint(len(GAPS), (), generator=generator))]
            held = model.own(negatives.items[: negatives.evenly]).square().sum(1).mean()
            loss = model.loss(batch.items, texts, negatives, popular.logarithms, gap) + params.own_decay * held
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = pace * params.learning_rate
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
    if not all(each.isfinite().all() for each in model.parameters()):
        raise UserError("denoisers.cloze.detector.learning_rate: weights have become infinite; lower it")


def popularity(items: Int[Tensor, " rows"], catalogue: int) -> Popularity:
    counts = torch.bincount(items, minlength=catalogue) + 1.0
    counts[0] = 0
    logarithms = (counts / counts.sum()).log()
    return Popularity(logarithms.exp().cpu(), logarithms)


def drawn(popular: Popularity, count: int, generator: torch.Generator) -> Negatives:
    """Half of them evenly from the catalogue, the rest by popularity: those that score high are among these."""
    evenly, by_popularity, catalogue = count // 2, count - count // 2, len(popular.shares)
    items = torch.cat(
        [
            torch.randint(1, catalogue, (evenly,), generator=generator),
            torch.multinomial(popular.shares, by_popularity, replacement=True, generator=generator),
        ]
    )
    expected = (evenly / (catalogue - 1) + by_popularity * popular.shares[items]).log()
    device = popular.logarithms.device
    return Negatives(items.to(device), expected.to(device), evenly)


def pace_at(share: float) -> float:
    """The share of the learning rate after this share of the training: up from 0, then down to 0."""
    return min(share / WARMING, (1 - share) / (1 - WARMING))


def feed_of(histories: TrainingHistories, device: torch.device) -> tuple[Feed, tuple[Tensor, Tensor]]:
    """A feed over these histories, and the bounds of each."""
    offsets = torch.from_numpy(histories.offsets).to(device)
    return Feed(Sequences(torch.from_numpy(histories.items).to(device), offsets)), (offsets[:-1], offsets[1:])


def examples_of(detector: Detector, number: int, fold: TrainingHistories, categories: np.ndarray) -> Examples:
    """Rows of some of the fold's users, and noise of each kind planted into histories, in the eyes of the fold's model.

    Real rows are judged where nothing is planted: beside plants they would fit worse than they do later. Kinds of which
    the data set offers nothing are left out.
    """
    generator = generator_for(detector.params.seed, f"plants of fold {number}")
    some = of_users(fold, np.sort(generator.permutation(len(fold.offsets) - 1)[:MOST_USERS]))
    nothing = Plants(*(np.zeros(0, dtype=np.int64) for _ in Plants._fields))
    plants = {kind: planted(fold, kind, categories, generator) for kind in detector.params.kinds}
    return Examples(
        signals_with(detector, number, some, nothing, of_plants=False),
        {
            kind: signals_with(detector, number, *found, of_plants=True)
            for kind, found in plants.items()
            if found is not None
        },
    )


def generator_for(seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(derived_seed(seed, purpose))


def planted(
    fold: TrainingHistories, kind: str, categories: Int[np.ndarray, " catalogue"], generator: np.random.Generator
) -> tuple[TrainingHistories, Plants] | None:
    """Histories of some users and what is planted into them; None where they offer nothing of this kind."""
    everybody = generator.permutation(len(fold.offsets) - 1)
    some = min(MOST_USERS, round(len(everybody) / (1 + DONORS)) if kind == "burst" else len(everybody))
    chosen = of_users(fold, np.sort(everybody[:some]))
    try:
        if kind == "burst":
            donors = of_users(fold, everybody[some : some + round(DONORS * some)])
            return chosen, noise_kinds.burst(
                chosen, noise_kinds.as_runs(donors.items, donors.offsets, generator), generator
            )
        return chosen, noise_kinds.foreign(kind, chosen, round(RATIO * len(chosen.items)), categories, generator)
    except UserError:  # no categories; a catalogue of few items
        return None


def signals_with(
    detector: Detector, number: int, histories: TrainingHistories, plants: Plants, of_plants: bool
) -> Float[Tensor, "rows signals"]:
    """Of the plants, or of the real rows, once the plants stand in the histories; shortest histories first."""
    rows = np.arange(len(histories.items))
    order = np.insert(rows, histories.offsets[plants.users] + plants.places, len(rows) + np.arange(len(plants.users)))
    items = np.concatenate([histories.items, plants.items])[order]
    more = np.bincount(plants.users, minlength=len(histories.offsets) - 1).cumsum()
    mixed = TrainingHistories(items, histories.offsets + np.concatenate([[0], more]), histories.last_item)
    feed, bounds = feed_of(mixed, detector.texts.device)
    texts, wanted = detector.texts.float(), torch.from_numpy((order >= len(rows)) == of_plants)
    model, dtype, found = detector.model(number), pick_dtype("auto", texts.device), []
    for numbers in shortest_first(windows := tail_tiles(*bounds, detector.max_length), JUDGED):
        batch = feed.batch(windows[numbers])
        asked = wanted.to(texts.device)[batch.rows.clamp(min=0)] & batch.valid
        found.append(signals_of(model, batch.items, texts, dtype, asked)[asked].cpu())
    return torch.cat(found)
