"""One training from files to files: what goes in, the digest that names it, what comes out."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

import iadsr
from iadsr.artifacts import file_digest, read_json, refuse_file, refuse_folder, text_digest, write_json
from iadsr.device import fastest_threads, pick_device, pick_dtype, set_threads
from iadsr.errors import UserError
from iadsr.models.assembly import build, chosen_denoiser, configured
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.cloze.detector import Detector, DetectorParams
from iadsr.models.denoisers.cloze.model import Cloze
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.files import CONFIG, WEIGHTS, load_config, require_own, save_model
from iadsr.models.recommender import Recommender
from iadsr.models.verdicts import insertions, judge_all
from iadsr.params import Params, chosen_dataset, group
from iadsr.provenance import checked, chosen, digests_of, read_note, require_params
from iadsr.sequences.text_vectors import ItemVectors, opened_items, opened_prefixes, require_recipe
from iadsr.sequences.windows import Feed, Sequences, read_sequences
from iadsr.train.detector import train_detector
from iadsr.train.fit import EpochReport, TrainParams, fit
from iadsr.train.history import STOPPING_METRIC, write_history
from iadsr.train.source import Snapshot, Source, as_it_is, as_of, read_categories, source_digest
from iadsr.train.verdicts_file import RawIds, read_raw_ids, write_verdicts

DAY = 24 * 3600.0  # seconds
MADE_WITH = (  # which machine computes, and on how many threads, decides nothing that matters
    *("dataset", "datasets.{dataset}.max_length", "theta", "seed"),
    *("backbone", "backbones.{backbone}", "denoiser", "denoisers.{denoiser}"),
    *("train.dim", "train.item_start", "train.repeat", "train.batch_size", "train.windows", "train.prefixes"),
    *("train.learning_rate", "train.weight_decay", "train.item_decay", "train.average", "train.max_epochs"),
    *("train.patience", "train.full_catalogue", "train.negatives", "train.dtype"),
)
CODE = ("layers", "models", "sequences", "train")  # packages that decide a result, beside the files at the top


@dataclass(frozen=True)
class TrainFiles:
    """Inputs, outputs, and the folders of unfinished trainings and of detectors, which trainings share."""

    sequences: Path
    users: Path
    items: Path
    encoded: Path
    model: Path
    history: Path
    verdicts: Path
    work: Path
    detectors: Path


@dataclass(frozen=True)
class Training:
    """A training that can begin: all inputs are read and checked, nothing is written yet."""

    files: TrainFiles
    settings: TrainParams
    device: torch.device
    config: ModelConfig
    sequences: Sequences
    vectors: ItemVectors | None
    ids: RawIds
    core: int

    @classmethod
    def of(cls, params: Params, files: TrainFiles) -> Training:
        """The training that params.yaml asks for; UserError for wrong parameters, for inputs that are missing, damaged
        or do not belong together, and for what is in the way of an output."""
        settings, device = machine_of(params)
        refuse_file(files.model)
        for path in (files.model / WEIGHTS, files.model / CONFIG, files.history, files.verdicts):
            refuse_folder(path)
        dataset = chosen_dataset(params)[1]
        inputs = checked([files.sequences, files.users, files.items], "filter")
        filtered = files.sequences.parent
        require_params(filtered, read_note(filtered, "filter")["params"], params, "filter")
        sequences = read_sequences(files.sequences)
        ids = read_raw_ids(files.users, files.items, sequences)
        vectors = opened_vectors(params, settings, files, sequences, dataset.max_length)
        manifest = vectors.manifest if vectors else None
        config = configured(params, settings.dim, sequences.users, sequences.item_count, manifest)
        config = config.model_copy(update={"inputs": inputs})
        config = config.model_copy(update={"run": run_digest(config, settings, device)})
        config = config.model_copy(update={"params": chosen(params, MADE_WITH)})
        return cls(files, settings, device, config, sequences, vectors, ids, dataset.core)

    @cached_property
    def model(self) -> Recommender:
        """With fresh weights; the detector of one that has it is trained, and has judged the data."""
        model = build(self.config, Feed(self.sequences, self.vectors)).to(self.device)
        if self.settings.item_start == "text":
            assert self.vectors is not None
            model.start_from(torch.tensor(self.vectors.items).to(self.device))
        if isinstance(model, Cloze):
            self.detect(model)
        return model

    def detect(self, model: Cloze) -> None:
        """Train the detector, or take it from another training that had the same, whatever its backbone or seed."""
        assert self.vectors is not None
        known, length = self.snapshot(model.detector.params), self.config.max_length
        source = Source(known.histories, read_categories(self.files.items)[known.items])
        vectors = self.vectors.items[known.items]
        detector = untrained(len(known.users), vectors, length, model.detector.params, self.device)
        folder = self.files.detectors / detector_digest(source, vectors, detector, self.device)
        with alone_in(folder, wait=True), threads_of(folder):
            train_detector(detector, source, folder)
        os.utime(folder)  # it is not abandoned
        model.detector.adopt(detector, torch.from_numpy(known.users), torch.from_numpy(known.items))
        model.weigh(self.feed, length)

    def snapshot(self, params: DetectorParams) -> Snapshot:
        """What the detector is trained on."""
        if (until := params.until_time) is None:
            return as_it_is(self.sequences)
        return as_of(self.sequences, self.files.sequences, until, self.core)

    @cached_property
    def feed(self) -> Feed:
        return Feed(self.sequences.to(self.device), self.vectors)

    @property
    def work(self) -> Path:
        return self.files.work / self.config.run

    def is_done(self) -> bool:
        """Whether all outputs are there, and the model, which is written last, is of this run."""
        try:
            found = load_config(self.files.model)
            for path in (self.files.model / WEIGHTS, self.files.history, self.files.verdicts):
                require_own(found, path)
        except UserError:
            return False
        return found.run == self.config.run

    def epochs(self) -> Iterator[EpochReport]:
        """Train; an interrupted training goes on from its last finished epoch."""
        checkpoint = self.work / "checkpoint.safetensors"
        return fit(self.model, self.feed, self.settings, self.config.max_length, self.config.seed, checkpoint)

    def finish(self, reports: list[EpochReport]) -> str:
        """Write the outputs, remove the checkpoint and abandoned ones; return what was reached, for a person."""
        best = max(report.epoch for report in reports if report.best)
        config = self.config.model_copy(update={"best_epoch": best, "epochs": len(reports)})
        verdicts = judge_all(self.model, self.feed, config.max_length)
        inserted = insertions(self.model, self.feed, config.max_length)
        (self.files.model / CONFIG).unlink(missing_ok=True)  # it comes back last, when all outputs are of this run
        write_verdicts(self.files.verdicts, self.files.sequences, self.ids, verdicts, inserted, config.seed)
        write_history(self.files.history, [report.figures for report in reports])
        save_model(self.files.model, self.model, config, (self.files.history, self.files.verdicts))
        shutil.rmtree(self.work)  # also what a kill in the middle of writing has left there
        remove_abandoned(self.files.work, days=7)
        remove_abandoned(self.files.detectors, days=90)
        return in_words(config, reports)


def opened_vectors(
    params: Params, settings: TrainParams, files: TrainFiles, sequences: Sequences, max_length: int
) -> ItemVectors | None:
    """The vectors that the denoiser or the item table reads, with those of prefixes only if they are; None without any.

    UserError for vectors that are missing, damaged, of other tables, or made otherwise than params.yaml says now.
    """
    traits = DENOISERS[chosen_denoiser(params)[0]].traits
    if not (traits.reads_texts or settings.item_start == "text"):
        return None
    made_from = digests_of([files.sequences, files.items])
    vectors = (
        opened_prefixes(files.encoded, made_from, max_length)
        if traits.reads_prefix_texts
        else opened_items(files.encoded, made_from)
    )
    vectors.require_rows(sequences.offsets.numpy(), sequences.item_count)
    require_recipe(files.encoded, vectors.manifest, params)
    return vectors


def machine_of(params: Params) -> tuple[TrainParams, torch.device]:
    """The settings of training, and its device; from now on this process computes on its number of threads."""
    settings = group(params, "train", TrainParams)
    device = pick_device(settings.device, "train.device")
    set_threads(settings.threads or fastest_threads(), "train.threads")
    return settings, device


def run_digest(config: ModelConfig, settings: TrainParams, device: torch.device) -> str:
    """Name the run by what decides its result: configuration, in which the digests of its inputs are, settings, code.

    The number of threads decides only the last digits and is left out: a run goes on with the number it began with.
    """
    chosen = {"device": device.type, "dtype": str(pick_dtype(settings.dtype, device))}
    decided = settings.model_copy(update=chosen).model_dump_json(exclude={"threads"})
    return text_digest(config.model_dump_json(), decided, torch.__version__, *code_digests())[:16]


def untrained(
    users: int, vectors: np.ndarray, max_length: int, params: DetectorParams, device: torch.device
) -> Detector:
    """A detector that has read the items' text vectors, row 0 being padding, and is yet to be trained."""
    found = Detector(users, len(vectors) - 1, vectors.shape[1], max_length, params)
    found.read(torch.tensor(vectors).float())  # on the CPU, so that equal vectors give equal bytes
    return found.to(device).requires_grad_(False)


def detector_digest(source: Source, vectors: np.ndarray, detector: Detector, device: torch.device) -> str:
    """Name a detector by what decides it: what it is trained on, its parameters, code; not by the backbone or seed."""
    computed = [device.type, str(pick_dtype("auto", device)), torch.__version__, *code_digests()]
    params = detector.params.model_dump_json(exclude={"until"})  # decides what it is trained on, and nothing else
    return text_digest(source_digest(source, vectors), params, str(detector.max_length), *computed)[:16]


def code_digests() -> list[str]:
    """Of the files that decide a result."""
    root = Path(iadsr.__file__).parent
    code = [*root.glob("*.py"), *(file for package in CODE for file in (root / package).rglob("*.py"))]
    return [file_digest(path) for path in sorted(code)]


@contextmanager
def threads_of(work: Path) -> Iterator[None]:
    """Compute on the number of threads with which the work in this folder was begun: sums of floats depend on it."""
    before, path = torch.get_num_threads(), work / "threads.json"
    if not path.exists():
        write_json(path, before)
    torch.set_num_threads(read_json(path))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone_in(work: Path, wait: bool = False) -> Iterator[None]:
    """Lock this folder; where another process trains in it wait for it, or else UserError.

    It is freed however this process ends.
    """
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w", encoding="utf-8") as lock:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"{work}: another process is at this training; wait for it, or stop it") from None
        yield


def remove_abandoned(work: Path, days: int) -> None:
    """Remove checkpoints, or detectors, that nothing has touched for so long: code or data have changed since."""
    with suppress(OSError):  # another training may do the same; this one has ended well
        for folder in work.iterdir():
            if folder.stat().st_mtime < time.time() - days * DAY:
                shutil.rmtree(folder)


def in_words(config: ModelConfig, reports: list[EpochReport]) -> str:
    seconds = [report.seconds for report in reports if report.seconds is not None]
    pace = f", {sum(seconds) / len(seconds):.1f} s an epoch" if seconds else ""
    return (
        f"{config.denoiser} on {config.backbone}: best epoch {config.best_epoch} of {len(reports)}, validation NDCG@10 "
        f"{reports[config.best_epoch].figures[STOPPING_METRIC]:.4f} (unfiltered){pace}"
    )
