"""A trained recommender as two files: config.json says how to build it, model.safetensors holds its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import safetensors
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from iadsr.artifacts import replacing, write_json
from iadsr.backbones import BACKBONES, build_backbone
from iadsr.denoisers import DENOISERS, NO_BACKBONE
from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.recommender import Recommender
from iadsr.seeds import derived_seed
from iadsr.sequences import Feed

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class ModelConfig(Group):
    """Everything that decides a model's shape and behaviour after training."""

    dataset: str
    backbone: str
    backbone_params: dict[str, Any]
    denoiser: str
    denoiser_params: dict[str, Any]
    user_count: int = Field(ge=1)
    item_count: int = Field(ge=1)
    dim: int = Field(ge=1)
    max_length: int = Field(ge=1)
    seed: int = Field(ge=0)
    run: str = ""  # digest of all that went into the training: data, parameters, code
    best_epoch: int = -1
    epochs: int = 0
    semantic: dict[str, Any] | None = None  # the manifest of the encodings that the model was trained with


def build(config: ModelConfig, feed: Feed | None = None) -> Recommender:
    """A model with fresh weights, drawn from `config.seed`; `feed`, the data set, is needed only for training."""
    torch.manual_seed(derived_seed(config.seed, "weights"))
    backbone = None
    if config.backbone != NO_BACKBONE:
        params = BACKBONES[config.backbone][1].model_validate(config.backbone_params)
        backbone = build_backbone(config.backbone, config.dim, config.max_length, params)
    return DENOISERS[config.denoiser].of(config, backbone, feed)


def save(folder: Path, model: Recommender, config: ModelConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def load_config(folder: Path) -> ModelConfig:
    """UserError when the folder holds no trained model."""
    try:
        return ModelConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"), strict=False)
    except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / CONFIG}: no trained model here ({reason}); run `dvc repro train` first") from None


def load(folder: Path, device: torch.device) -> tuple[Recommender, ModelConfig]:
    """The trained model in evaluation mode, and its configuration."""
    config = load_config(folder)
    model = build(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / WEIGHTS}: cannot be loaded ({reason}); run `dvc repro train` again") from None
    return model.to(device).eval(), config
