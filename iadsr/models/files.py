"""A trained recommender as two files: config.json says how to build it, model.safetensors holds its weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from iadsr.artifacts import replacing, require
from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.config import ModelConfig
from iadsr.models.recommender import Recommender
from iadsr.provenance import digest_of, read_sealed, write_sealed
from iadsr.sequences.text_vectors import is_manifest

WEIGHTS, CONFIG = "model.safetensors", "config.json"
AGAIN = "run `dvc repro train` again"


def save_model(folder: Path, model: Recommender, config: ModelConfig, beside: Iterable[Path] = ()) -> None:
    """Write the weights and, last, the configuration, with the digests of the weights and of the files `beside`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    outputs = {path.name: digest_of(path) for path in (folder / WEIGHTS, *beside)}
    whole = config.model_copy(update={"outputs": outputs})
    write_sealed(folder / CONFIG, whole.model_dump(mode="json"))


def load_config(folder: Path) -> ModelConfig:
    """The configuration of a saved model; UserError when the folder holds no trained model that could be built."""
    path = folder / CONFIG
    content = read_sealed(path, "train")
    try:
        config = ModelConfig.model_validate(content, strict=False)
        if config.encodings is not None and not is_manifest(config.encodings):
            raise ValueError
        shapes(config)
    except Exception:  # whatever building from a wrong configuration may raise
        raise UserError(f"{path}: describes no model that this version knows; {AGAIN}") from None
    return config


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shape of each tensor of the model, which is not built for it."""
    with torch.random.fork_rng(), torch.device("meta"):
        return {name: value.shape for name, value in build(config).state_dict().items()}


def load_model(folder: Path, device: torch.device) -> tuple[Recommender, ModelConfig]:
    """The trained model in evaluation mode, and its configuration; UserError for weights that are not its own."""
    config = load_config(folder)
    require_own(config, folder / WEIGHTS)
    weights = _weights(folder / WEIGHTS, shapes(config))
    model = build(config)
    model.load_state_dict(weights)
    if not all(value.isfinite().all() for value in model.parameters()):
        raise UserError(f"{folder / WEIGHTS}: some weights are no numbers; {AGAIN}")
    return model.to(device).eval(), config


def require_own(config: ModelConfig, path: Path) -> None:
    """UserError unless `path` is as the training of `config` wrote it."""
    require(path, "train")
    if config.outputs.get(path.name) != digest_of(path):
        raise UserError(f"{path}: not of the training that {CONFIG} describes; {AGAIN}")


def _weights(path: Path, expected: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors in `path`, which must have the `expected` shapes."""
    try:
        weights = load_file(path)
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError):
        raise UserError(f"{path}: not a whole file of weights; {AGAIN}") from None
    if {name: value.shape for name, value in weights.items()} != expected:
        raise UserError(f"{path}: not the weights of the model that {CONFIG} describes; {AGAIN}")
    return weights
