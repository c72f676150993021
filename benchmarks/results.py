"""The fields that every measurement reports, put together from what the child processes found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.processes import Child
from iadsr.errors import UserError
from iadsr.models.assembly import NO_BACKBONE
from iadsr.models.denoisers.registry import DENOISERS

Fields = dict[str, Any]


STAND_ALONE_BASE = "sasrec"  # of steam and dcrec, whose encoders are transformers, too


def base_of(backbone: str) -> str:
    """The plain backbone that a method is compared with."""
    return STAND_ALONE_BASE if backbone == NO_BACKBONE else backbone


def read_runs(path: Path) -> list[Fields]:
    """The JSON object of each line; UserError for a missing file and for a line that is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return [_run(line, f"{path}, line {number}") for number, line in enumerate(path.read_text().splitlines(), 1)]


def _run(line: str, place: str) -> Fields:
    try:
        run = json.loads(line)
    except ValueError:
        run = None
    if not isinstance(run, dict):
        raise UserError(f"{place}: expected a JSON object, such as those of results/*.jsonl")
    return run


def headed(content: Fields, first: Fields) -> Fields:
    """What was measured, and where; `first` is the item that a workload yields for its warm-up."""
    backbone, denoiser = content["backbone"], content["denoiser"]
    settings = {"train": content["train"], f"backbones.{backbone}": content["backbones"][backbone]}
    if denoiser != "none":
        settings[denoiser] = content["denoisers"][denoiser]
        settings |= {key: content[key] for key in DENOISERS[denoiser].traits.top_level}
    head = {"dataset": content["dataset"], "backbone": backbone, "denoiser": denoiser, "settings": settings}
    load = first["load"]
    padding = {
        "padding_share": round(load.padding_share(load.rows), 4),
        "grouped_padding_share": round(load.padding_share(load.grouped), 4),
        "batch_padding_share": round(load.padding_share(load.places), 4),
    }
    return head | first["machine"] | padding


def against_peak(adds: dict[str, int], seconds: float, rates: dict[str, float], dtype: str) -> Fields:
    """`peak_fraction`: multiply-adds a second over the rate of a matrix product in the same number format.

    Empty where no multiply-adds are counted.
    """
    if not adds:
        return {}
    return {
        "multiply_adds": adds,
        "matrix_rate": {name: round(rate) for name, rate in rates.items()},
        "matrix_dtype": dtype,
        "peak_fraction": round(sum(adds.values()) / seconds / rates[dtype], 4),
    }


def faster(rates: Child[dict[str, float]], before: dict[str, float]) -> dict[str, float]:
    """Measure the rates once more and keep the better of both: a machine can do no less than it has done."""
    return {name: max(rate, before[name]) for name, rate in next(rates).items()}


def open_rates(content: Fields) -> Child[dict[str, float]]:
    return Child(machine.matrix_rates, content["train"])


def against_peer(result: Fields, found: Fields, rate: str) -> Fields:
    """What the peer reports, and `ratio`: ours over theirs in the field called `rate`."""
    return {"peer": found, "ratio": round(result[rate] / found[rate], 3)}


def in_words(result: Fields, rate: str) -> str:
    """The most important fields, for a person."""
    what = f"{result['dataset']}, {result['backbone']}, denoiser {result['denoiser']}"
    where = f"{result['device']} ({result['cpu']}), {result['threads']} threads"
    memory = f"padding {result['padding_share']:.1%}, peak memory {result['peak_memory_bytes'] / 2**20:,.0f} MiB"
    lines = [f"{what} on {where}", f"  {result[rate]:,.0f} {rate.replace('_per_', ' a ')}", f"  {memory}"]
    if "peak_fraction" in result:
        lines[-1] += f", {result['peak_fraction']:.1%} of the rate of {result['matrix_dtype']} matrix products"
    for name in ("ratio", "over_plain", "one_pass", "the_rest"):
        if name in result:
            lines.append(f"  {name} {result[name]:.2f}")
    return "\n".join(lines)
