"""The log that a model was trained on, its own rows and columns, with the verdicts of that training.

Verdicts on training rows have seen neither validation nor test items, and test rows have none, so what is left can
train any other model that is then tested on these.
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
from iadsr.filter.interactions import read_raw
from iadsr.ingest.whole_rows import WholeRows
from iadsr.models.config import ModelConfig
from iadsr.schemas import ITEM, RAW_ITEM, RAW_USER, ROW, SPLIT, TEST, USER
from iadsr.serving.coded import LogRows
from iadsr.serving.judge import Judge
from iadsr.serving.log_files import changed, refuse_taken, with_verdicts
from iadsr.serving.log_rows import coded_column
from iadsr.serving.log_verdicts import NOT_JUDGED

LEFT_OUT = f"{NOT_JUDGED}its user or its item is too rare to train on"
DONOR = f"{NOT_JUDGED}its user is too rare, or was left out to plant what he did"
REPEATED = f"{NOT_JUDGED}the same user and item again"
HELD_OUT = f"{NOT_JUDGED}held out for the test"
UNEXPLAINED = "dropped in training; too few interactions to say why"


class LogTables(NamedTuple):
    """Files of a training."""

    interactions: Path
    users: Path
    items: Path
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


def on_rows(tables: LogTables, config: ModelConfig, judge: Judge | None, bursts: bool) -> OnRows:
    """`judge` says why rows were dropped, where the model has one; `bursts`: users were held out to plant theirs."""
    raw = read_raw(tables.interactions)
    rows = raw[ROW].to_numpy()
    count = int(rows.max()) + 1
    accepted, keep = np.zeros(count, dtype=bool), np.ones(count, dtype=bool)
    noise = np.full(count, np.nan, dtype=np.float32)
    accepted[rows] = True
    reasons = dict[str, int]()
    codes = np.full(count, reasons.setdefault("", 0), dtype=np.int32)
    known = among(raw[USER], tables.users, RAW_USER) & among(raw[ITEM], tables.items, RAW_ITEM)
    rare = reasons.setdefault(DONOR if bursts else LEFT_OUT, len(reasons))
    codes[rows] = np.where(known, reasons.setdefault(REPEATED, len(reasons)), rare)
    del raw, known
    found = pl.read_parquet(tables.verdicts, columns=[USER, ITEM, SPLIT, ROW, "score", "keep_probability", "kept"])
    own = found[ROW].is_not_null().to_numpy()
    places = found.filter(pl.Series(own))[ROW].to_numpy()
    noise[places], keep[places] = 1 - probabilities(found)[own], found["kept"].to_numpy()[own]
    said = why(found, config, judge)
    codes[places] = [reasons.setdefault(said[row], len(reasons)) for row in np.flatnonzero(own).tolist()]
    return OnRows(accepted, noise, keep, codes, list(reasons))


def among(column: pl.Series, table: Path, name: str) -> Bool[np.ndarray, " rows"]:
    """For each row whether the column of a table has its id."""
    ids = pl.read_parquet(table, columns=[name])[name].cast(pl.Categorical)
    return column.is_in(ids.implode()).to_numpy()


def probabilities(found: pl.DataFrame) -> Float[np.ndarray, " rows"]:
    """That each row is kept; NaN where it has no score, so that nothing has judged it."""
    judged = found["score"].is_not_null().to_numpy()
    return np.where(judged, found["keep_probability"].cast(pl.Float32).to_numpy(), np.float32("nan"))


def why(found: pl.DataFrame, config: ModelConfig, judge: Judge | None) -> list[str]:
    """Of each row of the verdicts why it was dropped or not judged, or ""."""
    test, keep, probability = (found[SPLIT] == TEST).to_numpy(), found["kept"].to_numpy(), probabilities(found)
    said = np.where(keep, "", UNEXPLAINED if judge else f"dropped by {config.denoiser}").astype(object)
    said[np.isnan(probability)] = f"{NOT_JUDGED}{config.denoiser} says nothing of it"
    said[test] = HELD_OUT
    if judge is not None:
        rest = found.filter(pl.Series(~test))
        users, items = (coded_column(rest[name].cast(pl.String).cast(pl.Categorical)) for name in (USER, ITEM))
        asked = LogRows(users, items, np.arange(rest.height), {})
        reasons = np.array(judge.reasons(asked, 1 - probability[~test], keep[~test]), dtype=object)
        told = np.flatnonzero(~test)[(reasons != "") & ~keep[~test]]
        said[told] = reasons[~keep[~test] & (reasons != "")]
    return list(said)


def write_training_log(path: Path, name: str, whole: WholeRows, verdicts: OnRows) -> None:
    """Write the accepted rows of a table, `whole`, with verdicts behind its columns; `name` is for messages.

    UserError for a table with such columns, or with fewer rows than were read.
    """
    refuse_taken(name, whole.schema.names)
    schema, first, count = with_verdicts(whole.schema), 0, len(verdicts.accepted)
    reasons = pa.array(verdicts.reasons)
    with replacing(path) as temporary, pa.parquet.ParquetWriter(temporary, schema) as writer:
        for piece in whole.pieces:
            rows = first + np.flatnonzero(verdicts.accepted[first : first + len(piece)])
            added = [
                pa.array(verdicts.noise[rows], from_pandas=True),
                pa.array(verdicts.keep[rows]),
                reasons.take(pa.array(verdicts.codes[rows])),
            ]
            own = piece.take(pa.array(rows - first))
            writer.write_table(pa.Table.from_arrays([*own.columns, *added], schema=schema))
            first += len(piece)
        if first < count:
            raise changed(Path(name))
