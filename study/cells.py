"""The cells of the study, as cells.yaml declares them, and the parameters of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import Field, ValidationError

from benchmarks.accuracy import preset
from benchmarks.prepared import ROOT, yaml_value
from iadsr.artifacts import read_json
from iadsr.errors import UserError
from iadsr.params import Group, read_yaml
from study.plantings import OF_NAME, Planting, Plantings, plantings_of
from study.settings import Settings, content_of, decisive

DECLARED = Path(__file__).with_name("cells.yaml")
CHOICES = ROOT / "results" / "tuned.json"  # of `python -m study tune`
NAMED = ("dataset", "backbone", "denoiser", "seed")  # what a cell's name says


class Matrix(Group):
    """An entry of `groups`: one cell for each combination, with these settings."""

    about: str
    datasets: list[str] = Field(min_length=1)
    backbones: list[str] = Field(min_length=1)
    methods: list[str] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)
    settings: Settings = Field(default_factory=dict)
    beside_paper: bool = False  # whether the paper has cells of these names
    preset: bool = False  # of `make accuracy`, in place of what is declared of data sets and backbones
    chooses: bool = False  # each method what is best of `budget`; where it has not yet, there is no cell


class Budget(Group):
    """What every method of a group that `chooses` tries on validation."""

    seed: int = Field(ge=0)  # under which nothing is reported
    trials: list[Settings] = Field(min_length=1)


class Declared(Group):
    """The whole of cells.yaml."""

    settings: Settings
    datasets: dict[str, Settings]
    backbones: dict[str, Settings]
    tuned: dict[str, Settings] = Field(default_factory=dict)  # by DATASET/BACKBONE
    methods: dict[str, Settings]
    budget: Budget | None = None
    groups: dict[str, Matrix]
    plantings: dict[str, Plantings] = Field(default_factory=dict)
    choices: dict[str, Settings] = Field(default_factory=dict)  # by `place_of`: not of this file, but of CHOICES


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
        return content_of(self.settings)

    def decisive(self) -> Settings:
        """What of them decides the cell's result."""
        return decisive(self.content())


AnyCell = Cell | Planting
LISTED = "`python -m study list` shows those that there are"
Kind = TypeVar("Kind", bound=AnyCell)


def read_declared(path: Path = DECLARED, choices: Path = CHOICES) -> Declared:
    """UserError for a key that is unknown or missing, and for a group that names what is not declared.

    Choices among other settings than `budget` has by now are none.
    """
    chosen = read_json(choices) if choices.exists() else {}
    try:
        declared = Declared.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if declared.choices:
        raise UserError(f"{path}: choices: they stand in {choices}")
    trials = declared.budget.trials if declared.budget else []
    own = {place: choice["settings"] for place, choice in chosen.items() if choice["settings"] in trials}
    declared = declared.model_copy(update={"choices": own})
    if twice := declared.groups.keys() & declared.plantings.keys():
        raise UserError(f"{path}: plantings.{min(twice)}: there is a group of this name as well")
    for name, matrix in declared.groups.items():
        if matrix.settings.get("noise.kind") == "burst" and "clean" in matrix.methods:
            where = f"{path}: groups.{name}.methods"
            raise UserError(f"{where}: of bursts there is no `clean`, as their donors leave the data; leave it out")
    axes = {name: ("datasets", "backbones", "methods") for name in declared.groups}
    for name, of_group in (declared.groups | declared.plantings).items():
        for axis in axes.get(name, ("datasets",)):
            if unknown := [each for each in getattr(of_group, axis) if each not in getattr(declared, axis)]:
                where = "groups" if name in axes else "plantings"
                raise UserError(f"{path}: {where}.{name}.{axis}: {unknown[0]} is not declared under `{axis}`")
    return declared


def cells_of(declared: Declared, patterns: Iterable[str] = ("*",)) -> list[AnyCell]:
    """The cells that match one of the patterns, such as `unplanted/beauty/*`; UserError for one that matches none."""
    cells: list[AnyCell] = [
        cell for name, matrix in declared.groups.items() for cell in of_group(declared, name, matrix)
    ]
    for name, plantings in declared.plantings.items():
        cells.extend(plantings_of(name, plantings, declared.settings))
    for pattern in patterns:
        if pattern != "*" and not any(matches(cell, pattern) for cell in cells):
            choosing = any(matches(cell, pattern) for cell in tunable(declared, required=False))
            remedy = "its settings are yet to be chosen: `python -m study tune`" if choosing else LISTED
            raise UserError(f"--cells {pattern}: no cell of this name; {remedy}")
    return [cell for cell in cells if any(matches(cell, pattern) for pattern in patterns)]


def matches(cell: AnyCell, pattern: str) -> bool:
    """Whether the pattern, whose * also stands for slashes, is of the cell's name or of a folder that it is in."""
    return fnmatchcase(cell.name, pattern) or fnmatchcase(cell.name, f"{pattern.rstrip('/')}/*")


def of_group(declared: Declared, name: str, matrix: Matrix, untuned: bool = False) -> Iterator[Cell]:
    """Seeds vary slowest: so a table has all its rows as soon as can be. `untuned`: as before any choice."""
    axes = (matrix.seeds, matrix.datasets, matrix.backbones, matrix.methods)
    for seed, dataset, backbone, method in itertools.product(*axes):
        settings = {
            **declared.settings,
            **(preset(dataset) if matrix.preset else tuned(declared, dataset, backbone)),
            **{"dataset": dataset, "backbone": backbone, "seed": seed},
            **matrix.settings,
            **declared.methods[method],
        }
        cell = Cell(name, dataset, backbone, method, seed, settings)
        if not matrix.chooses or untuned:
            yield cell
        elif place_of(cell) in declared.choices:
            yield cell._replace(settings={**settings, **declared.choices[place_of(cell)]})


def place_of(cell: Cell) -> str:
    """
    >>> place_of(Cell("tuned", "beauty", "sasrec", "hsd", 0, {}))
    'beauty/sasrec/hsd'
    """
    return f"{cell.dataset}/{cell.backbone}/{cell.method}"


def tunable(declared: Declared, patterns: Iterable[str] = ("*",), required: bool = True) -> list[Cell]:
    """A cell for each place, that matches, of groups that choose, whether it has or not; UserError for none."""
    groups = [(name, matrix) for name, matrix in declared.groups.items() if matrix.chooses]
    cells = [cell for name, matrix in groups for cell in of_group(declared, name, matrix, untuned=True)]
    asked = [cell for cell in cells if any(matches(cell, pattern) for pattern in patterns)]
    if not asked and required:
        raise UserError(f"--cells {' '.join(patterns)}: no cell of a group that `chooses` in cells.yaml")
    return list({place_of(cell): cell for cell in asked}.values())


def tuned(declared: Declared, dataset: str, backbone: str) -> Settings:
    """What is declared of a data set, of a backbone, and of both together."""
    together = declared.tuned.get(f"{dataset}/{backbone}", {})
    return {**declared.datasets[dataset], **declared.backbones[backbone], **together}


def with_changes(cells: Sequence[Kind], changes: Sequence[str]) -> list[Kind]:
    """The cells with these parameters, "key=value" in YAML, as well: a trial, and no part of the study.

    UserError for one that is part of a cell's name, or follows from it.
    """
    found, named = {}, {*NAMED, *(OF_NAME if of_kind(Planting, cells) else ())}
    for text in changes:
        key, _, value = text.partition("=")
        if key in named:
            raise UserError(f"--set {text}: cells have a {key} of their own; choose some by --cells")
        found[key] = yaml_value(text, value)
    return [cast(Kind, cell._replace(settings=cell.settings | found)) for cell in cells]


def of_kind(kind: type[Kind], cells: Iterable[AnyCell]) -> list[Kind]:
    """Those that are trainings, or those that are plantings."""
    return [cell for cell in cells if isinstance(cell, kind)]
