"""`python -m benchmarks.training`: examples per second of training, padding, memory, distance to the machine's peak."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks import multiply_adds, options, peer, results, workload
from benchmarks.prepared import parameters, prepared
from benchmarks.processes import Child
from iadsr.errors import UserError
from stages.command import new_app, reports_errors

app = new_app()

PREFIX_BATCH = 2048  # examples, as the peer trains
Fields = dict[str, Any]


@app.command(epilog="Example: python -m benchmarks.training --dataset ml-100k --backbone gru4rec --json")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    backbone: options.Backbone = "gru4rec",
    denoiser: options.Denoiser = "none",
    batch_size: options.BatchSize = None,
    dim: options.Dim = None,
    threads: options.Threads = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    changes: options.Changes = None,
    epochs: Annotated[int, typer.Option(min=1, help="Timed epochs, after one to warm up.")] = 3,
    users: Annotated[
        int | None, typer.Option(min=1, help="Epochs over that many users; graphs are of all.", show_default=False)
    ] = None,
    against_plain: Annotated[bool, typer.Option(help="With a denoiser, time the plain backbone in turn.")] = True,
    per_prefix: Annotated[bool, typer.Option(help="Also time, in turn, batches of one example a row.")] = False,
    peer_python: options.Peer = None,
    peer_script: options.PeerScript = options.PEER_SCRIPT,
    peer_epochs: options.PeerEpochs = 1,
    as_json: options.AsJson = False,
) -> None:
    """Time training; an example is one (prefix, next item) pair. BENCHMARKS.md says what the fields mean."""
    peer.checked(peer_python, peer_script)
    chosen = {"dataset": dataset, "backbone": backbone, "denoiser": denoiser}
    content = parameters(
        chosen, changes or [], batch_size=batch_size, dim=dim, threads=threads, dtype=dtype, device=device
    )
    found = peer.measured(peer_python, peer_script, content, peer_epochs) if peer_python else None
    result = measured(content, epochs, users, against_plain, per_prefix)
    if found is not None:
        result |= compared(result, found)
    print(json.dumps(result) if as_json else results.in_words(result, "examples_per_second"))


def measured(content: Fields, epochs: int, users: int | None, against_plain: bool, per_prefix: bool) -> Fields:
    """All fields but the peer's.

    What is compared takes turns, an epoch each, so that other work on the machine slows all alike.
    """
    if per_prefix and content["denoiser"] != "none":
        raise UserError("--per-prefix: measures a plain backbone; give it without --denoiser")
    folder = prepared(content)
    with ExitStack() as stack:
        rates = stack.enter_context(results.open_rates(content))
        rate = next(rates)
        opened = processes(content, folder, users, against_plain, per_prefix)
        children = {name: stack.enter_context(child) for name, child in opened.items()}
        turns = [{name: next(child) for name, child in children.items()} for _ in range(1 + epochs)]
        rate = results.faster(rates, rate)
    result = summary(content, [turn["own"] for turn in turns], rate)
    if "plain" in children:
        result |= over_plain(turns[1:])
    if "per_prefix" in children:
        result |= one_pass(result, [turn["per_prefix"] for turn in turns[1:]])
    return result


def processes(
    content: Fields, folder: Path, users: int | None, against_plain: bool, per_prefix: bool
) -> dict[str, Child[Fields]]:
    """A process for the model asked for, one for its plain backbone, or the nearest to it, one for an example a row."""
    found = {"own": Child(workload.training_epochs, content, folder, users)}
    if content["denoiser"] != "none" and against_plain:
        backbone = results.base_of(content["backbone"])
        plain = {**content, "denoiser": "none", "backbone": backbone}
        found["plain"] = Child(workload.training_epochs, plain, folder, users)
    if per_prefix:
        found["per_prefix"] = Child(workload.prefix_batches, content, folder, PREFIX_BATCH)
    return found


def summary(content: Fields, items: list[Fields], rates: dict[str, float]) -> Fields:
    """The fields to report; the first item is the warm-up, not timed; rates of examples are of the fastest epoch."""
    first, timed = items[0], items[1:]
    load, seconds = first["load"], [item["seconds"] for item in timed]
    adds = multiply_adds.training(load, first["shape"])
    return {
        **results.headed(content, first),
        "examples": load.examples,
        "epoch_seconds": round(min(seconds), 4),
        "epoch_seconds_median": round(median(seconds), 4),
        "examples_per_second": round(load.examples / min(seconds), 1),
        "peak_memory_bytes": timed[-1]["peak_memory_bytes"],
        **results.against_peak(adds, min(seconds), rates, first["matmul_dtype"]),
        "epochs": [epoch(number, item) for number, item in enumerate(items)],
    }


def epoch(number: int, item: Fields) -> Fields:
    """The fields of one epoch; number 0 is the warm-up."""
    figures = {name: round(value, 6) for name, value in item["figures"].items()}
    return {"epoch": number, "seconds": round(item["seconds"], 4), **figures}


def over_plain(turns: list[dict[str, Fields]]) -> Fields:
    """The denoiser's seconds over its plain backbone's: the median, and each epoch's, whose masks drop more or less."""
    found = [turn["own"]["seconds"] / turn["plain"]["seconds"] for turn in turns]
    return {
        "over_plain": round(median(found), 3),
        "over_plain_epochs": [round(value, 3) for value in found],
        "plain_epoch_seconds": [round(turn["plain"]["seconds"], 4) for turn in turns],
        "plain_peak_memory_bytes": turns[-1]["plain"]["peak_memory_bytes"],
    }


def one_pass(result: Fields, steps: list[Fields]) -> Fields:
    """`one_pass`: how much faster a row that serves every prefix is than one example a row."""
    best = max(step["load"].examples / step["seconds"] for step in steps)
    total = sum((step["load"] for step in steps), multiply_adds.Load())
    prefixes = {
        "batches": len(steps),
        "batch_size": steps[0]["load"].examples,
        "examples_per_second": round(best, 1),
        "padding_share": round(total.padding_share(total.rows), 4),
        "peak_memory_bytes": steps[-1]["peak_memory_bytes"],
    }
    return {"per_prefix": prefixes, "one_pass": round(result["examples_per_second"] / best, 3)}


def compared(result: Fields, found: Fields) -> Fields:
    """The comparison with the peer: `ratio`, and `the_rest` of it that is not `one_pass`."""
    fields = results.against_peer(result, found, "examples_per_second")
    if "per_prefix" in result:
        rest = result["per_prefix"]["examples_per_second"] / found["examples_per_second"]
        fields["the_rest"] = round(rest, 3)
    return fields


if __name__ == "__main__":
    app()
