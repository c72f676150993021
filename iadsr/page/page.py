"""A run as one HTML file that opens from disk: numbers with intervals, pictures, and histories with verdicts.

Nothing in it leaves the file, and all text from data is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import polars as pl

from iadsr.artifacts import replacing
from iadsr.evaluate.report import user_metrics
from iadsr.models.config import ModelConfig
from iadsr.models.files import require_own
from iadsr.models.ranking import METRICS, PROTOCOLS, cutoffs_of, headline_cutoff, headlines, metric_name
from iadsr.page.charts import pictures
from iadsr.page.examples import examples
from iadsr.page.numbers import Numbers
from iadsr.schemas import SPLIT, TEST, TRAIN
from iadsr.serving.judge import can_judge
from iadsr.train.history import read_history

TEMPLATE = "report.html.j2"
NORMAL = 1.96  # standard errors on either side of a 95% interval


class PageFiles(NamedTuple):
    """What the page is made of."""

    model: Path
    history: Path
    verdicts: Path
    items: Path
    ranks: Path
    plots: Path


class Interval(NamedTuple):
    """A mean over users, and its 95% interval if other users had been drawn."""

    mean: float
    low: float
    high: float


def write_page(path: Path, files: PageFiles, config: ModelConfig, numbers: Numbers) -> None:
    """Write the page; UserError for inputs that are missing, damaged or of another training."""
    for own in (files.verdicts, files.history):
        require_own(config, own)
    verdicts = pl.read_parquet(files.verdicts)
    judged = verdicts.filter((pl.col(SPLIT) == TRAIN) & pl.col("keep_probability").is_not_null())
    cutoffs = cutoffs_of(numbers.details)
    history = read_history(files.history, config.epochs)
    content = {
        "headline": headline(config, numbers.details),
        "config": config,
        "numbers": numbers,
        "cutoffs": cutoffs,
        "accuracy": list(accuracy(files.ranks, cutoffs)),
        "pictures": pictures(files.plots, history, 1 - judged["keep_probability"].to_numpy()),
        "noise": noise_known(numbers.details),
        "histories": examples(verdicts, files.items, files.model, can_judge(config)),
    }
    with replacing(path) as temporary:
        temporary.write_text(template().render(content), encoding="utf-8")


def headline(config: ModelConfig, details: dict[str, Any]) -> str:
    """What a person should know first."""
    name = config.denoiser if config.denoiser != "none" else "No denoiser"
    over = f" on {config.backbone}" if config.backbone != "none" else ""
    best = headlines(details)[0]
    shown = f"{best.removeprefix(f'{TEST}_').split('_')[0].upper()}@{headline_cutoff(cutoffs_of(details))}"
    return (
        f"{name}{over}, data set {config.dataset}: {details['drop_ratio']:.1%} of interactions dropped, {shown} "
        f"{details[best]:.4f}"
    )


def template(name: str = TEMPLATE, *folders: Path) -> jinja2.Template:
    """One of this folder or of `folders`. What stands in it is escaped; a name that it lacks is an error."""
    loader = jinja2.FileSystemLoader([Path(__file__).parent, *folders])
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template(name)


def accuracy(ranks: Path, cutoffs: list[int]) -> Iterator[tuple[str, list[Interval]]]:
    """Rows of the table: for each protocol HR and NDCG at each cutoff."""
    found = {cutoff: user_metrics(ranks, cutoff) for cutoff in cutoffs}
    for protocol in PROTOCOLS:
        for metric in METRICS:
            values = [found[cutoff][metric_name(metric, cutoff, protocol)] for cutoff in cutoffs]
            yield f"{metric.upper()}, {protocol}", [interval(each) for each in values]


def interval(values: Any) -> Interval:
    """From the normal distribution of means; one user has no interval but the whole."""
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 1.0
    return Interval(mean, max(0.0, mean - NORMAL * error), min(1.0, mean + NORMAL * error))


def noise_known(details: dict[str, Any]) -> list[tuple[str, float]]:
    """What is known of noise, in words; nothing where none is known."""
    names = {
        "noise_share": "share of known noise among training interactions",
        "noise_auc": "AUC of the drop score (.5: chance)",
        "noise_precision": "precision of what is dropped",
        "noise_recall": "recall of what is dropped",
        "noise_calibration_error": "calibration error",
    }
    return [(said, details[name]) for name, said in names.items() if name in details]
