"""A trained model and its data -> ranks, metrics and tables; nothing is written here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from iadsr.artifacts import read_columns
from iadsr.encode.encoders.interface import EncoderParams
from iadsr.errors import UserError
from iadsr.evaluate.report import EvaluateParams, RowFacts, Table, evaluated
from iadsr.models.config import ModelConfig
from iadsr.models.files import load_model, require_own
from iadsr.models.ranking import Ranks, rank_targets
from iadsr.models.recommender import Recommender
from iadsr.models.verdicts import judge_all
from iadsr.params import Params, group
from iadsr.provenance import checked, digests_of, read_note, require_params, require_same
from iadsr.schemas import RATING, TEST, TIMESTAMP, VALIDATION
from iadsr.sequences.text_vectors import opened_prefixes, require_encodings
from iadsr.sequences.windows import Feed, read_sequences
from iadsr.serving.catalogue import read_catalogue, trained_encoder
from iadsr.train.history import read_history
from iadsr.train.run import machine_of


@dataclass(frozen=True)
class EvaluateFiles:
    """What an evaluation reads."""

    model: Path
    history: Path
    sequences: Path
    items: Path
    encoded: Path


@dataclass(frozen=True)
class Evaluation:
    """What is to be written and logged."""

    config: ModelConfig
    encoder: EncoderParams | None  # of a model that reads texts where it is used
    history: list[dict[str, float]]
    ranks: dict[str, Ranks]
    metrics: dict[str, float]
    tables: dict[str, Table]
    settings: EvaluateParams


def evaluate(params: Params, files: EvaluateFiles) -> Evaluation:
    """Rank and judge on the device and threads of training; UserError for inputs that are missing, damaged or of
    another run than the model."""
    settings, (_, device) = group(params, "evaluate", EvaluateParams), machine_of(params)
    model, config = load_model(files.model, device)
    require_same(files.model, config.inputs, checked([files.sequences, files.items], "filter"), "train")
    filtered = files.sequences.parent
    require_params(filtered, read_note(filtered, "filter")["params"], params, "filter")
    require_params(files.model, config.params, params, "train")
    require_own(config, files.history)
    read_catalogue(files.items, config)  # needed only at the end, for the logged model
    history = read_history(files.history, config.epochs)
    feed, encoder = opened(params, files, model, config, device)
    ranks = {split: rank_targets(model, feed, split, config.max_length) for split in (VALIDATION, TEST)}
    verdicts = judge_all(model, feed, config.max_length)
    metrics, tables = evaluated(feed, ranks, verdicts, settings, read_facts(files.sequences))
    wrong = next((name for name, value in metrics.items() if not math.isfinite(value)), None)
    if wrong:
        raise UserError(
            f"{files.model}: {wrong} is no number, so weights or vectors are none; run `dvc repro encode train`"
        )
    return Evaluation(config, encoder, history, ranks, metrics, tables, settings)


def read_facts(sequences: Path) -> RowFacts:
    """Of sequences.parquet."""
    table = read_columns(sequences, (TIMESTAMP,), "filter", optional=(RATING,))
    ratings = table[RATING].to_numpy() if RATING in table.column_names else None
    return RowFacts(table[TIMESTAMP].to_numpy(), ratings)


def opened(
    params: Params, files: EvaluateFiles, model: Recommender, config: ModelConfig, device: torch.device
) -> tuple[Feed, EncoderParams | None]:
    """The data set; for a model that reads texts of prefixes also its encodings, and the encoder that made them."""
    sequences = read_sequences(files.sequences)
    if (sequences.users, sequences.item_count) != (config.user_count, config.item_count):
        raise UserError(f"{files.sequences}: not the data set of the model; run `dvc repro train` again")
    if not (model.traits.reads_prefix_texts and config.encodings):
        return Feed(sequences.to(device)), None
    encoder = trained_encoder(params, config.encodings)
    require_encodings(files.encoded, config.encodings)
    vectors = opened_prefixes(files.encoded, digests_of([files.sequences, files.items]), config.max_length)
    vectors.require_rows(sequences.offsets.numpy(), sequences.item_count)
    return Feed(sequences.to(device), vectors), encoder
