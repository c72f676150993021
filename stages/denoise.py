"""Verdicts on every row of a log, of users seen in training or not, from the trained model; not a DVC stage."""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.params import Params
    from iadsr.serving.judge import Decided, Judge

app = new_app()
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
    typer.Option(min=0, max=1, help="Drop what is more likely noise than this.", show_default="cloze.drop_above"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on one line, and nothing else.")]
KeepOnly = Annotated[bool, typer.Option("--keep-only", help="Write only the rows that are kept.")]


@app.command(epilog="Example: python -m stages.denoise --histories tonight.csv --budget 5%")
@reports_errors
def main(
    histories: HistoriesFile,
    out: Out = None,
    budget: Budget = None,
    threshold: Threshold = None,
    keep_only: KeepOnly = False,
    as_json: AsJson = False,
    model: Annotated[
        Path, typer.Option(help="A model that was trained with cloze; items.parquet may lie in it.")
    ] = paths.MODEL,
    params: ParamsFile = paths.PARAMS,
) -> None:
    """Write a log with noise_probability, keep and reason behind its own columns; nothing is trained.

    Every row of the log is written, in its order. A row that is not judged is kept, and its reason says why.
    """
    from iadsr.ingest.histories import columns_of
    from iadsr.params import read_params
    from iadsr.serving.judge import Judge
    from iadsr.serving.log_files import require_writable, write_judged
    from iadsr.serving.log_rows import read_log

    share = share_of(budget, threshold)
    judge = Judge.opened(model, *tables(model))
    content = read_params(params)
    log = read_log(str(histories), columns_of(content))
    target = out or histories.with_name(f"{histories.stem}.denoised{histories.suffix}")
    require_writable(histories, target, log.separator)
    learn_titles(judge, log.items.ids, content)
    decided = judge.decide(log, threshold, share)
    write_judged(histories, target, log.separator, decided, keep_only)
    for note in log.notes:
        print(note, file=sys.stderr)
    found = figures(decided, judge.expected)
    print(json.dumps(found) if as_json else "\n".join([*in_words(found), f"wrote {target}"]))


def tables(model: Path) -> tuple[Path, Path]:
    """Items and users that a model was trained on: beside it, as in a copy for serving, else those of the project."""
    beside = [model / path.name for path in (paths.ITEMS, paths.USERS)]
    return (beside[0], beside[1]) if beside[0].exists() else (paths.ITEMS, paths.USERS)


def learn_titles(judge: Judge, ids: list[str], content: Params) -> None:
    """Items of a log that `filter` removed from the training data are judged by their titles."""
    from iadsr.serving.catalogue import trained_encoder
    from stages.recommend import other_titles

    titles = other_titles()
    new = {raw: titles[raw] for raw in ids if raw not in judge.catalogue and raw in titles}
    if new and judge.config.encodings is not None:
        judge.learn_titles(new, trained_encoder(content, judge.config.encodings))


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


def figures(decided: Decided, expected: float) -> dict[str, Any]:
    """Counts of rows, and shares of those judged; `expected` is the share of noise in the training data.

    `drift` is how much larger that of this log is.
    """
    import numpy as np

    judged = np.isfinite(decided.noise)
    noise = float(decided.noise[judged].mean()) if judged.any() else 0.0
    why = Counter(compress(decided.reasons, ~judged))
    return {
        "rows": len(judged),
        "judged": int(judged.sum()),
        "dropped": int((~decided.keep).sum()),
        "threshold": decided.threshold,
        "noise": noise,
        "noise_in_training": expected,
        "drift": noise - expected if judged.any() else 0.0,
        "not_judged": dict(why.most_common()),
    }


def in_words(found: dict[str, Any]) -> list[str]:
    """What a person wants to know."""
    share = found["dropped"] / max(1, found["judged"])
    return [
        f"judged {found['judged']:,} of {found['rows']:,} rows, {found['noise']:.1%} noise "
        f"(in the training data {found['noise_in_training']:.1%})",
        f"dropped {found['dropped']:,} ({share:.1%}), those more likely noise than {found['threshold']:.3f}",
        *(f"{rows:,} {reason}" for reason, rows in list(found["not_judged"].items())[:5]),
    ]


if __name__ == "__main__":
    app()
