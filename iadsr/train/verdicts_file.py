"""verdicts.parquet: the sequences with a verdict on every interaction, under the ids of the source."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import torch
from jaxtyping import Int
from torch import Tensor

from iadsr.artifacts import read_columns, replacing
from iadsr.errors import UserError
from iadsr.models.recommender import Verdicts
from iadsr.schemas import ITEM, RAW_ITEM, RAW_USER, SEQUENCES, SEQUENCES_OPTIONAL, USER
from iadsr.seeds import derived_seed
from iadsr.sequences.windows import Sequences

SHOWN = tuple(name for name in (*SEQUENCES, *SEQUENCES_OPTIONAL) if name not in (USER, ITEM))
# our name of a column: that of the verdict
VERDICTS = {name: name for name in ("c1", "c2", "c3", "score")} | {"keep_probability": "probability", "kept": "kept"}


class RawIds(NamedTuple):
    """The source's ids: of user 0, 1, ... and of item 1, 2, ..."""

    users: pa.ChunkedArray
    items: pa.ChunkedArray


def read_raw_ids(users: Path, items: Path, sequences: Sequences) -> RawIds:
    """The ids, read before the hours of training; UserError where some are missing."""
    return RawIds(_ids(users, RAW_USER, sequences.users), _ids(items, RAW_ITEM, sequences.item_count))


def _ids(path: Path, column: str, count: int) -> pa.ChunkedArray:
    found = read_columns(path, (column,), "filter")[column]
    if len(found) != count:
        unlike = f"{len(found):,} rows, but the sequences have {count:,}"
        raise UserError(f"{path}: {unlike}; run `dvc repro filter` again")
    return found


def write_verdicts(
    path: Path, sequences: Path, ids: RawIds, verdicts: Verdicts, inserted: Tensor | None, seed: int
) -> None:
    """Write input for any other recommender; what was never judged is null, and kept.

    For a model that inserts items, `inserted_before` has those before each interaction, oldest first; null for none.
    """
    table = pyarrow.parquet.read_table(sequences)
    sampled = verdicts.sampled(torch.Generator().manual_seed(derived_seed(seed, "decisions")))
    columns = {
        USER: ids.users.take(table[USER]),
        ITEM: ids.items.take(pa.compute.subtract(table[ITEM], 1)),
        **{name: table[name] for name in SHOWN if name in table.column_names},
        # NaN becomes null
        **{ours: pa.array(getattr(verdicts, name).numpy(), from_pandas=True) for ours, name in VERDICTS.items()},
        "kept_sampled": pa.array(sampled.numpy()),
    }
    if inserted is not None:
        columns["inserted_before"] = lists_of_ids(inserted, ids.items)
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pa.table(columns), temporary)


def lists_of_ids(numbers: Int[Tensor, "rows most"], items: Any) -> pa.ListArray:
    """For each row of item numbers, 0 for none, the list of their ids in the source; null where it would be empty."""
    counts = (numbers > 0).sum(1)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int().numpy()
    ids = items.take(pa.array(numbers[numbers > 0].numpy() - 1))
    values = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array((counts == 0).numpy()))
