"""What a model recommends from: raw ids and titles; and the encoder whose vectors it has learnt to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iadsr.artifacts import read_columns
from iadsr.encode.encoders.interface import EncoderParams, encoder_params
from iadsr.encode.recipe import described
from iadsr.errors import UserError
from iadsr.params import Params
from iadsr.schemas import RAW_ITEM, TITLE


def read_catalogue(path: Path, item_count: int) -> tuple[list[str], list[str]]:
    """Raw ids and titles of items.parquet, item 1 first; UserError when it is not that of a model of `item_count`."""
    table = read_columns(path, (RAW_ITEM, TITLE), "filter")
    if len(table) != item_count:
        trained_on = f"the model was trained on {item_count}"
        raise UserError(f"{path}: {len(table)} items, but {trained_on}; run `dvc repro train` again")
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
