"""Small data sets, batches and models without dropout, and the text vectors of a small data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iadsr.artifacts import write_array
from iadsr.encode.batches import prefix_means
from iadsr.encode.texts import Corpus
from iadsr.models.assembly import denoiser_params
from iadsr.models.backbones.registry import BACKBONES, build_backbone
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.iadsr.model import IADSR, IADSRParams
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.recommender import Recommender
from iadsr.params import Group, read_params
from iadsr.provenance import write_sealed
from iadsr.sequences.text_vectors import PrefixVectors
from iadsr.sequences.windows import Batch, Sequences
from iadsr.train.fit import TrainParams

ITEMS, DIM, WIDTH, LENGTH = 12, 8, 5, 6  # items, item embeddings, text encodings, longest window
USERS = 12
SMALL_MANIFEST = {
    **{"dim": WIDTH, "max_length": LENGTH, "encoder": "small", "prefixes": "mean", "computed_in": "float32"},
    **{"item_template": "{title}", "prefix_template": "{titles}", "separator": "; "},
}

SETTINGS: dict[str, dict[str, Any]] = {
    "gru4rec": {"hidden": 6, "layers": 2, "dropout": 0.0},
    "caser": {"hidden": 6, "window": 3, "horizontal": 3, "vertical": 2, "dropout": 0.0},
    "sasrec": {"layers": 2, "heads": 2, "feed_forward": 10, "dropout": 0.0},
    "ligr": {"layers": 2, "heads": 2, "feed_forward": 10, "dropout": 0.0},
}
EVERY_BACKBONE = tuple(SETTINGS)


def small_backbone(name: str, **changes: Any) -> Any:
    return build_backbone(name, DIM, LENGTH, BACKBONES[name][1].model_validate({**SETTINGS[name], **changes}))


def iadsr_params(**changes: Any) -> IADSRParams:
    """The defaults of params.yaml, with a gate that lets everybody in."""
    defaults = {
        "theta": -1.0,
        "lambda_info": 1.0,
        "lambda_recon": 1.0,
        "interests": "both",
        "masks": "prefix",
        "mask_at_test": True,
        "info_temperature": 0.1,
        "gumbel_temperature": 1.0,
    }
    return IADSRParams.model_validate({**defaults, **changes})


def plain(backbone: str, seed: int = 0, spread: float | None = 0.5) -> Recommender:
    torch.manual_seed(seed)
    return spread_out(Recommender(ITEMS, DIM, small_backbone(backbone)), spread)


def iadsr(backbone: str, seed: int = 0, spread: float | None = 0.5, rows: int = 40, **changes: Any) -> IADSR:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    params = iadsr_params(**changes)
    model = IADSR(ITEMS, DIM, small_backbone(backbone), params, WIDTH, (rows, LENGTH), generator)
    return spread_out(model, spread)


def committed(denoiser: str, dropout: float = 0.0, **changes: Any) -> Group:
    """The parameters of params.yaml with another dropout."""
    content = read_params(Path(__file__).parents[1] / "params.yaml")
    own = content["denoisers"][denoiser]
    own |= {name: dropout for name in own if "dropout" in name} | changes
    return denoiser_params(content, denoiser)


def small_config(denoiser: str, backbone: str, seed: int = 0, dropout: float = 0.0, **changes: Any) -> ModelConfig:
    """Of a small model on `USERS` users; `backbone` is none where the denoiser stands alone."""
    return ModelConfig(
        dataset="small",
        backbone=backbone,
        backbone_params={} if backbone == "none" else {**SETTINGS[backbone], "dropout": dropout},
        denoiser=denoiser,
        denoiser_params=committed(denoiser, dropout, **changes).model_dump(),
        user_count=USERS,
        item_count=ITEMS,
        dim=DIM,
        max_length=LENGTH,
        seed=seed,
        encodings=SMALL_MANIFEST if DENOISERS[denoiser].traits.reads_texts else None,
    )


def spread_out(model: Any, spread: float | None) -> Any:
    """Weights as large as in a trained model, so that every input matters (None: as initialised)."""
    if spread is not None:
        with torch.no_grad():
            for weight in model.parameters():
                nn.init.normal_(weight, std=spread)
            model.items.weight[0].zero_()
    return model


def alone(model: Recommender, items: list[int], keep: Tensor) -> Tensor:
    """The state of one prefix, encoded by itself with zeros for what its mask drops."""
    inputs = model.items.weight[items] * keep[:, None]
    return model.backbone(inputs[None], torch.ones(1, len(items), dtype=torch.bool))[0, -1]


def batch_of(*windows: list[int], width: int | None = None, seed: int = 0, first_row: int = 0) -> Batch:
    """Windows of items in consecutive rows; each item's target is the next one; random text encodings by row."""
    width = width or max(map(len, windows))
    rows, items, targets = (torch.full((len(windows), width), empty) for empty in (-1, 0, 0))
    row = first_row
    for place, window in enumerate(windows):
        rows[place, : len(window)] = torch.arange(row, row + len(window))
        items[place, : len(window)] = torch.tensor(window)
        targets[place, : len(window) - 1] = torch.tensor(window[1:], dtype=torch.long)
        row += len(window)
    encodings = torch.randn(row + 1, WIDTH, generator=torch.Generator().manual_seed(seed))
    encodings[-1] = 0
    return Batch(rows, items, targets, torch.arange(len(windows)) % USERS + 1, encodings[rows])


def at(batch: Batch, index: Tensor | slice) -> Batch:
    """Some windows of a batch."""
    assert batch.text_vectors is not None
    return Batch(
        batch.rows[index], batch.items[index], batch.targets[index], batch.users[index], batch.text_vectors[index]
    )


def padded(batch: Batch, more: int) -> Batch:
    """The same windows with `more` columns of padding on the right."""
    assert batch.text_vectors is not None
    rows = nn.functional.pad(batch.rows, (0, more), value=-1)
    items, targets = (nn.functional.pad(values, (0, more)) for values in (batch.items, batch.targets))
    return Batch(rows, items, targets, batch.users, nn.functional.pad(batch.text_vectors, (0, 0, 0, more)))


def with_future(batch: Batch, after: int, seed: int = 9) -> Batch:
    """All items and text encodings at positions later than `after` replaced by others (padding stays)."""
    assert batch.text_vectors is not None
    items, text_vectors, targets = batch.items.clone(), batch.text_vectors.clone(), batch.targets.clone()
    later = batch.valid & (torch.arange(items.shape[1]) > after)
    items[later] = items[later] % ITEMS + 1
    text_vectors[later] = torch.randn(int(later.sum()), WIDTH, generator=torch.Generator().manual_seed(seed))
    moved = torch.nn.functional.pad(items[:, 1:], (0, 1))
    targets = torch.where(targets > 0, moved, 0)
    return Batch(batch.rows, items, targets, batch.users, text_vectors)


def sequences_of(*histories: list[int], noise: list[bool] | None = None) -> Sequences:
    offsets = torch.tensor([0, *(len(history) for history in histories)]).cumsum(0)
    items = torch.tensor([item for history in histories for item in history])
    return Sequences(items, offsets, None if noise is None else torch.tensor(noise))


def random_histories(users: int, longest: int, seed: int = 0) -> list[list[int]]:
    """Histories of 3 to `longest` items, repeats included; the first holds item ITEMS, so the catalogue is whole."""
    draw = np.random.default_rng(seed)
    histories = [draw.integers(1, ITEMS + 1, draw.integers(3, longest + 1)).tolist() for _ in range(users)]
    histories[0][0] = ITEMS
    return histories


def write_means(folder: Path, sequences: Sequences, max_length: int = LENGTH, seed: int = 0) -> PrefixVectors:
    """What `encode` writes with prefixes: mean, from random item vectors; prefixes with a test item have none."""
    folder.mkdir(parents=True, exist_ok=True)
    items = np.random.default_rng(seed).normal(size=(sequences.item_count + 1, WIDTH)).astype(np.float16)
    items[0] = 0
    lengths, begins = sequences.offsets.diff().numpy(), sequences.offsets[:-1].numpy()
    positions = np.arange(len(sequences.items)) - np.repeat(begins, lengths)
    usable = positions < np.repeat(lengths, lengths) - 1
    corpus = Corpus([], sequences.items.numpy(), positions, usable)
    rows = np.full(len(usable), -1, dtype=np.int32)
    rows[usable] = np.arange(usable.sum())
    write_array(folder / "items.npy", items)
    write_array(folder / "prefixes.npy", prefix_means(items, corpus, max_length, np.flatnonzero(usable)))
    write_array(folder / "rows.npy", rows)
    write_sealed(folder / "manifest.json", {**SMALL_MANIFEST, "max_length": max_length})
    return PrefixVectors(folder)


def train_params(**changes: Any) -> TrainParams:
    """Four epochs of batches of five windows, all by one rule of loss."""
    defaults = {
        **{
            "dim": DIM,
            "batch_size": 5,
            "windows": "tiles",
            "prefixes": 0,
            "item_start": "random",
            "repeat": "none",
            "full_catalogue": 10**5,
            "negatives": 6,
        },
        **{
            "learning_rate": 0.02,
            "weight_decay": 0.0,
            "item_decay": 0.0,
            "average": 0.0,
            "max_epochs": 4,
            "patience": 10,
        },
        **{"dtype": "float32", "device": "cpu", "threads": 1},
    }
    return TrainParams.model_validate({**defaults, **changes})
