"""`python -m benchmarks.evaluation`: users per second of a full ranking of all test users."""

from __future__ import annotations

import json
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks import multiply_adds, options, peer, results, workload
from benchmarks.prepared import parameters, prepared
from benchmarks.processes import Child
from stages.command import new_app, reports_errors

app = new_app()

SCORES = "float32"  # the number format in which all items are scored
Fields = dict[str, Any]


@app.command(epilog="Example: python -m benchmarks.evaluation --dataset beauty --backbone sasrec --json")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    backbone: options.Backbone = "gru4rec",
    denoiser: options.Denoiser = "none",
    dim: options.Dim = None,
    threads: options.Threads = None,
    device: options.Device = None,
    changes: options.Changes = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed rankings, after one to warm up.")] = 5,
    peer_python: options.Peer = None,
    peer_script: options.PeerScript = options.PEER_SCRIPT,
    as_json: options.AsJson = False,
) -> None:
    """Time the ranking of every test user's target among all items. BENCHMARKS.md says what the fields mean."""
    peer.checked(peer_python, peer_script)
    chosen = {"dataset": dataset, "backbone": backbone, "denoiser": denoiser}
    content = parameters(chosen, changes or [], dim=dim, threads=threads, device=device)
    found = peer.measured(peer_python, peer_script, content, epochs=1) if peer_python else None
    result = measured(content, repeats)
    if found is not None:
        result |= results.against_peer(result, found, "users_per_second")
    print(json.dumps(result) if as_json else results.in_words(result, "users_per_second"))


def measured(content: Fields, repeats: int) -> Fields:
    """All fields but the peer's; the model has its first weights, since its scores do not decide its speed."""
    folder = prepared(content)
    with results.open_rates(content) as rates, Child(workload.rankings, content, folder) as rankings:
        rate = next(rates)
        first, *timed = [next(rankings) for _ in range(1 + repeats)]
        rate = results.faster(rates, rate)
    return summary(content, first, timed, rate)


def summary(content: Fields, first: Fields, timed: list[Fields], rates: dict[str, float]) -> Fields:
    """The fields to report; rates are of the fastest ranking."""
    users, seconds = first["load"].windows, [item["seconds"] for item in timed]
    adds = multiply_adds.ranking(first["load"], first["shape"])
    return {
        **results.headed(content, first),
        "users": users,
        "evaluation_seconds": round(min(seconds), 4),
        "evaluation_seconds_median": round(median(seconds), 4),
        "users_per_second": round(users / min(seconds), 1),
        "peak_memory_bytes": timed[-1]["peak_memory_bytes"],
        **results.against_peak(adds, min(seconds), rates, SCORES),
        "repeats": [round(value, 4) for value in seconds],
    }


if __name__ == "__main__":
    app()
