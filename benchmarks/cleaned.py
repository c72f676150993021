"""`python -m benchmarks.cleaned`: what it gains to recommend from histories without what the detector drops."""

from __future__ import annotations

import json
from typing import Annotated, Any

import torch
import typer
from jaxtyping import Float
from torch import Tensor

from benchmarks import options
from benchmarks.prepared import prepared, trained_in
from iadsr.errors import UserError
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.files import load_model
from iadsr.models.ranking import rank_targets, summarise
from iadsr.models.recommender import Recommender, newest
from iadsr.schemas import TEST, VALIDATION
from iadsr.sequences.windows import Batch, Feed, read_sequences
from stages import paths
from stages.command import new_app, reports_errors
from study.cells import Cell, cells_of, of_kind, read_declared

app = new_app()
CUTOFFS = (10,)


class FromCleaned(Cloze):
    """The same model, but what it recommends follows from what is left of a history."""

    @torch.no_grad()
    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """After each window without what is dropped; of a window of which nothing is left, after all of it."""
        kept = (self.score(self.clean_probability(batch)) >= 0) & batch.valid
        kept = kept.where(kept.any(1, keepdim=True), batch.valid)
        states, _ = self.states_without(batch.items, kept)
        return self.head(newest(states, batch.last))


@app.command(epilog="Example: python -m benchmarks.cleaned --cell planted-20/beauty/sasrec/cloze/0 --json")
@reports_errors
def main(
    cell: Annotated[str, typer.Option(help="A cell of the study, of method cloze, that was trained here.")],
    as_json: options.AsJson = False,
) -> None:
    """Rank the held-out items of a trained cell from histories as they are, and from cleaned ones."""
    torch.set_num_threads(1)
    result = {"cell": cell, **measured(chosen(cell))}
    print(json.dumps(result) if as_json else json.dumps(result, indent=2))


def chosen(name: str) -> Cell:
    """UserError unless it is one cell, and one that has a detector."""
    cells = of_kind(Cell, cells_of(read_declared(), [name]))
    if len(cells) != 1 or cells[0].content()["denoiser"] != "cloze":
        raise UserError(f"--cell {name}: name one cell of method cloze, such as planted-20/beauty/sasrec/cloze/0")
    return cells[0]


def measured(cell: Cell) -> dict[str, Any]:
    """HR@10 and NDCG@10 of both splits, `raw` and `cleaned`."""
    content = cell.content()
    folder = trained_in(content) / paths.SEEDS / str(cell.seed) / paths.MODEL
    if not folder.exists():
        raise UserError(
            f"{cell.name}: not trained here; run `python -m study run --cells {cell.name}`, then this again"
        )
    model, config = load_model(folder, torch.device("cpu"))
    feed = Feed(read_sequences(prepared(content) / paths.SEQUENCES))
    raw = ranked(model, feed, config.max_length)
    model.__class__ = FromCleaned  # the same weights
    return {"raw": raw, "cleaned": ranked(model, feed, config.max_length)}


def ranked(model: Recommender, feed: Feed, max_length: int) -> dict[str, float]:
    found = [summarise(rank_targets(model, feed, split, max_length), CUTOFFS, split) for split in (VALIDATION, TEST)]
    return {name: round(value, 4) for each in found for name, value in each.items()}


if __name__ == "__main__":
    app()
