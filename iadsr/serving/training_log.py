"""The log that a model was trained on, its own rows and columns, with the verdicts of that training.

Verdicts on training rows have seen neither validation nor test items, and rows that are held out have none and stay, so
what is left can train any other model that is then tested on the same rows.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Bool, Float, Int

from iadsr.artifacts import replacing
from iadsr.filter.interactions import codes, pair_keys, read_raw, with_rows
from iadsr.ingest.whole_rows import WholeRows, refuse_taken
from iadsr.models.config import ModelConfig
from iadsr.schemas import ITEM, RAW_ITEM, RAW_USER, ROW, SPLIT, TEST, TRAIN, USER, VALIDATION
from iadsr.serving.coded import LogRows
from iadsr.serving.judge import Judge
from iadsr.serving.log_files import changed, verdict_columns, with_verdicts
from iadsr.serving.log_rows import coded_column
from iadsr.serving.log_verdicts import NOT_JUDGED

RARE = f"{NOT_JUDGED}its user or its item is too rare to train on"
DONOR = f"{NOT_JUDGED}its user is too rare, or was left out to plant what he did"
REPEATED = f"{NOT_JUDGED}the same user and item again"
REPEATED_DROPPED = "the same user and item again as in a row that is dropped"
HELD_OUT = {VALIDATION: f"{NOT_JUDGED}held out for validation", TEST: f"{NOT_JUDGED}held out for the test"}
PLAIN = f"{NOT_JUDGED}the model was trained without a denoiser"
UNEXPLAINED = "dropped in training; too few interactions to say why"


class LogTables(NamedTuple):
    """Files of a training; `rows` says which row of the source each row of `verdicts` is."""

    interactions: Path
    users: Path
    items: Path
    rows: Path
    verdicts: Path


class OnRows(NamedTuple):
    """What training says of each row of the source, by its number; rows that were rejected are not accepted."""

    accepted: Bool[np.ndarray, " rows"]
    noise: Float[np.ndarray, " rows"]  # the probability; NaN where a row is not judged
    keep: Bool[np.ndarray, " rows"]
    codes: Int[np.ndarray, " rows"]  # places in `reasons`
    reasons: list[str]

    def counts(self) -> Counter[str]:
        """How many accepted rows have each reason."""
        each = np.bincount(self.codes[self.accepted], minlength=len(self.reasons)).tolist()
        return Counter({reason: count for reason, count in zip(self.reasons, each, strict=True) if count})


class Reasons:
    """Texts, each once, and their numbers, the first being that of nothing."""

    def __init__(self) -> None:
        self.places = {"": 0}

    def code(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def on_rows(tables: LogTables, config: ModelConfig, judge: Judge | None, bursts: bool) -> OnRows:
    """`judge` says why rows were dropped, where the model has one; `bursts`: users were held out to plant theirs."""
    raw, reasons = with_rows(read_raw(tables.interactions)), Reasons()
    rows = raw[ROW].to_numpy()
    count = int(rows.max()) + 1
    accepted = np.zeros(count, dtype=bool)
    accepted[rows] = True
    of_rows = np.zeros(count, dtype=np.int32)
    users, items = among(raw[USER], tables.users, RAW_USER), among(raw[ITEM], tables.items, RAW_ITEM)
    rare = np.where(users, reasons.code(RARE), reasons.code(DONOR if bursts else RARE))
    of_rows[rows] = np.where(users & items, reasons.code(REPEATED), rare)
    found = pl.read_parquet(tables.verdicts, columns=[USER, ITEM, SPLIT, "score", "keep_probability", "kept"])
    row_of = pl.read_parquet(tables.rows)[ROW]
    found, places = found.filter(row_of.is_not_null()), row_of.drop_nulls().to_numpy()
    noise, keep = np.full(count, np.nan, dtype=np.float32), np.ones(count, dtype=bool)
    noise[places], keep[places] = judged(found)
    of_rows[places] = why(found, config, judge, reasons)
    drop_repetitions(raw, of_rows, keep, reasons)
    return OnRows(accepted, noise, keep, of_rows, list(reasons.places))


def among(column: pl.Series, table: Path, name: str) -> Bool[np.ndarray, " rows"]:
    """For each row whether the column of a table has its id."""
    ids = pl.read_parquet(table, columns=[name])[name].cast(pl.Categorical)
    return column.is_in(ids.implode()).to_numpy()


def judged(found: pl.DataFrame) -> tuple[Float[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """Of training rows with a score the probability of noise, else NaN; and which rows are kept."""
    known = ((found[SPLIT] == TRAIN) & found["score"].is_not_null()).to_numpy()
    noise = 1 - found["keep_probability"].cast(pl.Float32).to_numpy()
    return np.where(known, noise, np.float32("nan")), found["kept"].to_numpy() | ~known


def why(found: pl.DataFrame, config: ModelConfig, judge: Judge | None, reasons: Reasons) -> Int[np.ndarray, " rows"]:
    """Of each row of the verdicts the code of why it was dropped or not judged, or of nothing."""
    noise, keep = judged(found)
    nothing = PLAIN if config.denoiser == "none" else f"{NOT_JUDGED}{config.denoiser} gives it no score"
    said = np.where(np.isnan(noise), reasons.code(nothing), 0).astype(np.int32)
    for split, reason in HELD_OUT.items():
        said[(found[SPLIT] == split).to_numpy()] = reasons.code(reason)
    said[~keep] = reasons.code(UNEXPLAINED if judge else f"dropped by {config.denoiser}")
    if judge is not None:
        train = (found[SPLIT] == TRAIN).to_numpy()
        doubted = found.select(pl.lit(pl.Series(~keep)).any().over(USER)).to_series().to_numpy()
        asked = np.flatnonzero(train & doubted)  # reasons look at nothing beyond a user's training rows
        log = found[asked]
        users, items = (coded_column(log[name].cast(pl.String).cast(pl.Categorical)) for name in (USER, ITEM))
        texts = judge.reasons(LogRows(users, items, np.arange(len(asked)), {}), noise[asked], keep[asked], noise[train])
        for row, text in zip(asked.tolist(), texts, strict=True):
            if text:
                said[row] = reasons.code(text)
    return said


def drop_repetitions(
    raw: pl.DataFrame, of_rows: Int[np.ndarray, " rows"], keep: Bool[np.ndarray, " rows"], reasons: Reasons
) -> None:
    """Rows that were left out as repetitions go where the row goes that they repeat: else it would come back."""
    rows, keys = raw[ROW].to_numpy(), pair_keys(codes(raw[USER]), codes(raw[ITEM]))
    repeated = of_rows[rows] == reasons.code(REPEATED)
    gone = rows[repeated & np.isin(keys, keys[~keep[rows]])]
    keep[gone] = False
    of_rows[gone] = reasons.code(REPEATED_DROPPED)


def write_training_log(path: Path, name: str, whole: WholeRows, verdicts: OnRows) -> None:
    """Write the accepted rows of a table, `whole`, with verdicts behind its columns; `name` is for messages.

    UserError for a table with such columns, or with fewer rows than were read.
    """
    refuse_taken(name, whole.schema.names)  # as `ingest` did, unless it was of an earlier revision
    schema, first, count = with_verdicts(whole.schema), 0, len(verdicts.accepted)
    reasons = pa.array(verdicts.reasons)
    with replacing(path) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
        for piece in whole.pieces:
            rows = first + np.flatnonzero(verdicts.accepted[first : first + len(piece)])
            said = reasons.take(pa.array(verdicts.codes[rows]))
            added = verdict_columns(verdicts.noise[rows], verdicts.keep[rows], said)
            own = piece.take(pa.array(rows - first))
            writer.write_table(pa.Table.from_arrays([*own.columns, *added], schema=schema))
            first += len(piece)
        if first < count:
            raise changed(Path(name))
