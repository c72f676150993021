"""The cells of the study, as cells.yaml declares them, and the parameters of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from benchmarks.prepared import parameters, yaml_value
from iadsr.errors import UserError
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.params import Group, choice, read_yaml

DECLARED = Path(__file__).with_name("cells.yaml")
Settings = dict[str, Any]
NAMED = ("dataset", "backbone", "denoiser", "seed")  # what a cell's name says
# They do not decide what is trained, only where and how fast.
FREE = {
    *("encode.actors", "encode.batch_tokens", "encode.device", "encode.engine", "encode.threads"),
    *("train.device", "train.threads"),
}
OF_PREFIXES = ("prefixes", "prefix_template", "separator")  # of `encode`


class Matrix(Group):
    """An entry of `groups`: one cell for each combination, with these settings."""

    about: str
    datasets: list[str] = Field(min_length=1)
    backbones: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    settings: Settings = Field(default_factory=dict)


class Declared(Group):
    """The whole of cells.yaml."""

    settings: Settings
    datasets: dict[str, Settings]
    backbones: dict[str, Settings]
    tuned: dict[str, Settings] = Field(default_factory=dict)  # by DATASET/BACKBONE
    methods: dict[str, Settings]
    groups: dict[str, Matrix]


class Cell(NamedTuple):
    """One training and its evaluation."""

    group: str
    dataset: str
    backbone: str
    method: str
    seed: int
    settings: Settings  # dotted keys of params.yaml

    @property
    def name(self) -> str:
        return "/".join(map(str, self[:-1]))

    def content(self) -> dict[str, Any]:
        """params.yaml with the cell's settings; ParamsError where they do not go together."""
        return parameters(self.settings, [])


def read_declared(path: Path = DECLARED) -> Declared:
    """UserError for a key that is unknown or missing, and for a group that names what is not declared."""
    try:
        declared = Declared.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for name, matrix in declared.groups.items():
        for axis in ("datasets", "backbones", "methods"):
            if unknown := [each for each in getattr(matrix, axis) if each not in getattr(declared, axis)]:
                raise UserError(f"{path}: groups.{name}.{axis}: {unknown[0]} is not declared under `{axis}`")
    return declared


def cells_of(declared: Declared, patterns: Iterable[str] = ("*",)) -> list[Cell]:
    """The cells that match one of the patterns, such as `unplanted/beauty/*`; UserError for one that matches none."""
    cells = [cell for name, matrix in declared.groups.items() for cell in of_group(declared, name, matrix)]
    for pattern in patterns:
        if not any(matches(cell, pattern) for cell in cells):
            raise UserError(
                f"--cells {pattern}: no cell of this name; `python -m study list` shows those that there are"
            )
    return [cell for cell in cells if any(matches(cell, pattern) for pattern in patterns)]


def matches(cell: Cell, pattern: str) -> bool:
    """Whether the pattern, whose * also stands for slashes, is of the cell's name or of a folder that it is in."""
    return fnmatchcase(cell.name, pattern) or fnmatchcase(cell.name, f"{pattern.rstrip('/')}/*")


def of_group(declared: Declared, name: str, matrix: Matrix) -> Iterator[Cell]:
    """Seeds vary slowest: so a table has all its rows as soon as can be."""
    axes = (matrix.seeds, matrix.datasets, matrix.backbones, matrix.methods)
    for seed, dataset, backbone, method in itertools.product(*axes):
        settings = {
            **{"dataset": dataset, "backbone": backbone, "seed": seed},
            **declared.settings,
            **declared.datasets[dataset],
            **declared.backbones[backbone],
            **declared.tuned.get(f"{dataset}/{backbone}", {}),
            **matrix.settings,
            **declared.methods[method],
        }
        yield Cell(name, dataset, backbone, method, seed, settings)


def with_changes(cells: Sequence[Cell], changes: Sequence[str]) -> list[Cell]:
    """The cells with these parameters, "key=value" in YAML, as well: a trial, and no part of the study.

    UserError for one that is part of a cell's name.
    """
    found = {}
    for text in changes:
        key, _, value = text.partition("=")
        if key in NAMED:
            raise UserError(f"--set {text}: cells have a {key} of their own; choose some by --cells")
        found[key] = yaml_value(text, value)
    return [cell._replace(settings=cell.settings | found) for cell in cells]


def decisive(content: dict[str, Any]) -> Settings:
    """What of these parameters decides a cell's result, by dotted key: entries that it does not use are left out."""
    denoiser = content["denoiser"]
    traits = DENOISERS[denoiser].traits
    reads_texts = traits.reads_texts or content["train"]["item_start"] == "text"
    found: Settings = {name: content[name] for name in ("dataset", "backbone", "denoiser", "seed", *traits.top_level)}
    groups = {name: content[name] for name in ("ingest", "filter", "train")}
    groups["dataset"] = content["datasets"][choice(content, "dataset", "datasets")]
    groups |= {f"backbones.{name}": content["backbones"][name] for name in [content["backbone"]] if name != "none"}
    groups[f"denoisers.{denoiser}"] = content["denoisers"][denoiser]
    groups["noise"] = content["noise"] if content["noise"]["ratio"] else {"ratio": 0.0}
    if reads_texts:
        left_out = () if traits.reads_prefix_texts else OF_PREFIXES
        groups["encode"] = {key: value for key, value in content["encode"].items() if key not in left_out}
        groups["encoder"] = content["encoders"][content["encoder"]]
    for name, group in groups.items():
        found |= flat(name, group)
    return {key: value for key, value in found.items() if key not in FREE}


def flat(prefix: str, group: Any) -> Settings:
    """
    >>> flat("a", {"b": 1, "c": {"d": [2]}})
    {'a.b': 1, 'a.c.d': [2]}
    """
    if not isinstance(group, dict):
        return {prefix: group}
    return {key: value for name, inner in group.items() for key, value in flat(f"{prefix}.{name}", inner).items()}
