"""The text vectors that `encode` wrote: of items, and by row of sequences.parquet of prefixes; none is read whole."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from iadsr.errors import UserError
from iadsr.params import Params, found_at
from iadsr.provenance import Digests, digest_of, read_sealed, require_params, require_same

AGAIN = "run the stage `encode` again (`dvc repro encode`)"
NO_PREFIXES = "none"  # what a manifest says of prefixes where there are vectors of items alone
OF_ENCODER = ("kind", "pooling", "normalize", "instruction", "max_tokens")
# what a manifest is asked for, and what it is asked for besides where there are prefixes
ASKED = {"dim": int, "encoder": str, "computed_in": str, "item_template": str, "prefixes": str}
ASKED_OF_PREFIXES = {"max_length": int, "prefix_template": str, "separator": str}
COUNTS = ("texts", "distinct_texts", "tokens", "truncated_texts")  # of all that was encoded
MANIFEST, ITEM_VECTORS, PREFIX_VECTORS, ROW_NUMBERS = "manifest.json", "items.npy", "prefixes.npy", "rows.npy"


class ItemVectors:
    """Memory-mapped item vectors (Eq. 3) of a folder that `encode` wrote, whether or not it holds prefixes too.

    `manifest` is of the item vectors alone, and so the same in both cases.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.manifest = folder, of_items(read_manifest(folder))
        self.dim: int = self.manifest["dim"]
        self.items: Float16[np.ndarray, "items+1 dim"] = mapped(folder / ITEM_VECTORS, self.dim)

    def require_rows(self, offsets: Int[np.ndarray, " bounds"], items: int) -> None:
        """UserError unless there are vectors for as many items; histories, which `offsets` bound, have none here."""
        require_count(self.folder / ITEM_VECTORS, len(self.items), items + 1)


class PrefixVectors(ItemVectors):
    """Memory-mapped prefix vectors (Eq. 4-5) beside the item vectors; UserError for a folder without them.

    `max_length` is how many items a prefix holds at most; UserError when the folder was made for another one, or its
    files do not fit together.
    """

    def __init__(self, folder: Path, max_length: int | None = None) -> None:
        super().__init__(folder)
        self.manifest = read_manifest_of_prefixes(folder)
        made_for = self.manifest["max_length"]
        if max_length is not None and made_for != max_length:
            raise UserError(f"{folder}: made for prefixes of {made_for} items, but max_length is {max_length}; {AGAIN}")
        self._prefixes = mapped(folder / PREFIX_VECTORS, self.dim)
        self._of_row = mapped(folder / ROW_NUMBERS)
        if int(self._of_row.max(initial=-1)) >= len(self._prefixes):
            raise UserError(f"{folder}: {ROW_NUMBERS} points beyond {PREFIX_VECTORS}; {AGAIN}")

    def require_rows(self, offsets: Int[np.ndarray, " bounds"], items: int) -> None:
        """UserError unless there are vectors for these histories, but for their last rows, and for as many items."""
        super().require_rows(offsets, items)
        require_count(self.folder / ROW_NUMBERS, len(self._of_row), int(offsets[-1]))
        if not np.array_equal(np.flatnonzero(self._of_row < 0), offsets[1:] - 1):
            raise UserError(f"{self.folder / ROW_NUMBERS}: prefixes have no vector that should have one; {AGAIN}")

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


def opened_items(folder: Path, made_from: Digests) -> ItemVectors:
    """The item vectors of the tables with these digests; UserError for those of others, or for files changed since."""
    require_unchanged(folder, read_manifest(folder), made_from, (ITEM_VECTORS,))
    return ItemVectors(folder)


def opened_prefixes(folder: Path, made_from: Digests, max_length: int) -> PrefixVectors:
    """Likewise the vectors of prefixes and of items; UserError also for a folder without those of prefixes."""
    files = (ITEM_VECTORS, PREFIX_VECTORS, ROW_NUMBERS)
    require_unchanged(folder, read_manifest_of_prefixes(folder), made_from, files)
    return PrefixVectors(folder, max_length)


def require_unchanged(folder: Path, manifest: dict[str, Any], made_from: Digests, names: Iterable[str]) -> None:
    """UserError unless the manifest is of the tables with these digests and describes the arrays `names`."""
    require_same(folder, manifest.get("inputs") or {}, made_from, "encode")
    for name in names:
        require_noted(folder / name, manifest)


def require_count(path: Path, found: int, needed: int) -> None:
    """UserError unless an array has as many rows as are needed."""
    if found != needed:
        raise UserError(f"{path}: {found:,} rows, but the sequences need {needed:,}; {AGAIN}")


def require_recipe(folder: Path, manifest: dict[str, Any], params: Params) -> None:
    """UserError unless the vectors were made as params.yaml says now; where a model lies plays no part.

    `manifest` is that of vectors which were opened; where these are of items alone, nothing is asked of prefixes.
    """
    name = manifest["encoder"]
    texts = ("item_template", *(() if without_prefixes(manifest) else ("prefixes", "prefix_template", "separator")))
    keys = {f"encode.{key}": key for key in texts} | {f"encoders.{name}.{key}": key for key in OF_ENCODER}
    stated = {key: ours for key, ours in keys.items() if ours in manifest and found_at(params, key) is not None}
    made_with = {"encoder": name, **{key: manifest[ours] for key, ours in stated.items()}}
    require_params(folder, made_with, params, "encode")


def require_noted(path: Path, manifest: dict[str, Any]) -> None:
    """UserError unless the array in `path` is the one that the manifest describes."""
    noted = manifest.get("sha256")
    if not path.is_file() or not isinstance(noted, dict) or noted.get(path.name) != digest_of(path):
        raise UserError(f"{path}: missing, or not as {MANIFEST} describes it; {AGAIN}")


def require_encodings(folder: Path, trained_with: dict[str, Any]) -> None:
    """UserError unless `folder` holds the encodings, also of prefixes, with whose manifest a model was trained."""
    if read_manifest_of_prefixes(folder) != trained_with:
        raise UserError(f"{folder}: made anew since the model was trained; run `dvc repro train` again")


def read_manifest(folder: Path) -> dict[str, Any]:
    """How the encodings in `folder` were made; UserError for a missing or damaged manifest.json."""
    content = read_sealed(folder / MANIFEST, "encode")
    if not is_manifest(content):
        raise UserError(f"{folder / MANIFEST}: does not say how the vectors were made; {AGAIN}")
    return content


def read_manifest_of_prefixes(folder: Path) -> dict[str, Any]:
    """Likewise; UserError also where there are vectors of items alone, as a denoiser needs that reads no prefixes."""
    manifest = read_manifest(folder)
    if without_prefixes(manifest):
        raise UserError(f"{folder}: holds no vectors of prefixes, which this denoiser reads; {AGAIN}")
    return manifest


def without_prefixes(manifest: dict[str, Any]) -> bool:
    return bool(manifest.get("prefixes") == NO_PREFIXES)


def of_items(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says of the item vectors, as if there were no others."""
    kept = {name: value for name, value in manifest.items() if name not in (*ASKED_OF_PREFIXES, *COUNTS)}
    if isinstance(sums := kept.get("sha256"), dict):
        kept["sha256"] = {name: digest for name, digest in sums.items() if name == ITEM_VECTORS}
    return kept | {"prefixes": NO_PREFIXES}


def is_manifest(content: dict[str, Any]) -> bool:
    """Does it say all that readers of the vectors, and of a model that was trained with them, ask for?"""
    asked = ASKED if without_prefixes(content) else ASKED | ASKED_OF_PREFIXES
    return all(isinstance(content.get(name), kind) for name, kind in asked.items())


def mapped(path: Path, dim: int | None = None) -> np.ndarray:
    """The array in `path`, which must hold vectors of `dim`, or without it row numbers; nothing is read yet."""
    try:
        array = np.load(path, mmap_mode="r")
        if not isinstance(array, np.ndarray):  # of a zip file
            raise ValueError
    except (OSError, ValueError, EOFError, BadZipFile):  # EOFError: an empty file
        raise UserError(f"{path}: missing or not a whole .npy file; {AGAIN}") from None
    kind, shape = (np.int32, ()) if dim is None else (np.float16, (dim,))
    if array.dtype != kind or array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        raise UserError(f"{path}: {array.dtype} numbers of shape {array.shape} do not fit {MANIFEST}; {AGAIN}")
    return array
