"""The result of the last `dvc repro` as one readable table; not a DVC stage."""

from __future__ import annotations

import re
from typing import Any

from stages import paths
from stages.command import Params, new_app, reports_errors

app = new_app()


@app.command(epilog="Example: python -m stages.report")
@reports_errors
def main(params: Params = paths.PARAMS) -> None:
    """Print data set statistics, HR and NDCG, what was dropped, and where the files and plots are."""
    import json

    from iadsr.errors import UserError
    from iadsr.params import read_params
    from stages.tracking import tracking_uri

    content = read_params(params)
    for path in (paths.DATASET_METRICS, paths.METRICS):
        if not path.exists():
            raise UserError(f"{path}: missing; run `dvc repro` first")
    dataset = json.loads(paths.DATASET_METRICS.read_text(encoding="utf-8"))
    metrics = json.loads(paths.METRICS.read_text(encoding="utf-8"))
    print("\n".join(lines(content, dataset, metrics, tracking_uri())))


def lines(content: dict[str, Any], dataset: dict[str, Any], metrics: dict[str, Any], store: str) -> list[str]:
    from iadsr.params import lookup

    cutoffs = sorted(int(name.split("_")[2]) for name in metrics if re.fullmatch(r"test_hr_\d+_unfiltered", name))
    chosen = {key: lookup(content, key) for key in ("dataset", "denoiser", "backbone", "encoder", "seed")}
    name = chosen["denoiser"] if chosen["denoiser"] != "none" else "no denoiser"
    return [
        "",
        f"Data set {chosen['dataset']}: {dataset['users']:,} users, {dataset['items']:,} items, "
        f"{dataset['interactions']:,} interactions",
        f"  average length {dataset['average_length']:.1f}, sparsity {dataset['sparsity']:.2%}",
        "",
        f"{name} on {chosen['backbone']}, encoder {chosen['encoder']}, seed {chosen['seed']}: best epoch "
        f"{metrics['best_epoch']} of {metrics['epochs']}",
        f"  {'full ranking':24}"
        + "".join(f"{f'HR@{k}':>9}" for k in cutoffs)
        + "".join(f"{f'NDCG@{k}':>9}" for k in cutoffs),
        *(
            row(metrics, split, protocol, cutoffs)
            for split in ("validation", "test")
            for protocol in ("unfiltered", "filtered")
        ),
        "",
        *dropped(metrics),
        "",
        "Files   metrics/metrics.json, data/evaluated/ranks.parquet (rank of every user's target),",
        "        models/denoised.parquet (a verdict on every interaction), models/model (weights, configuration)",
        "Plots   metrics/plots/*.png, or `dvc plots show`",
        f"MLflow  `mlflow ui --backend-store-uri {store}`",
    ]


def row(metrics: dict[str, Any], split: str, protocol: str, cutoffs: list[int]) -> str:
    values = [metrics[f"{split}_{metric}_{k}_{protocol}"] for metric in ("hr", "ndcg") for k in cutoffs]
    return f"  {f'{split}, {protocol}':24}" + "".join(f"{value:9.4f}" for value in values)


def dropped(metrics: dict[str, Any]) -> list[str]:
    """What share of the judged interactions (training and validation) the denoiser drops, and how right it is."""
    result = [
        f"Dropped {metrics['drop_ratio']:.2%} of interactions by the deterministic rule, "
        f"{metrics['drop_ratio_expected']:.2%} in expectation of sampled masks"
    ]
    if "noise_auc" in metrics:
        result.append(
            f"  known noise is {metrics['noise_share']:.1%} of training interactions: AUC of the drop score "
            f"{metrics['noise_auc']:.3f}, "
            f"precision {metrics['noise_precision']:.3f}, recall {metrics['noise_recall']:.3f}"
        )
    return result


if __name__ == "__main__":
    app()
