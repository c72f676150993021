"""Verdicts on every row of a log, of users seen in training or not, from the trained model; not a DVC stage."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

if TYPE_CHECKING:
    import numpy as np

    from iadsr.ingest.log_rows import Coded, LogRows
    from iadsr.models.config import ModelConfig
    from iadsr.models.denoisers.cloze.model import Cloze
    from iadsr.serving.log_verdicts import Log

app = new_app()
LIKELIER_THAN_NOT = 0.5

HistoriesFile = Annotated[
    Path,
    typer.Option(
        "--histories",
        help="CSV or Parquet, a row an interaction; its columns are those of the data set's own files in params.yaml, "
        "else user, item and, where there is one, timestamp.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Of the same kind.", show_default="FILE.denoised.csv or FILE.denoised.parquet")
]
Budget = Annotated[
    str | None, typer.Option(help="Drop at most this share of the judged rows, such as 5%.", show_default=False)
]
Threshold = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Drop what is more likely noise than this.", show_default=str(LIKELIER_THAN_NOT)),
]
KeepOnly = Annotated[bool, typer.Option("--keep-only", help="Write only the rows that are kept.")]


@app.command(epilog="Example: python -m stages.denoise --histories tonight.csv --budget 5%")
@reports_errors
def main(
    histories: HistoriesFile,
    out: Out = None,
    budget: Budget = None,
    threshold: Threshold = None,
    keep_only: KeepOnly = False,
    model: Annotated[Path, typer.Option(help="A model that was trained with cloze.")] = paths.MODEL,
    params: ParamsFile = paths.PARAMS,
) -> None:
    """Write a log with noise_probability, keep and reason behind its own columns; nothing is trained.

    Every row of the log is written, in its order. A row that is not judged is kept, and its reason says why.
    """
    from iadsr.ingest.histories import columns_of
    from iadsr.ingest.log_rows import read_log
    from iadsr.params import read_params
    from iadsr.serving.log_files import Verdicts, write_judged
    from iadsr.serving.log_verdicts import explained, judged, threshold_for

    share = share_of(budget, threshold)
    detector, config, ids, titles = opened(model)
    given = read_log(str(histories), columns_of(read_params(params)))
    log = log_of(given, config, ids)
    found = judged(detector, log, config.max_length)
    limit = threshold_for(found.noise, share) if share is not None else (threshold or LIKELIER_THAN_NOT)
    decided = explained(detector, log, found, limit, titles, config.max_length)
    reasons = in_file_order(decided.reasons, given)
    noise, keep = (back(values, given.order) for values in (found.noise, decided.keep))
    target = out or histories.with_name(f"{histories.stem}.denoised{histories.suffix}")
    write_judged(histories, target, given.separator, Verdicts(noise, keep, reasons.__getitem__), keep_only)
    for note in given.notes:
        print(note, file=sys.stderr)
    print("\n".join(summary(noise, keep, reasons, limit, target)))


def share_of(budget: str | None, threshold: float | None) -> float | None:
    """
    >>> share_of("5%", None), share_of("0.05", None), share_of(None, 0.8)
    (0.05, 0.05, None)
    """
    from iadsr.errors import UserError

    if budget is None:
        return None
    if threshold is not None:
        raise UserError("give either --budget or --threshold: both say how much is dropped")
    try:
        share = float(budget.removesuffix("%")) / (100 if budget.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UserError(f"--budget {budget}: expected a share such as 5% or 0.05")
    return share


def opened(folder: Path) -> tuple[Cloze, ModelConfig, list[str], list[str]]:
    """The model, its configuration, and ids and titles of its catalogue; UserError for a model without a detector."""
    import torch

    from iadsr.errors import UserError
    from iadsr.models.denoisers.cloze.model import Cloze
    from iadsr.models.files import load_model
    from iadsr.serving.catalogue import read_catalogue

    model, config = load_model(folder, torch.device("cpu"))
    if not isinstance(model, Cloze):
        raise UserError(
            f"{folder}: it was trained with denoiser {config.denoiser}, which cannot judge other logs; train one with "
            "`dvc exp run -S denoiser=cloze`"
        )
    return model, config, *read_catalogue(paths.ITEMS, config)


def log_of(given: LogRows, config: ModelConfig, ids: list[str]) -> Log:
    """The rows in the order of time, in the model's numbers; rows with a fault count as unknown items."""
    import numpy as np

    from iadsr.serving.log_verdicts import Log

    catalogue = {raw: number for number, raw in enumerate(ids, 1)}
    items, users = numbered(given.items, catalogue), given.users.places.copy()
    bad = np.fromiter(given.faults, dtype=np.int64, count=len(given.faults))
    items[bad], users[users < 0] = 0, 0
    known = known_users(config)
    known_as = np.array([known.get(raw, 0) for raw in given.users.ids] or [0])
    return Log(users[given.order], items[given.order], known_as)


def numbered(column: Coded, numbers: dict[str, int]) -> np.ndarray:
    """For each row the number of its id; 0 for what is unknown, or no id at all."""
    import numpy as np

    return np.array([*(numbers.get(raw, 0) for raw in column.ids), 0])[column.places]


def known_users(config: ModelConfig) -> dict[str, int]:
    """The model's number of each user of its training data, where these still lie here."""
    from iadsr.artifacts import read_columns
    from iadsr.schemas import RAW_USER

    if not paths.USERS.exists():
        return {}
    raw = read_columns(paths.USERS, (RAW_USER,), "filter")[RAW_USER].to_pylist()
    return {user: number for number, user in enumerate(raw, 1)} if len(raw) == config.user_count else {}


def back(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """What stands in the order of time, in that of the file."""
    import numpy as np

    found = np.empty_like(values)
    found[order] = values
    return found


def in_file_order(reasons: list[str], given: LogRows) -> list[str]:
    """The reasons, of a row with a fault that fault."""
    found = [""] * len(reasons)
    for place, reason in zip(given.order.tolist(), reasons, strict=True):
        found[place] = reason
    for row, fault in given.faults.items():
        found[row] = f"not judged: {fault}"
    return found


def summary(noise: np.ndarray, keep: np.ndarray, reasons: list[str], limit: float, target: Path) -> list[str]:
    """What a person wants to know."""
    import numpy as np

    judged = np.isfinite(noise)
    dropped, share = int((~keep).sum()), float((~keep).sum() / max(1, judged.sum()))
    lines = [f"judged {judged.sum():,} of {len(noise):,} rows, {noise[judged].sum() / max(1, judged.sum()):.1%} noise"]
    lines += [f"dropped {dropped:,} ({share:.1%}), those more likely noise than {limit:.3f}"]
    why = Counter(reasons[row] for row in np.flatnonzero(~judged).tolist())
    lines += [f"{count:,} {reason}" for reason, count in why.most_common(5)]
    return [*lines, f"wrote {target}"]


if __name__ == "__main__":
    app()
