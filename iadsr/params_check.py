"""The whole of params.yaml, checked at once: also the entries that are not chosen, and whether its parts fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from iadsr.device import checked_threads, pick_device
from iadsr.encode.encoders.interface import encoder_params
from iadsr.encode.recipe import EncodeParams, Recipe, manifest
from iadsr.errors import UserError
from iadsr.evaluate.report import EvaluateParams
from iadsr.filter.interactions import FilterParams
from iadsr.filter.planted_noise import NoiseParams
from iadsr.ingest.rejects import Tolerance
from iadsr.ingest.sources import chosen_source
from iadsr.models.assembly import backbone_params, build, chosen_denoiser, configured, denoiser_params
from iadsr.models.config import ModelConfig
from iadsr.params import DatasetParams, Group, Params, ParamsError, choice, group, unknown_keys
from iadsr.seeds import checked_seed
from iadsr.train.fit import TrainParams

GROUPS: dict[str, type[Group]] = {
    "noise": NoiseParams,
    "ingest": Tolerance,
    "filter": FilterParams,
    "encode": EncodeParams,
    "train": TrainParams,
    "evaluate": EvaluateParams,
}
CHOICES = {"dataset": "datasets", "encoder": "encoders"}


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
    """The checks, each of which raises UserError for the mistakes that it finds."""
    for key, model in GROUPS.items():
        yield partial(group, params, key, model)
    for key in ("encode", "train"):
        yield partial(check_machine, params, key)
    for key, table in CHOICES.items():
        yield partial(choice, params, key, table)
    yield partial(chosen_denoiser, params)
    yield partial(checked_seed, params)
    for table, check in TABLES.items():
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


TABLES: dict[str, Callable[[Params, str], object]] = {
    "datasets": check_dataset,
    "backbones": backbone_params,
    "denoisers": denoiser_params,
    "encoders": encoder_params,
}


def check_fit(params: Params) -> None:
    """Can the chosen model be built in this width and for sequences this long?"""
    dim = group(params, "train", TrainParams).dim
    with torch.random.fork_rng(), torch.device("meta"):  # takes no memory
        build(configured(params, dim, users=1, items=1, encodings={"dim": 1}))


def differs(params: Params, config: ModelConfig) -> bool:
    """Do the parameters describe another model than that of `config`, or other encodings than it was trained with?"""
    dim = group(params, "train", TrainParams).dim
    now = configured(params, dim, config.user_count, config.item_count, config.encodings)
    results = {name: getattr(config, name) for name in ("run", "best_epoch", "epochs", "params", "inputs", "outputs")}
    if now.model_copy(update=results) != config:
        return True
    asked = manifest(Recipe.of(params))
    return config.encodings is not None and not asked.items() <= config.encodings.items()
