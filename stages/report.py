"""The result of the last `dvc repro` as one readable table; not a DVC stage."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadsr.errors import MASK
from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.models.config import ModelConfig
    from iadsr.page.numbers import Numbers

app = new_app()


@app.command(epilog="Example: python -m stages.report")
@reports_errors
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Print data set statistics, HR and NDCG, what was dropped, how noise was found, and where files and plots are."""
    from iadsr.models.files import load_config
    from iadsr.params import read_params
    from iadsr.params_check import differs
    from stages.tracking import shown_address

    content = read_params(params)
    numbers, config = read_numbers(), load_config(paths.MODEL)
    require_one_run(config)
    print("\n".join(lines(config, numbers, shown_address())))
    if differs(content, config):
        print(f"\n{params} has changed since this model was trained: `dvc repro` would train again")


def read_numbers() -> Numbers:
    """The numbers of the run; UserError where a file is missing or was changed."""
    from iadsr.page.numbers import Numbers

    return Numbers(
        ingest=figures(paths.INGEST_METRICS, paths.RAW, "ingest"),
        dataset=figures(paths.DATASET_DETAILS, paths.FILTERED, "filter"),
        details=figures(paths.DETAILS, paths.EVALUATED, "evaluate"),
    )


def figures(path: Path, noted_in: Path, stage: str) -> dict[str, Any]:
    """The numbers that a stage has written; UserError when the file is missing, damaged or was changed."""
    from iadsr.artifacts import read_json
    from iadsr.errors import UserError
    from iadsr.provenance import checked

    checked([path], stage, noted_in)
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, int | float) for value in content.values()):
        raise UserError(f"{path}: not a table of numbers; run `dvc repro {stage}` again")
    return content


def require_one_run(config: ModelConfig) -> None:
    """UserError unless data set, model and metrics are of one run."""
    from iadsr.models.files import CONFIG
    from iadsr.provenance import checked, digests_of, read_note, require_same

    require_same(paths.MODEL, config.inputs, checked([paths.SEQUENCES, paths.ITEMS], "filter"), "train")
    evaluated = read_note(paths.EVALUATED, "evaluate")["inputs"]
    require_same(paths.DETAILS, evaluated, digests_of([paths.MODEL / CONFIG]), "evaluate")


def lines(config: ModelConfig, numbers: Numbers, store: str) -> list[str]:
    from iadsr.models.ranking import PROTOCOLS, cutoffs_of

    dataset, metrics = numbers.dataset, numbers.details
    cutoffs = cutoffs_of(metrics)
    name = config.denoiser if config.denoiser != "none" else "no denoiser"
    name += f" on {config.backbone}" if config.backbone != "none" else ""
    encoder = f", encoder {config.encodings['encoder']}" if config.encodings else ""
    return [
        "",
        f"Data set {config.dataset}: {dataset['users']:,} users, {dataset['items']:,} items, "
        f"{dataset['interactions']:,} interactions",
        f"  average length {dataset['average_length']:.1f}, sparsity {dataset['sparsity']:.2%}; too rare, or repeated: "
        f"{numbers.removed:,} more",
        "",
        f"{name}{encoder}, seed {config.seed}: best epoch {metrics['best_epoch']} of {metrics['epochs']}",
        f"  {'full ranking':24}"
        + "".join(f"{f'HR@{k}':>9}" for k in cutoffs)
        + "".join(f"{f'NDCG@{k}':>9}" for k in cutoffs),
        *(row(metrics, split, protocol, cutoffs) for split in ("validation", "test") for protocol in PROTOCOLS),
        "",
        *dropped(metrics),
        *noise_found(metrics),
        "",
        "Files   metrics/metrics.json, data/evaluated/ranks.parquet (rank of every user's target),",
        f"        {paths.VERDICTS} (a verdict on every interaction), models/model (weights, configuration)",
        f"Log     {paths.DENOISED}: your rows with verdicts; `{program('python')} -m stages.training_log` writes it",
        f"Page    {paths.PAGE}: pictures, and histories with verdicts; `{program('python')} -m stages.page` makes it",
        f"Plots   metrics/plots/*.png, or `{program('dvc')} plots show`",
        f"MLflow  {interface(store)}",
    ]


def interface(store: str) -> str:
    """Where a browser finds the runs: a server's own address, or the command that serves a local store."""
    if store.startswith(("http://", "https://")):
        return store
    if MASK in store:
        return f'`{program("mlflow")} ui --backend-store-uri "$MLFLOW_TRACKING_URI"`, which is {store}'
    return f"`{program('mlflow')} ui --backend-store-uri {shlex.quote(store)}`"


def program(name: str) -> str:
    """A program of this environment, by a path that works whether or not the environment is activated."""
    path = Path(sys.executable).with_name(name)
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def row(metrics: dict[str, Any], split: str, protocol: str, cutoffs: list[int]) -> str:
    from iadsr.models.ranking import METRICS, metric_name

    values = [metrics[metric_name(metric, k, protocol, split)] for metric in METRICS for k in cutoffs]
    return f"  {f'{split}, {protocol}':24}" + "".join(f"{value:9.4f}" for value in values)


def dropped(metrics: dict[str, Any]) -> list[str]:
    """What share of the judged interactions (training and validation) the denoiser drops."""
    return [
        f"Dropped {metrics['drop_ratio']:.2%} of interactions by the deterministic rule, "
        f"{metrics['drop_ratio_expected']:.2%} in expectation of sampled masks"
    ]


def noise_found(metrics: dict[str, Any]) -> list[str]:
    """How known noise among training interactions was found; nothing where none is known or the model has no scores."""
    if "noise_calibration_error" not in metrics:
        return []
    areas = {
        "noise_auc": "",
        "noise_auc_stratified": "among histories of like length ",
        "noise_auc_cold": "cold items ",
    }
    share = f"{metrics['noise_share']:.1%}"
    parts = {
        "AUC of the drop score": [f"{which}{metrics[name]:.3f}" for name, which in areas.items() if name in metrics],
        "dropped by the rule": [f"{name} {metrics[f'noise_{name}']:.3f}" for name in ("precision", "recall")],
        f"lowest {share} of scores": [f"precision {metrics['noise_precision_at_share']:.3f}"],
        "probability of noise": [
            f"mean {metrics['noise_rate_estimated']:.1%}",
            f"calibration error {metrics['noise_calibration_error']:.3f}",
        ],
    }
    said = [f"  {name:24}{', '.join(figures)}" for name, figures in parts.items()]
    return ["", f"Known noise, {share} of training interactions, and how it was found", *said]


if __name__ == "__main__":
    app()
