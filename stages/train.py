"""Stage `train`: a backbone, plain or under a denoiser -> weights, history, denoised sequences."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stages import paths
from stages.command import Params, new_app, reports_errors

if TYPE_CHECKING:
    import torch

    from iadsr.recommender import Keep, Recommender
    from iadsr.saved_model import ModelConfig
    from iadsr.sequences import Feed, Sequences
    from iadsr.training import EpochReport, TrainParams

app = new_app()

ABANDONED = 7 * 24 * 3600.0  # seconds


@app.command(epilog="Example: dvc exp run -S backbone=sasrec -S theta=-0.5   (or, without DVC: python -m stages.train)")
@reports_errors
def main(
    params: Params = paths.PARAMS,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds such as 0,1,2: train and evaluate them side by side, each in models/seeds/SEED."),
    ] = None,
    keep: Annotated[bool, typer.Option(help="Do nothing where models/model is this very training's.")] = False,
) -> None:
    """Train on data/filtered and data/encoded; write models/model, models/history.csv and models/denoised.parquet.

    Interrupted at any moment, the same command goes on from the last finished epoch and ends with the same result.
    """
    from iadsr import denoising, saved_model  # noqa: F401  # both, so that the run's digest knows all code
    from iadsr.denoisers import DENOISERS, chosen_denoiser
    from iadsr.device import checked_threads, fastest_threads, pick_device, set_threads
    from iadsr.params import choice, group, lookup, read_params
    from iadsr.sequences import Feed, read_sequences
    from iadsr.training import TrainParams, fit
    from iadsr.vectors import PrefixVectors
    from stages.seeds import parsed, train_side_by_side
    from stages.tracking import open_run

    content = read_params(params)
    settings = group(content, "train", TrainParams)
    device = pick_device(settings.device, "train.device")
    if seeds is not None:
        train_side_by_side(content, parsed(seeds), device.type, checked_threads(settings.threads, "train.threads"))
        return
    set_threads(settings.threads or fastest_threads(), "train.threads")
    sequences = read_sequences(paths.SEQUENCES)
    ids = raw_ids(sequences)
    max_length = lookup(content, f"datasets.{choice(content, 'dataset', 'datasets')}.max_length")
    rows = len(sequences.items)
    reads_texts = DENOISERS[chosen_denoiser(content)[0]].reads_texts
    vectors = PrefixVectors(paths.ENCODED, rows, max_length) if reads_texts else None
    config = configured(content, sequences.users, sequences.item_count, vectors.manifest if vectors else None, settings)
    config = config.model_copy(update={"run": run_digest(config, settings, device)})
    if keep and is_trained(config):
        print(f"{paths.MODEL}: trained already")
        return
    model = saved_model.build(config, Feed(sequences, vectors)).to(device)
    feed = Feed(sequences.to(device), vectors if model.needs_semantics else None)
    work = paths.TRAIN_WORK / config.run
    with alone_in(work), open_run(config, content) as run:
        epochs = fit(model, feed, settings, config.max_length, config.seed, work / "checkpoint.safetensors")
        reports = list(run.following(with_progress_bar(epochs, settings)))
        finish(model, feed, config, reports, ids)
        shutil.rmtree(work)  # also what a kill in the middle of writing has left there
    remove_abandoned(paths.TRAIN_WORK)


def raw_ids(sequences: Sequences) -> list[Any]:
    """The source's ids of users and of items, read before the hours of training; UserError where some are missing."""
    from iadsr.artifacts import read_columns
    from iadsr.errors import UserError
    from iadsr.schemas import RAW_ITEM, RAW_USER

    found = []
    for path, name, count in (
        (paths.USERS, RAW_USER, sequences.users),
        (paths.ITEMS, RAW_ITEM, sequences.item_count),
    ):
        found.append(read_columns(path, (name,), "filter")[name])
        if len(found[-1]) < count:
            short = f"{len(found[-1]):,} rows, but the sequences have {count:,}"
            raise UserError(f"{path}: {short}; run `dvc repro filter` again")
    return found


def configured(
    content: dict[str, Any], users: int, items: int, manifest: dict[str, Any] | None, settings: TrainParams
) -> ModelConfig:
    """The model that params.yaml asks for; UserError for unknown names and wrong values."""
    from iadsr.backbones import BACKBONES
    from iadsr.denoisers import NO_BACKBONE, chosen_denoiser, denoiser_params
    from iadsr.params import choice, group, lookup
    from iadsr.saved_model import ModelConfig
    from iadsr.seeds import checked_seed
    from iadsr.texts import checked_max_length

    dataset = choice(content, "dataset", "datasets")
    denoiser, backbone = chosen_denoiser(content)
    shape = (
        {} if backbone == NO_BACKBONE else group(content, f"backbones.{backbone}", BACKBONES[backbone][1]).model_dump()
    )
    return ModelConfig(
        dataset=dataset,
        backbone=backbone,
        backbone_params=shape,
        denoiser=denoiser,
        denoiser_params=denoiser_params(content, denoiser).model_dump(),
        user_count=users,
        item_count=items,
        dim=settings.dim,
        max_length=checked_max_length(lookup(content, f"datasets.{dataset}.max_length"), dataset),
        seed=checked_seed(content),
        semantic=manifest,
    )


def run_digest(config: ModelConfig, settings: TrainParams, device: torch.device) -> str:
    """Names the run by what decides its result: configuration, settings, input files, the code that is loaded.

    Not by the number of threads, which decides the last digits only: a run goes on with the number that it began with.
    """
    import sys

    import torch

    from iadsr.artifacts import file_digest, text_digest
    from iadsr.device import pick_dtype

    inputs = [paths.SEQUENCES]
    if config.semantic is not None:
        inputs += sorted(paths.ENCODED.glob("*"))
    loaded = [module.__file__ for name, module in sorted(sys.modules.items()) if name.startswith("iadsr")]
    code = [Path(file) for file in loaded if file]
    digests = [file_digest(path) for path in [*inputs, *code]]
    chosen = {"device": device.type, "dtype": str(pick_dtype(settings.dtype, device))}
    decided = settings.model_copy(update=chosen).model_dump_json(exclude={"threads"})
    return text_digest(config.model_dump_json(), decided, torch.__version__, *digests)[:16]


@contextmanager
def alone_in(work: Path) -> Iterator[None]:
    """UserError where another process trains in this folder; it is freed however this one ends."""
    from iadsr.errors import UserError

    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w", encoding="utf-8") as lock:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{work}: another process is at this training; wait for it, or stop it") from None
        yield


def is_trained(config: ModelConfig) -> bool:
    """Whether all outputs are there, and the model, which is written last, is of this run."""
    from iadsr.artifacts import read_json

    path = paths.MODEL / "config.json"
    return paths.HISTORY.exists() and paths.DENOISED.exists() and path.exists() and read_json(path)["run"] == config.run


def with_progress_bar(reports: Iterable[EpochReport], settings: TrainParams) -> Iterator[EpochReport]:
    """One bar over epochs, with the validation metric that decides when to stop."""
    from tqdm import tqdm

    from iadsr.training import STOPPING_METRIC

    best = 0.0
    with tqdm(total=settings.max_epochs, desc="train", unit="epoch") as bar:
        for report in reports:
            best = max(best, report.figures[STOPPING_METRIC])
            drop = report.figures.get("drop_rate")
            extra = "" if drop is None else f", dropped {drop:.1%}"
            bar.set_postfix_str(f"validation NDCG@10 {report.figures[STOPPING_METRIC]:.4f}, best {best:.4f}{extra}")
            bar.update()
            yield report
        bar.total = bar.n  # early stopping has ended it


def finish(model: Recommender, feed: Feed, config: ModelConfig, reports: list[EpochReport], ids: list[Any]) -> None:
    """Write the stage's outputs and say what they are."""
    from iadsr import saved_model
    from iadsr.denoising import insertions, judge
    from iadsr.training import STOPPING_METRIC, write_history

    best = max(report.epoch for report in reports if report.best)
    config = config.model_copy(update={"best_epoch": best, "epochs": len(reports)})
    verdicts = judge(model, feed, config.max_length)
    inserted = insertions(model, feed, config.max_length)
    (paths.MODEL / "config.json").unlink(missing_ok=True)  # it comes back last, when all outputs are of this run
    write_denoised(paths.DENOISED, verdicts, inserted, config.seed, *ids)
    write_history(paths.HISTORY, [report.figures for report in reports])
    saved_model.save(paths.MODEL, model, config)
    seconds = [report.seconds for report in reports if report.seconds is not None]
    pace = f", {sum(seconds) / len(seconds):.1f} s an epoch" if seconds else ""
    print(
        f"{config.denoiser} on {config.backbone}: best epoch {best} of {len(reports)}, validation NDCG@10 "
        f"{reports[best].figures[STOPPING_METRIC]:.4f} (unfiltered){pace}"
    )


def remove_abandoned(work: Path) -> None:
    """Remove the checkpoints of other runs that no epoch has touched for a week: code or data have changed since."""
    with suppress(OSError):  # another training may do the same; this one has ended well
        for folder in work.iterdir():
            if folder.stat().st_mtime < time.time() - ABANDONED:
                shutil.rmtree(folder)


def write_denoised(
    path: Path, verdicts: Keep, inserted: torch.Tensor | None, seed: int, raw_users: Any, raw_items: Any
) -> None:
    """The sequences with a verdict on every interaction, under the ids of the source, for other recommenders to use.

    Of a model that inserts items, `inserted_before` has those before each interaction, oldest first; null for none.
    """
    import pyarrow as pa
    import pyarrow.parquet
    import torch

    from iadsr.artifacts import replacing
    from iadsr.schemas import IS_NOISE, ITEM, POSITION, SPLIT, TIMESTAMP, USER
    from iadsr.seeds import derived_seed

    sampled = verdicts.sampled(torch.Generator().manual_seed(derived_seed(seed, "decisions")))
    sequences = pyarrow.parquet.read_table(paths.SEQUENCES)
    users, items = raw_users.take(sequences[USER]), raw_items.take(pa.compute.subtract(sequences[ITEM], 1))
    judged = {
        name: pa.array(getattr(verdicts, field).numpy(), from_pandas=True)  # NaN, never judged, becomes null
        for name, field in (
            ("c1", "c1"),
            ("c2", "c2"),
            ("c3", "c3"),
            ("score", "score"),
            ("keep_probability", "probability"),
            ("kept", "kept"),
        )
    }
    given = [name for name in (POSITION, TIMESTAMP, SPLIT, IS_NOISE) if name in sequences.column_names]
    judged["kept_sampled"] = pa.array(sampled.numpy())
    if inserted is not None:
        judged["inserted_before"] = lists_of_ids(inserted, raw_items)
    columns = {USER: users, ITEM: items, **{name: sequences[name] for name in given}, **judged}
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pa.table(columns), temporary)


def lists_of_ids(numbers: torch.Tensor, raw_items: Any) -> Any:
    """For each row of item numbers, 0 for none, the list of their ids in the source; null where it would be empty."""
    import pyarrow as pa
    import torch

    counts = (numbers > 0).sum(1)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int().numpy()
    ids = raw_items.take(pa.array(numbers[numbers > 0].numpy() - 1))
    values = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array((counts == 0).numpy()))


if __name__ == "__main__":
    app()
