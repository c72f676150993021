"""params.yaml: read once, checked group by group, each mistake reported with the path of its key."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from iadsr.errors import UserError

TOP_LEVEL = (
    "dataset",
    "backbone",
    "denoiser",
    "theta",
    "encoder",
    "seed",
    "noise",
    "ingest",
    "filter",
    "encode",
    "train",
    "evaluate",
    "backbones",
    "denoisers",
    "encoders",
    "datasets",
)
# Where the groups of earlier files stand now.
MOVED = {name: f"denoisers.{name}" for name in ("iadsr", "hsd", "ssdrec", "dcrec", "steam", "adt")}
MOVED["semantic"] = "denoisers.text_rule"
# A key, and a value that begins with a sign of YAML's, or is nothing but one, or whose quotation mark is not closed.
UNQUOTED = re.compile(
    r"""\s*(?P<key>[\w.-]+):[ \t]+"""
    r"""(?P<value>[%@`,\t][^"]*|[*&!|>?:\[\]{}\\-]|"[^"]*|'[^']*|[^"'\[{ ][^"']*:[ ][^"']*)"""
)
MOST_SHOWN = 200  # characters of a wrong value
# What pydantic says in words of its own.
EXPECTED = {
    "string_type": "expected text; put it into quotation marks",
    "string_too_short": "expected a text that is not empty",
    "dict_type": "expected a mapping",
    "model_type": "expected a mapping",
}
RENAMED = {"semantic": "text_rule"}  # entries of `denoisers`


class Group(pydantic.BaseModel):
    """A group of parameters: immutable, typed strictly, all numbers finite, with unknown keys refused."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DatasetParams(Group):
    """`datasets.<name>` of params.yaml, of which each stage reads its own part."""

    core: int = pydantic.Field(ge=0)  # interactions that each user and item must have; 0 or 1: no filtering
    max_length: int = pydantic.Field(ge=1)  # newest items of a history that a model reads
    source: dict[str, Any]  # as its `kind` demands: iadsr/ingest/sources.py


class ParamsError(UserError):
    """Wrong values of params.yaml; each of `problems` begins with the path of its key."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(f"params.yaml: {'; '.join(problems)}")
        self.problems = problems


Params = dict[Any, Any]  # YAML's keys need not be text
AnyGroup = TypeVar("AnyGroup", bound=pydantic.BaseModel)


def read_params(path: Path) -> Params:
    """The whole file as nested dictionaries; UserError for a missing file, broken YAML or an unknown top-level key."""
    content = read_yaml(path)
    unknown = unknown_keys(content)
    if unknown:
        raise UserError(f"{path}: {unknown[0]}")
    return content


def read_yaml(path: Path) -> Params:
    """The file's content, whatever its keys; UserError for a missing file, broken YAML or anything but a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run from the project's root folder") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    try:
        content = deepcopy(_parsed(text))
    except MarkedYAMLError as error:
        raise UserError(f"{path}{_unquoted(text, error) or _broken(error)}") from None
    except (YAMLError, ValueError, TypeError, OverflowError):
        raise UserError(
            f"{path}: not valid YAML, or a value that is none; compare it with the last one that worked"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: nested too deep; parameters stand at most five levels deep") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of parameters, found {type(content).__name__}")
    return content


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """A study reads the same file for each of its cells."""
    return YAML(typ="safe", pure=True).load(text)


def _unquoted(text: str, error: MarkedYAMLError) -> str:
    """The row whose value YAML takes for signs of its own, and what to do; nothing where it is broken otherwise."""
    lines = text.split("\n")
    for mark in filter(None, (error.problem_mark, error.context_mark)):
        found = UNQUOTED.fullmatch(lines[mark.line].rstrip()) if mark.line < len(lines) else None
        if found:
            key, value = found["key"], found["value"].strip("\"'")
            mended = f'{key}: "{value}"' if value else f"{key}: '\"'"
            return f", row {mark.line + 1}: not valid YAML: the value of {key!r} must stand in quotation marks" + (
                f", as in {mended}" if value and len(value) <= MOST_SHOWN else ""
            )
    return ""


def _broken(error: MarkedYAMLError) -> str:
    mark, why = error.problem_mark or error.context_mark, error.problem or error.context or "its form is broken"
    return f"{f', row {mark.line + 1}' if mark else ''}: not valid YAML: {' '.join(why.split())}"


def unknown_keys(content: Params) -> list[str]:
    """A message for each key at top level that no stage reads."""
    known = f"known are {', '.join(TOP_LEVEL)}"
    return [
        f"unknown parameter {key!r}; it is {MOVED[key]} now" if key in MOVED else f"unknown parameter {key!r}; {known}"
        for key in sorted(set(content) - set(TOP_LEVEL), key=str)
    ]


def lookup(params: Params, key: str) -> Any:
    """The value at a dotted key; UserError when it is missing, listing what exists beside it."""
    value: Any = params
    walked: list[str] = []
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            where = ".".join(walked) or "params.yaml"
            present = ", ".join(str(k) for k in value) if isinstance(value, dict) else repr(value)
            raise UserError(f"params.yaml: no parameter {key!r}; {where} has: {present}")
        value = value[part]
        walked.append(part)
    return value


def found_at(params: Params, key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def choice(params: Params, key: str, table: str) -> str:
    """The name chosen by top-level `key`, which must be an entry of the mapping `table`."""
    name, known = lookup(params, key), lookup(params, table)
    if not isinstance(known, dict):
        raise UserError(f"params.yaml: {table}: expected a mapping, found {known!r}")
    if not isinstance(name, str) or name not in known:
        there = f"known (under `{table}`) are {', '.join(map(str, known))}"
        raise UserError(f"params.yaml: unknown {key} {name!r}; {renamed(name)}{there}")
    return name


def renamed(name: Any) -> str:
    """What an error says of an entry of `denoisers` under its old name; of all others nothing."""
    return f"it is called {RENAMED[name]} now; " if isinstance(name, str) and name in RENAMED else ""


def chosen_dataset(params: Params) -> tuple[str, DatasetParams]:
    """The data set's name, and its checked parameters."""
    name = choice(params, "dataset", "datasets")
    return name, group(params, f"datasets.{name}", DatasetParams)


def group(params: Params, key: str, model: type[AnyGroup], **more: Any) -> AnyGroup:
    """The mapping at `key`, joined with `more`, as a checked `model`; UserError names each wrong key's full path."""
    value = lookup(params, key)
    if not isinstance(value, dict):
        raise UserError(f"params.yaml: {key}: expected a mapping, found {value!r}")
    misplaced = next((name for name in more if name in value), None)
    if misplaced:
        raise UserError(f"params.yaml: {key}.{misplaced}: unknown parameter; {misplaced} stands at top level")
    return checked(model, {**value, **more}, key, moved=tuple(more))


def checked(model: type[AnyGroup], value: dict[str, Any], key: str, moved: tuple[str, ...] = ()) -> AnyGroup:
    """Validate `value` as `model`; fields in `moved` stand at top level, so their errors leave out `key`."""
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        raise ParamsError([_problem(entry, key, moved) for entry in error.errors()]) from None


def _problem(entry: Any, key: str, moved: tuple[str, ...]) -> str:
    location = [str(part) for part in entry["loc"]]
    path = ".".join(location if location and location[0] in moved else [key, *location])
    if entry["type"] == "extra_forbidden":
        return f"{path}: unknown parameter"
    if entry["type"] == "value_error":
        found = "" if isinstance(entry["input"], dict) else f", found {shown(entry['input'])}"
        return f"{path}: {entry['msg'].removeprefix('Value error, ')}{found}"
    expected = EXPECTED.get(entry["type"], f"{entry['msg'][0].lower()}{entry['msg'][1:]}")
    return f"{path}: {expected}, found {shown(entry['input'])}"


def shown(value: Any) -> str:
    """A wrong value as a message has room for it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
