"""What a model recommends from: raw ids and titles; and the encoder whose vectors it has learnt to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iadsr.artifacts import read_columns
from iadsr.encode.encoders.interface import EncoderParams, encoder_params
from iadsr.encode.recipe import described
from iadsr.errors import UserError
from iadsr.models.config import ModelConfig
from iadsr.params import Params
from iadsr.provenance import digest_of
from iadsr.schemas import RAW_ITEM, TITLE

CATALOGUE = "filtered/items.parquet"  # as configurations name it, wherever it lies now


def read_catalogue(path: Path, config: ModelConfig) -> tuple[list[str], list[str]]:
    """Raw ids and titles of items.parquet, item 1 first; UserError when it is not that of the model."""
    table = read_columns(path, (RAW_ITEM, TITLE), "filter")
    if config.inputs.get(CATALOGUE) != digest_of(path) or len(table) != config.item_count:
        raise UserError(f"{path}: not the catalogue that the model was trained on; run `dvc repro train` again")
    return table[RAW_ITEM].to_pylist(), table[TITLE].to_pylist()


def trained_encoder(params: Params, encodings: dict[str, Any]) -> EncoderParams:
    """The encoder of the manifest `encodings` that a model was trained with, as params.yaml describes it.

    UserError where params.yaml describes it otherwise by now: the model would read other vectors than it has learnt.
    """
    name = encodings["encoder"]
    spec = encoder_params(params, name)
    for key, value in described(name, spec).items():
        if encodings.get(key) != value:
            raise UserError(
                f"params.yaml: encoders.{name}.{key} is {value!r}, but the model was trained with "
                f"{encodings.get(key)!r}; set it back, or train again with `dvc repro train`"
            )
    return spec
