"""The whole of params.yaml, checked at once: also the entries that are not chosen, and whether its parts fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from pydantic import Field

from iadsr.backbones import BACKBONES
from iadsr.denoisers import DENOISERS, NO_BACKBONE, chosen_denoiser, denoiser_params
from iadsr.device import checked_threads, pick_device
from iadsr.encoders import encoder_params
from iadsr.encoding import EncodeParams
from iadsr.errors import UserError
from iadsr.evaluation import EvaluateParams
from iadsr.interactions import FilterParams, NoiseParams
from iadsr.params import Group, Params, ParamsError, choice, group, unknown_keys
from iadsr.recommender import NoParams
from iadsr.rejects import Tolerance
from iadsr.saved_model import ModelConfig, build
from iadsr.seeds import checked_seed
from iadsr.sources import chosen_source
from iadsr.training import TrainParams

GROUPS: dict[str, type[Group]] = {
    "noise": NoiseParams,
    "ingest": Tolerance,
    "filter": FilterParams,
    "encode": EncodeParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
}
TABLES = {"dataset": "datasets", "encoder": "encoders"}


class DatasetParams(Group):
    """`datasets.<name>` of params.yaml, of which each stage reads its own part."""

    core: int = Field(ge=0)
    max_length: int = Field(ge=1)
    source: dict[str, Any]  # as its `kind` demands: iadsr/sources


def problems(params: Params) -> list[str]:
    """A message for each mistake in params.yaml, with the path of its key; none for a file that every stage accepts."""
    found = unknown_keys(params)
    for check in checks(params):
        try:
            check()
        except ParamsError as error:
            found += error.problems
        except UserError as error:
            found.append(str(error).removeprefix("params.yaml: "))
    return list(dict.fromkeys(found))  # what one mistake breaks twice is said once


def checks(params: Params) -> Iterator[Callable[[], object]]:
    """Each raises UserError for the mistakes that it finds."""
    for key, model in GROUPS.items():
        yield partial(group, params, key, model)
    for key in ("encode", "train"):
        yield partial(check_machine, params, key)
    for key, table in TABLES.items():
        yield partial(choice, params, key, table)
    yield partial(chosen_denoiser, params)
    yield partial(checked_seed, params)
    for name in DENOISERS:
        yield partial(denoiser_params, params, name)
    for table, check in (("datasets", check_dataset), ("backbones", check_backbone), ("encoders", encoder_params)):
        entries = params.get(table)
        for name in entries if isinstance(entries, dict) else ():
            yield partial(check_entry, table, name, partial(check, params, name))
    yield partial(check_fit, params)


def check_machine(params: Params, key: str) -> None:
    """Has this machine the device and the threads that `key` asks for?"""
    settings = group(params, key, GROUPS[key])
    pick_device(settings.device, f"{key}.device")  # type: ignore[attr-defined]
    checked_threads(settings.threads, f"{key}.threads")  # type: ignore[attr-defined]


def check_entry(table: str, name: object, check: Callable[[], object]) -> None:
    if not isinstance(name, str) or "." in name:
        raise UserError(f"params.yaml: {table}: a name is text without a dot, found {name!r}")
    check()


def check_dataset(params: Params, name: str) -> None:
    group(params, f"datasets.{name}", DatasetParams)
    chosen_source({**params, "dataset": name})


def check_backbone(params: Params, name: str) -> Group:
    if name == NO_BACKBONE:
        return group(params, f"backbones.{name}", NoParams)
    if name not in BACKBONES:
        raise UserError(f"params.yaml: backbones.{name}: unknown backbone; known are {', '.join(BACKBONES)}")
    return group(params, f"backbones.{name}", BACKBONES[name][1])


def check_fit(params: Params) -> None:
    """Can the chosen model be built in this width and for sequences this long?"""
    denoiser, backbone = chosen_denoiser(params)
    name = choice(params, "dataset", "datasets")
    config = ModelConfig(
        dataset=name,
        backbone=backbone,
        backbone_params=check_backbone(params, backbone).model_dump(),
        denoiser=denoiser,
        denoiser_params=denoiser_params(params, denoiser).model_dump(),
        user_count=1,
        item_count=1,
        dim=group(params, "train", TrainParams).dim,
        max_length=group(params, f"datasets.{name}", DatasetParams).max_length,
        seed=0,
        semantic={"dim": 1},
    )
    with torch.random.fork_rng(), torch.device("meta"):  # takes no memory
        build(config)
