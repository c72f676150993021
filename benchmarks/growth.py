"""`python -m benchmarks.growth`: time and memory as users and items grow, as a table, a file and a picture."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks import options, workload
from benchmarks.prepared import parameters
from benchmarks.processes import Child
from iadsr.artifacts import write_json
from iadsr.errors import UserError
from stages.command import new_app, reports_errors

app = new_app()

USERS, ITEMS = 22_000, 12_000  # about Beauty's: where the other axis begins
TIMES_USERS = (1, 2, 4, 8)
CATALOGUES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
LENGTH_OF = "beauty"  # the data set whose max_length and core apply
Fields = dict[str, Any]


class Grown(NamedTuple):
    axis: str  # what grows
    users: int
    items: int


@app.command(epilog="Example: python -m benchmarks.growth --backbone sasrec --batch-size 128")
@reports_errors
def main(
    backbone: options.Backbone = "gru4rec",
    batch_size: options.BatchSize = 128,
    dim: options.Dim = None,
    threads: options.Threads = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    changes: options.Changes = None,
    users: Annotated[int, typer.Option(min=1, help="Users at the first point, and while items grow.")] = USERS,
    items: Annotated[int, typer.Option(min=1, help="Items while users grow.")] = ITEMS,
    times: Annotated[str, typer.Option(help="Factors by which users grow.")] = ",".join(map(str, TIMES_USERS)),
    catalogues: Annotated[str, typer.Option(help="Numbers of items.")] = ",".join(map(str, CATALOGUES)),
    limit: Annotated[float, typer.Option(min=0.1, help="Seconds; what takes longer is timed in part.")] = 60.0,
    output: Annotated[Path, typer.Option(help="Where the numbers go.")] = Path("results/growth.json"),
    picture: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("docs/growth.png"),
    as_json: options.AsJson = False,
) -> None:
    """Time an epoch and a ranking of a plain backbone on generated data; each point in a process of its own."""
    chosen = {"dataset": LENGTH_OF, "backbone": backbone, "denoiser": "none"}
    content = parameters(
        chosen, changes or [], batch_size=batch_size, dim=dim, threads=threads, dtype=dtype, device=device
    )
    sizes = [Grown("users", users * factor, items) for factor in whole_numbers(times, "--times")]
    sizes += [Grown("items", users, count) for count in whole_numbers(catalogues, "--catalogues")]
    result = measured(content, sizes, limit)
    write_json(output, result)
    draw(picture, result["points"])
    print(json.dumps(result) if as_json else "\n".join(table(result["points"])))


def whole_numbers(text: str, option: str) -> list[int]:
    """The numbers of a list such as "1,2,4"; UserError for anything else."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{option} {text}: expected whole numbers above 0, such as 1,2,4")
    return [int(part) for part in parts]


def measured(content: Fields, sizes: list[Grown], limit: float) -> Fields:
    """The machine, the settings, and a point for each size."""
    backbone, machine = content["backbone"], {}
    points = []
    for size in sizes:
        found = ask(content, size, limit)
        machine = found["machine"]
        points.append(point(size, found))
        print(f"{size.axis}: {size.users:,} users, {size.items:,} items measured", file=sys.stderr)
    settings = {"train": content["train"], f"backbones.{backbone}": content["backbones"][backbone]}
    return {"backbone": backbone, "settings": settings, "limit": limit, **machine, "points": points}


def ask(content: Fields, size: Grown, limit: float) -> Fields:
    with Child(workload.growth_point, content, size.users, size.items, limit) as child:
        return next(child)


def point(size: Grown, found: Fields) -> Fields:
    """A point's fields; where `measured_share` is below 1, seconds are extrapolated from that share of users."""
    training, ranking, examples = found["training"], found["ranking"], found["load"].examples
    return {
        **size._asdict(),
        "interactions": found["interactions"],
        "examples": examples,
        "epoch_seconds": round(training["seconds"], 3),
        "examples_per_second": round(examples / training["seconds"], 1),
        "measured_share": round(training["measured_share"], 4),
        "training_peak_memory_bytes": training["peak_memory_bytes"],
        "evaluation_seconds": round(ranking["seconds"], 3),
        "users_per_second": round(size.users / ranking["seconds"], 1),
        "evaluation_measured_share": round(ranking["measured_share"], 4),
        "peak_memory_bytes": ranking["peak_memory_bytes"],  # of both, since the ranking comes after the training
    }


def table(points: list[Fields]) -> Iterator[str]:
    """A Markdown table with one row a point."""
    yield "| grows | users | items | s an epoch | examples/s | s a ranking | peak MiB | share of an epoch timed |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in points:
        yield (
            f"| {row['axis']} | {row['users']:,} | {row['items']:,} | {row['epoch_seconds']:.1f} "
            f"| {row['examples_per_second']:,.0f} | {row['evaluation_seconds']:.1f} "
            f"| {row['peak_memory_bytes'] / 2**20:,.0f} | {row['measured_share']:.0%} |"
        )


PANELS = {
    "epoch_seconds": "seconds an epoch",
    "evaluation_seconds": "seconds a ranking of all users",
    "peak_memory_mib": "peak memory, MiB",
}


def upright(name: str, title: str) -> Any:
    import altair as alt

    scale = alt.Scale(type="log", nice=True)
    return alt.Y(f"{name}:Q", title=title, scale=scale, axis=alt.Axis(format="~g", tickCount=4))


def draw(path: Path, points: list[Fields]) -> None:
    """A row of panels for each axis that grows; both scales are logarithmic, so linear growth has slope 1."""
    import altair as alt

    from iadsr.evaluate.plots import BLUE, HEIGHT, WIDTH

    panel = {"width": round(WIDTH * 0.6), "height": round(HEIGHT * 0.7)}
    grown = [{**point, "peak_memory_mib": point["peak_memory_bytes"] / 2**20} for point in points]
    rows = []
    for axis in dict.fromkeys(point["axis"] for point in points):
        shown = [point for point in grown if point["axis"] == axis]
        ticks = alt.Axis(format="~s", values=[point[axis] for point in shown], grid=False)
        across = alt.X(f"{axis}:Q", scale=alt.Scale(type="log", nice=False, padding=12), axis=ticks)
        line = alt.Chart(alt.Data(values=shown)).mark_line(point=True, color=BLUE).properties(**panel)
        rows.append(alt.hconcat(*(line.encode(x=across, y=upright(name, title)) for name, title in PANELS.items())))
    path.parent.mkdir(parents=True, exist_ok=True)
    alt.vconcat(*rows).save(path, scale_factor=2)


if __name__ == "__main__":
    app()
