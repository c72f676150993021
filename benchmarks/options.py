"""The options that the commands share; an option of params.yaml that is not given leaves the file's value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import peer
from iadsr.models.denoisers.registry import DENOISERS

Dataset = Annotated[str, typer.Option(help="An entry of `datasets` in params.yaml.")]
Backbone = Annotated[str, typer.Option(help="gru4rec | caser | sasrec | ligr")]
Denoiser = Annotated[str, typer.Option(help=" | ".join(DENOISERS))]
BatchSize = Annotated[int | None, typer.Option(help="train.batch_size: windows in a batch.", show_default=False)]
Dim = Annotated[int | None, typer.Option(help="train.dim: width of the item embeddings.", show_default=False)]
Threads = Annotated[
    int | None, typer.Option(help="train.threads: CPU threads; 0 is torch's choice.", show_default=False)
]
Dtype = Annotated[str | None, typer.Option(help="train.dtype: of the loss's products.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="train.device: auto | cpu | cuda | mps.", show_default=False)]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any KEY=VALUE of params.yaml, such as backbones.gru4rec.layers=1. May be repeated."),
]
Kind = Annotated[str, typer.Option(help="What is planted, as noise.kind; `none` plants nothing.")]
Ratio = Annotated[float, typer.Option(help="Plants for each real training interaction.")]
PlantingSeed = Annotated[int, typer.Option(min=0, help="Of planting and of the detector.")]
Peer = Annotated[
    Path | None, typer.Option("--peer", help="Python of an environment with the peer: time it too.", show_default=False)
]
PeerScript = Annotated[Path, typer.Option(help="What --peer runs; it prints a JSON object.", show_default=False)]
PeerEpochs = Annotated[int, typer.Option(min=1, help="Epochs of the peer, of which the fastest counts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on one line, and nothing else.")]

PEER_SCRIPT = peer.SCRIPT
