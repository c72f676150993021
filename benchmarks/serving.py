"""`python -m benchmarks.serving`: seconds in which a served model answers a batch of histories it has not seen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import machine, options
from benchmarks.convergence import command, opened
from benchmarks.prepared import parameters, prepared
from benchmarks.processes import Child
from iadsr.device import set_threads
from iadsr.errors import UserError
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.serving.server import ESTIMATED
from stages import paths, recommend
from stages.command import new_app, reports_errors

app = new_app()
K = 10
EPOCHS = 10  # where weights do not decide how much is computed
Fields = dict[str, Any]


@app.command(epilog="Example: python -m benchmarks.serving --denoiser iadsr --json")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    backbone: options.Backbone = "gru4rec",
    denoisers: Annotated[
        list[str] | None, typer.Option("--denoiser", help=f"{' | '.join(DENOISERS)}; may be repeated. Else all.")
    ] = None,
    histories: Annotated[int, typer.Option(min=1, help="In one batch.")] = 1000,
    items: Annotated[int, typer.Option(min=1, help="Of each history, drawn from the catalogue.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of the training before.", show_default=f"{EPOCHS}; where texts are read, as in params.yaml"
        ),
    ] = None,
    model: Annotated[bool, typer.Option("--model", help="Ask models/model of this folder instead.")] = False,
    changes: options.Changes = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a model for each denoiser, with prefixes as texts where it reads them, and time one batch for each.

    A line each. BENCHMARKS.md says what the fields mean.
    """
    asked = (histories, items, threads)
    if model:
        found: Iterator[Fields] = iter([measured(Path.cwd(), *asked)])
    else:
        found = (trained(dataset, backbone, name, epochs, changes or [], asked) for name in denoisers or DENOISERS)
    for result in found:
        print(json.dumps(result) if as_json else in_words(result), flush=True)


def trained(
    dataset: str, backbone: str, denoiser: str, epochs: int | None, changes: list[str], asked: tuple[int, int, int]
) -> Fields:
    """The measurement of a model that is trained for it; UserError for an unknown denoiser."""
    if denoiser not in DENOISERS:
        raise UserError(f"--denoiser {denoiser}: unknown; known are {', '.join(DENOISERS)}")
    traits = DENOISERS[denoiser].traits
    chosen = {"dataset": dataset, "backbone": "none" if traits.own_encoder else backbone, "denoiser": denoiser}
    prefixes = ["encode.prefixes=joint"] if traits.reads_prefix_texts else []
    epochs = epochs or (None if prefixes else EPOCHS)
    content = parameters(chosen, [*prefixes, *changes], max_epochs=epochs, threads=asked[2])
    with TemporaryDirectory() as scratch:
        workspace = opened(content, prepared(content), Path(scratch))
        command(workspace, "stages.train")
        return measured(workspace, *asked)


def measured(folder: Path, histories: int, items: int, threads: int) -> Fields:
    """The fields, from a process of its own."""
    with Child(answers, str(folder), histories, items, threads) as child:
        return next(child)


def answers(folder: str, histories: int, items: int, threads: int) -> Iterator[Fields]:
    """Open the model in `folder`, ask for one history to warm up, and yield what the batch took."""
    os.chdir(folder)
    set_threads(threads)
    began = time.perf_counter()
    server = recommend.open_server(paths.PARAMS, screened=True)
    server.warm_up()
    start = time.perf_counter() - began
    ids, draw = np.array(server.catalogue.ids), np.random.default_rng(0)
    size = min(items, len(ids))
    drawn = [ids[draw.choice(len(ids), size, replace=False)].tolist() for _ in range(histories + 1)]
    k = min(K, len(ids))
    server.recommend(drawn[:1], k)
    encoded = server.texts.encoded if server.texts else 0
    began = time.perf_counter()
    found = server.recommend(drawn[1:], k, exact=False)
    seconds = time.perf_counter() - began
    texts = histories * min(size, server.config.max_length)
    yield {
        **{name: getattr(server.config, name) for name in ("dataset", "backbone", "denoiser")},
        "prefixes": server.config.encodings["prefixes"] if server.texts and server.config.encodings else None,
        "histories": histories,
        "items": size,
        "seconds": round(seconds, 3),
        "ms_a_history": round(1000 * seconds / histories, 3),
        "encoded_share": round((server.texts.encoded - encoded) / texts, 4) if server.texts else 0,
        "estimated_share": round(sum(answer.note == ESTIMATED for answer in found) / histories, 4),
        "start_seconds": round(start, 3),
        "peak_memory_bytes": machine.peak_memory(torch.device("cpu")),
        **machine.described(torch.device("cpu")),
    }


def in_words(result: Fields) -> str:
    return (
        f"{result['denoiser']} on {result['backbone']}, {result['dataset']}: {result['seconds']:.2f} s for "
        f"{result['histories']:,} histories of {result['items']} items on {result['threads']} threads "
        f"({result['encoded_share']:.1%} of the texts encoded), started in {result['start_seconds']:.1f} s, peak "
        f"memory {result['peak_memory_bytes'] / 2**20:,.0f} MiB"
    )


if __name__ == "__main__":
    app()
