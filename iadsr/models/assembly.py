"""From params.yaml to a model's configuration, and from a configuration to a model with fresh weights."""

from __future__ import annotations

from typing import Any

import torch

from iadsr.errors import UserError
from iadsr.models.backbones.registry import BACKBONES, build_backbone
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.recommender import NoParams, Recommender
from iadsr.models.repeats import Repeats
from iadsr.params import Group, Params, choice, chosen_dataset, group, lookup, renamed
from iadsr.seeds import checked_seed, derived_seed
from iadsr.sequences.windows import Feed

NO_BACKBONE = "none"  # of a denoiser with an encoder of its own


def chosen_denoiser(params: Params) -> tuple[str, str]:
    """The names `denoiser` and `backbone`; UserError for unknown ones and for two that do not go together."""
    denoiser = known(choice(params, "denoiser", "denoisers"), "denoisers", DENOISERS)
    backbone = choice(params, "backbone", "backbones")
    if backbone not in backbones_of(denoiser):
        there = "; ".join(f"{name} with {', '.join(backbones_of(name))}" for name in DENOISERS)
        raise UserError(f"params.yaml: backbone: {denoiser} does not go with {backbone!r}; there are: {there}")
    return denoiser, backbone


def known(name: str, table: str, registry: dict[str, Any]) -> str:
    """`name`, an entry of a table of params.yaml; UserError where the code has nothing of that name."""
    if name not in registry:
        raise UserError(
            f"params.yaml: {table}.{name}: unknown {table[:-1]}; {renamed(name)}known are {', '.join(registry)}"
        )
    return name


def backbones_of(denoiser: str) -> tuple[str, ...]:
    """What `backbone` may be with this denoiser."""
    return (NO_BACKBONE,) if DENOISERS[denoiser].traits.own_encoder else tuple(BACKBONES)


def denoiser_params(params: Params, name: str) -> Group:
    """The checked `denoisers.<name>`, including those of its parameters that stand at top level."""
    method = DENOISERS[known(name, "denoisers", DENOISERS)]
    return group(
        params, f"denoisers.{name}", method.params_type, **{key: lookup(params, key) for key in method.traits.top_level}
    )


def backbone_params(params: Params, name: str) -> Group:
    """The checked `backbones.<name>`."""
    if name == NO_BACKBONE:
        return group(params, f"backbones.{name}", NoParams)
    return group(params, f"backbones.{name}", BACKBONES[known(name, "backbones", BACKBONES)][1])


def configured(params: Params, dim: int, users: int, items: int, encodings: dict[str, Any] | None) -> ModelConfig:
    """The model that params.yaml asks for, `dim` being `train.dim`; UserError for unknown names and wrong values."""
    dataset, settings = chosen_dataset(params)
    denoiser, backbone = chosen_denoiser(params)
    return ModelConfig(
        dataset=dataset,
        backbone=backbone,
        backbone_params=backbone_params(params, backbone).model_dump(),
        denoiser=denoiser,
        denoiser_params=denoiser_params(params, denoiser).model_dump(),
        user_count=users,
        item_count=items,
        dim=dim,
        max_length=settings.max_length,
        repeat=lookup(params, "train.repeat"),
        seed=checked_seed(params),
        encodings=encodings,
    )


def build(config: ModelConfig, feed: Feed | None = None) -> Recommender:
    """A model with fresh weights, drawn from `config.seed`; `feed`, the data set, is needed only for training."""
    torch.manual_seed(derived_seed(config.seed, "weights"))
    backbone = None
    if config.backbone != NO_BACKBONE:
        params = BACKBONES[config.backbone][1].model_validate(config.backbone_params)
        backbone = build_backbone(config.backbone, config.dim, config.max_length, params)
    model = DENOISERS[config.denoiser].of(config, backbone, feed)
    if config.repeat == "learned":
        model.repeats = Repeats()
    return model
