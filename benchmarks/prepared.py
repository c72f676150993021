"""Data sets ready to be trained on, made by the stages themselves but without DVC, in .cache/benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from iadsr.artifacts import file_digest, replacing_folder, text_digest
from iadsr.device import pick_device
from iadsr.encode.recipe import Recipe
from iadsr.errors import UserError
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.params import ParamsError, choice, lookup, read_params, read_yaml
from iadsr.params_check import problems
from stages import paths

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "benchmarks"


def parameters(chosen: dict[str, Any], changes: list[str], **train: Any) -> dict[str, Any]:
    """params.yaml of this repository with `chosen` (dotted key -> value) and `changes` ("key=value" in YAML).

    Keyword arguments are chosen under `train`.

    Prefix vectors are means of item vectors, which take a minute instead of half an hour and the same room. A None in
    `chosen` leaves the file's value. UserError for a change without "=", a key that the file lacks, a wrong value.
    """
    content = read_params(ROOT / "params.yaml")
    content["encode"]["prefixes"] = "mean"
    for key, value in (chosen | {f"train.{name}": value for name, value in train.items()}).items():
        if value is not None:
            change(content, key, value)
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected KEY=VALUE, such as train.learning_rate=0.001")
        change(content, key, yaml_value(text, value))
    if found := problems(content):
        raise ParamsError(found)
    return content


def yaml_value(text: str, value: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise UserError(f"--set {text}: not a value in YAML: {' '.join(str(error).split())}") from None


def change(content: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key that must exist already; else UserError lists the keys beside it."""
    lookup(content, key)
    *parents, name = key.split(".")
    group = content
    for parent in parents:
        group = group[parent]
    group[name] = value


def prepared(content: dict[str, Any]) -> Path:
    """A folder with data/filtered, and with as much of data/encoded as the denoiser reads; made at the first call.

    It is made again when a parameter or a code file that its stages read has changed. UserError when a stage fails.
    """
    reads_texts = DENOISERS[content["denoiser"]].traits.reads_texts or content["train"]["item_start"] == "text"
    stages = ["ingest", "filter"] + (["encode"] if reads_texts else [])
    folder = CACHE / f"{choice(content, 'dataset', 'datasets')}-{key(content, stages)[:12]}"
    if not folder.exists():
        with replacing_folder(folder) as new:
            make(new, content, stages)
    return folder


def trained_in(content: dict[str, Any]) -> Path:
    """Where trainings with these parameters, this code and torch, on such a device, lie and go on when interrupted."""
    stages, groups = ["ingest", "filter", "encode", "train", "evaluate"], ("encoders", "backbones", "denoisers")
    others = {name: value for name, value in content.items() if name not in ("datasets", "noise", *groups)}
    device = pick_device(content["train"]["device"], "train.device").type
    read = [others, device, torch.__version__, *(content[each][choice(content, each[:-1], each)] for each in groups)]
    return CACHE / "trained" / f"{content['dataset']}-{text_digest(json.dumps(read), key(content, stages))[:12]}"


def shared_detectors() -> Path:
    """Where measurements that do not time a detector's training keep detectors."""
    folder = CACHE / "trained" / "detectors"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def key(content: dict[str, Any], stages: list[str]) -> str:
    """A digest of all that decides what the stages write: parameters, and code as dvc.yaml lists it."""
    dataset = lookup(content, f"datasets.{content['dataset']}")
    if lookup(dataset, "source.kind") == "files":
        raise UserError("--dataset: your own files cannot be measured, only generated and official data sets")
    read: list[Any] = [dataset, *(content[name] for name in ("ingest", "filter", "noise"))]
    if "encode" in stages:
        read += [content["encode"], content["encoder"], content["encoders"], Recipe.of(content).prefixes]
    listed = read_yaml(ROOT / "dvc.yaml")["stages"]
    places = {
        ROOT / place for stage in stages for place in listed[stage]["deps"] if place.startswith(("iadsr", "stages"))
    }
    code = sorted({file for place in places for file in (place.rglob("*.py") if place.is_dir() else [place])})
    return text_digest(json.dumps(read), *map(file_digest, code))


def make(folder: Path, content: dict[str, Any], stages: list[str]) -> None:
    """Run the stages in `folder`; what they print goes to stderr, because stdout is the measurement's."""
    YAML().dump(content, folder / "params.yaml")
    for cache in (paths.DOWNLOADS, paths.ENCODE_WORK):  # so that no file is downloaded, and no text encoded, twice
        (folder / cache).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / cache).mkdir(parents=True, exist_ok=True)
        (folder / cache).symlink_to(ROOT / cache)
    for stage in stages:
        command = [sys.executable, "-m", f"stages.{stage}"]
        done = subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)
        sys.stderr.write(done.stdout)
        if done.returncode:
            raise UserError(f"the stage {stage} of data set {content['dataset']} failed; its message stands above")


def environment() -> dict[str, str]:
    """This process's environment, with the repository's code first."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
