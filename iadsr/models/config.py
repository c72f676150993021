"""What a model is made of: all that decides its shape and its behaviour after training."""

from __future__ import annotations

from typing import Any

from pydantic import AliasChoices, Field, field_validator

from iadsr.params import RENAMED, Group


class ModelConfig(Group):
    """config.json of a saved model; one of an earlier version is read under today's names."""

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
    # the manifest of the encodings that the model was trained with
    encodings: dict[str, Any] | None = Field(default=None, validation_alias=AliasChoices("encodings", "semantic"))

    @field_validator("denoiser")
    @classmethod
    def _todays_name(cls, name: str) -> str:
        return RENAMED.get(name, name)
