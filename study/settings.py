"""What of params.yaml decides a result, so that two of equal settings are one."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import lru_cache
from typing import Any

from benchmarks import prepared
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.params import ParamsError, choice

Settings = dict[str, Any]  # by dotted key of params.yaml
# They do not decide what is trained, only where and how fast.
FREE = {
    *("encode.actors", "encode.batch_tokens", "encode.device", "encode.engine", "encode.threads"),
    *("train.device", "train.threads"),
}
SEEDS = {"seed", "noise.seed", "denoisers.cloze.detector.seed"}
OF_PREFIXES = ("prefixes", "prefix_template", "separator")  # of `encode`


def content_of(settings: Settings) -> dict[str, Any]:
    """params.yaml with these settings; ParamsError where they do not go together.

    Seeds do not matter to that, so cells that differ by no more are checked once.
    """
    rest = {key: value for key, value in settings.items() if key not in SEEDS}
    file = prepared.ROOT / "params.yaml"
    content = deepcopy(checked(json.dumps(rest), str(file), file.stat().st_mtime_ns))
    for key in sorted(settings.keys() & SEEDS):
        if type(settings[key]) is not int or settings[key] < 0:
            raise ParamsError([f"{key}: expected a whole number from 0, found {settings[key]!r}"])
        prepared.change(content, key, settings[key])
    return content


@lru_cache(maxsize=1024)
def checked(settings: str, file: str, changed: int) -> dict[str, Any]:
    """The same of settings in JSON, while the file stays as it is."""
    return prepared.parameters(json.loads(settings), [])


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
