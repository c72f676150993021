"""Stage `train`: a backbone, plain or under a denoiser -> weights, history, verdicts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.train.fit import EpochReport
    from iadsr.train.run import TrainFiles

app = new_app()


@app.command(epilog="Example: dvc exp run -S backbone=sasrec -S theta=-0.5   (or, without DVC: python -m stages.train)")
@reports_errors
@alone("train")
def main(
    params: ParamsFile = paths.PARAMS,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds such as 0,1,2: train and evaluate them side by side, each in models/seeds/SEED."),
    ] = None,
    skip_trained: Annotated[
        bool, typer.Option("--skip-trained", help="Do nothing where models/model is from this very training.")
    ] = False,
) -> None:
    """Train on data/filtered and data/encoded; write models/model, models/history.csv and models/verdicts.parquet.

    Interrupted at any moment, the same command goes on from the last finished epoch and ends with the same result.
    """
    from iadsr.params import read_params
    from stages.seeds import train_side_by_side

    content = read_params(params)
    if seeds is None:
        train(content, skip_trained)
    else:
        train_side_by_side(content, seeds)


def train(content: dict[str, object], skip_trained: bool) -> None:
    """One training, followed by a progress bar and MLflow."""
    from iadsr.train.run import Training, alone_in
    from stages.tracking import open_run

    training = Training.of(content, files())
    if skip_trained and training.is_done():
        print(f"{paths.MODEL}: trained already")
        return
    with alone_in(training.work), open_run(training.config, content) as run:
        reports = list(run.following(with_progress_bar(while_wanted(training.epochs()), training.settings.max_epochs)))
        print(training.finish(reports))
        paths.DENOISED.unlink(missing_ok=True)  # it was of another training


def while_wanted(reports: Iterable[EpochReport]) -> Iterator[EpochReport]:
    """The reports; under DVC a UserError after the epoch in which DVC itself ended, as with a closed terminal."""
    from iadsr.errors import UserError

    parent = os.getppid()
    for report in reports:
        if "DVC_STAGE" in os.environ and os.getppid() != parent:
            raise UserError(f"dvc has ended, and so does this training; `dvc repro` goes on after epoch {report.epoch}")
        yield report


def files() -> TrainFiles:
    from iadsr.train.run import TrainFiles

    return TrainFiles(
        sequences=paths.SEQUENCES,
        users=paths.USERS,
        items=paths.ITEMS,
        encoded=paths.ENCODED,
        model=paths.MODEL,
        history=paths.HISTORY,
        verdicts=paths.VERDICTS,
        work=paths.TRAIN_WORK,
        detectors=paths.project_root() / paths.DETECTORS,
    )


def with_progress_bar(reports: Iterable[EpochReport], most: int) -> Iterator[EpochReport]:
    """One bar over epochs, with the validation metric that decides when to stop."""
    from tqdm import tqdm

    from iadsr.train.history import STOPPING_METRIC

    best = 0.0
    with tqdm(total=most, desc="train", unit="epoch") as bar:
        for report in reports:
            best = max(best, report.figures[STOPPING_METRIC])
            drop = report.figures.get("drop_rate")
            extra = "" if drop is None else f", dropped {drop:.1%}"
            bar.set_postfix_str(f"validation NDCG@10 {report.figures[STOPPING_METRIC]:.4f}, best {best:.4f}{extra}")
            bar.update()
            yield report
        bar.total = bar.n  # early stopping has ended it


if __name__ == "__main__":
    app()
