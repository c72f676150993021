"""The text vectors that `encode` wrote, looked up by row of sequences.parquet without reading them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from iadsr.artifacts import read_json
from iadsr.errors import UserError

AGAIN = "run the stage `encode` again (`dvc repro encode`)"


class PrefixVectors:
    """Memory-mapped prefix vectors (Eq. 4-5) and item vectors (Eq. 3) of a folder that `encode` wrote.

    `sequence_rows` is the number of rows of sequences.parquet, `max_length` how many items a prefix holds at most;
    UserError when the folder does not belong to them.
    """

    def __init__(self, folder: Path, sequence_rows: int | None = None, max_length: int | None = None) -> None:
        self.manifest: dict[str, Any] = read_manifest(folder)
        made_for = self.manifest.get("max_length", max_length)
        if max_length is not None and made_for != max_length:
            raise UserError(f"{folder}: made for prefixes of {made_for} items, but max_length is {max_length}; {AGAIN}")
        self.dim: int = self.manifest["dim"]
        self.items: Float16[np.ndarray, "items+1 dim"] = _mapped(folder / "items.npy", self.dim)
        self._prefixes = _mapped(folder / "prefixes.npy", self.dim)
        self._of_row = _mapped(folder / "rows.npy")
        if sequence_rows is not None and len(self._of_row) != sequence_rows:
            found = f"{folder}: made for {len(self._of_row):,} interactions, but the sequences have {sequence_rows:,}"
            raise UserError(f"{found}; {AGAIN}")
        if int(self._of_row.max(initial=-1)) >= len(self._prefixes):
            raise UserError(f"{folder}: rows.npy points beyond prefixes.npy; {AGAIN}")

    def rows(self, rows: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape dim"]:
        """Float32 vectors of the prefixes that end at `rows` of sequences.parquet, on the CPU; zeros for padding, -1.

        Raises IndexError for a row that was not encoded: its prefix holds a test target, and no split may read it.
        """
        wanted = rows.reshape(-1).numpy()
        real = wanted != -1
        vectors = np.zeros((len(wanted), self.dim), dtype=np.float16)
        vectors[real] = self._prefixes[self._encoded(wanted[real])]
        return torch.from_numpy(vectors).float().reshape(*rows.shape, self.dim)

    def _encoded(self, rows: Int[np.ndarray, " real"]) -> Int[np.ndarray, " real"]:
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self._of_row)):
            raise IndexError(f"rows {rows.min()}..{rows.max()} of {len(self._of_row)}")
        found = self._of_row[rows]
        if len(found) and found.min() < 0:
            raise IndexError(f"row {rows[found.argmin()]} has no prefix vector: its prefix holds a test target")
        return found


def require_encodings(folder: Path, trained_with: dict[str, Any]) -> None:
    """UserError unless `folder` holds the encodings of the manifest that a model was trained with."""
    if read_manifest(folder) != trained_with:
        raise UserError(f"{folder}: made anew since the model was trained; run `dvc repro train` again")


def read_manifest(folder: Path) -> dict[str, Any]:
    """How the encodings in `folder` were made; UserError for a missing or damaged manifest.json."""
    path = folder / "manifest.json"
    try:
        content = read_json(path)
    except (OSError, ValueError):
        raise UserError(f"{path}: missing or unreadable; {AGAIN}") from None
    if not isinstance(content, dict) or not isinstance(content.get("dim"), int):
        raise UserError(f"{path}: no `dim` in it; {AGAIN}")
    return content


def _mapped(path: Path, dim: int | None = None) -> np.ndarray:
    """The array in `path`, which must have `dim` columns where one is given; nothing is read yet."""
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):  # EOFError: an empty file
        raise UserError(f"{path}: missing or not a whole .npy file; {AGAIN}") from None
    if array.shape[1:] != (() if dim is None else (dim,)):
        raise UserError(f"{path}: shape {array.shape} does not fit manifest.json; {AGAIN}")
    return array
