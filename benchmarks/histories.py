"""`python -m benchmarks.histories`: what the detector says of the histories of some users, with titles, as Markdown.

The users are drawn from those of whom it drops something, before anybody looks.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow.parquet
import typer

from benchmarks import options
from benchmarks.noise import judged, planting
from benchmarks.prepared import parameters, shared_detectors
from iadsr.errors import UserError
from iadsr.models.verdicts import training_rows
from iadsr.schemas import RAW_USER, TITLE
from stages.command import new_app, reports_errors

app = new_app()
WIDTH, LONGEST = 116, 60  # characters of a line, of a title


class Judgement(NamedTuple):
    title: str
    noise: float  # probability
    kept: bool


@app.command(epilog="Example: python -m benchmarks.histories --dataset beauty --users 10 --seed 0")
@reports_errors
def main(
    dataset: options.Dataset = "demo",
    users: Annotated[int, typer.Option(min=1, help="So many, drawn from those of whom something is dropped.")] = 10,
    longest: Annotated[int, typer.Option(min=1, help="Only users of at most so many training interactions.")] = 12,
    seed: options.PlantingSeed = 0,
    changes: options.Changes = None,
) -> None:
    """Train the detector on the data as they are, and print the training histories of some users with its verdicts."""
    content = parameters({"dataset": dataset, "denoiser": "cloze", **planting("none", 0.0, seed)}, changes or [])
    histories = {user: found for user, found in of_users(content) if len(found) <= longest}
    doubted = [user for user, found in histories.items() if not all(each.kept for each in found)]
    if len(doubted) < users:
        raise UserError(f"--users {users}: something is dropped of only {len(doubted)} users; ask for fewer")
    for user in np.random.default_rng(seed).choice(doubted, users, replace=False):
        print("\n".join(shown(histories[user])))


def of_users(content: dict[str, Any]) -> Iterator[tuple[str, list[Judgement]]]:
    """Each user's id and training history, oldest first."""
    training, verdicts, _ = judged(content, shared_detectors())
    titles = pyarrow.parquet.read_table(training.files.items)[TITLE].to_pylist()
    names = pyarrow.parquet.read_table(training.files.users)[RAW_USER].to_pylist()
    rows, offsets = training_rows(training.feed).numpy(), training.sequences.offsets.numpy()
    items, noise, kept = training.sequences.items.numpy(), 1 - verdicts.probability.numpy(), verdicts.kept.numpy()
    for name, begin, end in zip(names, offsets[:-1], offsets[1:], strict=True):
        own = [row for row in range(begin, end) if rows[row]]
        yield name, [Judgement(titles[items[row] - 1], float(noise[row]), bool(kept[row])) for row in own]


def shown(history: list[Judgement]) -> Iterator[str]:
    """One item of a list: what is dropped is struck out, with its probability of noise."""
    parts = [in_short(each) if each.kept else f"~~{in_short(each)}~~ ({each.noise:.2f})" for each in history]
    yield from textwrap.wrap(
        "; ".join(parts), WIDTH, initial_indent="- ", subsequent_indent="  ", break_long_words=False
    )


def in_short(judgement: Judgement) -> str:
    """Its title on one line, without what Markdown would take for its own."""
    title = " ".join(judgement.title.split())
    for mark in "\\`*_~[]<>|":
        title = title.replace(mark, " ")
    return textwrap.shorten(title, LONGEST, placeholder=" …")


if __name__ == "__main__":
    app()
