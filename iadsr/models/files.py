"""A trained recommender as two files: config.json says how to build it, model.safetensors holds its weights."""

from __future__ import annotations

from pathlib import Path

import pydantic
import safetensors
import torch
from safetensors.torch import load_file, save_file

from iadsr.artifacts import replacing, write_json
from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.config import ModelConfig
from iadsr.models.recommender import Recommender

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save_model(folder: Path, model: Recommender, config: ModelConfig) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        save_file(weights, temporary)
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def load_config(folder: Path) -> ModelConfig:
    """The configuration of a saved model; UserError when the folder holds no trained model."""
    try:
        return ModelConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"), strict=False)
    except (OSError, UnicodeDecodeError, pydantic.ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / CONFIG}: no trained model here ({reason}); run `dvc repro train` first") from None


def load_model(folder: Path, device: torch.device) -> tuple[Recommender, ModelConfig]:
    """The trained model in evaluation mode, and its configuration."""
    config = load_config(folder)
    model = build(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / WEIGHTS}: cannot be loaded ({reason}); run `dvc repro train` again") from None
    return model.to(device).eval(), config
