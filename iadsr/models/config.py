"""What a model is made of: all that decides its shape and its behaviour after training."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from iadsr.params import Group


class ModelConfig(Group):
    """config.json of a saved model, which also tells what the model was made from and what belongs to it."""

    dataset: str
    backbone: str
    backbone_params: dict[str, Any]
    denoiser: str
    denoiser_params: dict[str, Any]
    user_count: int = Field(ge=1)
    item_count: int = Field(ge=1)
    dim: int = Field(ge=1)
    max_length: int = Field(ge=1)
    repeat: Literal["none", "learned"] = "none"  # a bias for items that are already in the history
    seed: int = Field(ge=0)
    run: str = ""  # digest of all that went into the training: data, parameters, code
    best_epoch: int = Field(default=-1, ge=-1)
    epochs: int = Field(default=0, ge=0)
    # the manifest of the encodings that the model was trained with
    encodings: dict[str, Any] | None = None
    params: dict[str, Any] = Field(default_factory=dict)  # values of params.yaml that decided the training
    inputs: dict[str, str] = Field(default_factory=dict)  # digests of the tables that it was trained on
    outputs: dict[str, str] = Field(default_factory=dict)  # of its weights, history and verdicts

    @model_validator(mode="after")
    def _best_is_one_of_the_epochs(self) -> ModelConfig:
        if self.best_epoch >= self.epochs and self.best_epoch >= 0:
            raise ValueError("best_epoch is none of the epochs")
        return self
