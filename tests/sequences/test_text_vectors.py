"""The reader of encoded vectors: which row gets which vector, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import SMALL_MANIFEST

from iadsr.artifacts import write_array
from iadsr.errors import UserError
from iadsr.provenance import digest_of, write_sealed
from iadsr.sequences.text_vectors import (
    ItemVectors,
    PrefixVectors,
    opened_items,
    opened_prefixes,
    read_manifest,
    require_recipe,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four rows of sequences; the last is a test item's. Prefix vectors [1, 2] and [3, 4]; rows 0 and 2 share one."""
    write_array(tmp_path / "items.npy", np.array([[0, 0], [5, 6]], dtype=np.float16))
    write_array(tmp_path / "prefixes.npy", np.array([[1, 2], [3, 4]], dtype=np.float16))
    write_array(tmp_path / "rows.npy", np.array([0, 1, 0, -1], dtype=np.int32))
    sums = {path.name: digest_of(path) for path in tmp_path.iterdir()}
    made = {"sha256": sums, "inputs": {"filtered/sequences.parquet": "a"}}
    content = {**SMALL_MANIFEST, "dim": 2, "max_length": 32, **made}
    write_sealed(tmp_path / "manifest.json", content)
    return tmp_path


@pytest.fixture
def items_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same item vectors, as they are written for a denoiser that reads no prefixes."""
    alone = tmp_path_factory.mktemp("alone")
    shutil.copy(folder / "items.npy", alone)
    of_items = {"encoder": "small", "dim": 2, "computed_in": "float32", "item_template": "{title}", "prefixes": "none"}
    made = {"sha256": {"items.npy": digest_of(alone / "items.npy")}, "inputs": {"filtered/sequences.parquet": "a"}}
    write_sealed(alone / "manifest.json", {**of_items, **made, "texts": 1, "tokens": 5})
    return alone


def test_rows_and_padding(folder: Path) -> None:
    """Rows 2, 1, -1, -1 give the first vector, the second, and zeros for both paddings."""
    vectors = PrefixVectors(folder).rows(torch.tensor([[2, 1], [-1, -1]]))
    assert vectors.dtype == torch.float32
    assert vectors.tolist() == [[[1, 2], [3, 4]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1, 1, 1)])
def test_any_shape(folder: Path, shape: tuple[int, ...]) -> None:
    assert PrefixVectors(folder).rows(torch.zeros(shape, dtype=torch.long)).shape == (*shape, 2)


def test_items_are_a_memory_map(folder: Path) -> None:
    vectors = PrefixVectors(folder)
    assert isinstance(vectors.items, np.memmap)
    assert (vectors.items.tolist(), vectors.dim) == ([[0, 0], [5, 6]], 2)


def test_the_prefix_that_holds_the_test_target_is_refused(folder: Path) -> None:
    with pytest.raises(IndexError, match="row 3 has no prefix vector"):
        PrefixVectors(folder).rows(torch.tensor([0, 3, -1]))


@pytest.mark.parametrize("row", [4, -2])
def test_rows_that_do_not_exist_are_refused(folder: Path, row: int) -> None:
    with pytest.raises(IndexError, match="of 4"):
        PrefixVectors(folder).rows(torch.tensor([0, row]))


def test_made_for_other_sequences(folder: Path) -> None:
    vectors = PrefixVectors(folder)
    vectors.require_rows(np.array([0, 4]), 1)
    with pytest.raises(UserError, match=r"rows.npy: 4 rows, but the sequences need 1,000; run the stage `encode`"):
        vectors.require_rows(np.array([0, 1000]), 1)
    with pytest.raises(UserError, match=r"items.npy: 2 rows, but the sequences need 4; run the stage `encode`"):
        vectors.require_rows(np.array([0, 4]), 3)
    with pytest.raises(UserError, match=r"rows.npy: prefixes have no vector that should have one"):
        vectors.require_rows(np.array([0, 2, 4]), 1)


def test_items_are_read_alike_with_prefixes_beside_them_and_without(folder: Path, items_alone: Path) -> None:
    """To the last word of what a model keeps of their manifest: how many texts were encoded plays no part."""
    beside, alone = (opened_items(each, {"filtered/sequences.parquet": "a"}) for each in (folder, items_alone))
    assert beside.items.tolist() == alone.items.tolist() == [[0, 0], [5, 6]]
    assert beside.manifest == alone.manifest and beside.manifest["sha256"].keys() == {"items.npy"}


@pytest.mark.parametrize("name", ["prefixes.npy", "rows.npy"])
def test_items_need_no_file_of_prefixes(folder: Path, name: str) -> None:
    (folder / name).unlink()
    opened_items(folder, {"filtered/sequences.parquet": "a"}).require_rows(np.array([0, 1000]), 1)


def test_items_are_checked_as_prefixes_are(items_alone: Path) -> None:
    with pytest.raises(UserError, match=r"items.npy: 2 rows, but the sequences need 4; run the stage `encode`"):
        ItemVectors(items_alone).require_rows(np.array([0, 4]), 3)
    with pytest.raises(UserError, match=r"made from another filtered/sequences.parquet"):
        opened_items(items_alone, {"filtered/sequences.parquet": "b"})
    write_array(items_alone / "items.npy", np.zeros((2, 2), dtype=np.float16))
    with pytest.raises(UserError, match=r"items.npy: missing, or not as manifest.json describes it"):
        opened_items(items_alone, {"filtered/sequences.parquet": "a"})


def test_a_reader_of_prefixes_refuses_a_folder_without(items_alone: Path) -> None:
    said = r"holds no vectors of prefixes, which this denoiser reads; run the stage `encode` again \(`dvc repro encode`"
    with pytest.raises(UserError, match=said):
        PrefixVectors(items_alone)
    with pytest.raises(UserError, match=said):
        opened_prefixes(items_alone, {"filtered/sequences.parquet": "a"}, 32)


def test_a_reader_of_items_asks_nothing_of_prefixes(folder: Path) -> None:
    """The folder has means and "; ": of the templates only that of items counts."""
    encode = {"prefixes": "joint", "separator": "|", "prefix_template": "Seen: {titles}", "item_template": "{title}"}
    manifest, given = ItemVectors(folder).manifest, {"encoder": "small", "encoders": {"small": {}}}
    require_recipe(folder, manifest, {**given, "encode": encode})
    with pytest.raises(UserError, match=r"made with encode\.item_template: '{title}', but"):
        require_recipe(folder, manifest, {**given, "encode": {**encode, "item_template": "a {title}"}})


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"encode": {"prefixes": "joint", "separator": "; "}}, "encode.prefixes: 'mean', but params.yaml has 'joint'"),
        ({"encode": {"prefixes": "mean", "separator": ", "}}, "encode.separator: '; ', but params.yaml has ', '"),
        ({"encoder": "large"}, "encoder: 'small', but params.yaml has 'large'"),
    ],
)
def test_made_by_another_recipe(folder: Path, params: dict[str, Any], key: str) -> None:
    """`device` and a model's place are no part of the recipe."""
    encode = {"prefixes": "mean", "separator": "; ", "device": "cpu"}
    given = {"encoder": "small", "encoders": {"small": {"model": "/elsewhere"}}, "encode": encode}
    manifest = read_manifest(folder)
    require_recipe(folder, manifest, given)
    with pytest.raises(UserError, match=f"made with {key}; run `dvc repro encode`"):
        require_recipe(folder, manifest, given | params)


def test_made_for_prefixes_of_another_length(folder: Path) -> None:
    PrefixVectors(folder, 32)
    with pytest.raises(UserError, match="made for prefixes of 32 items, but max_length is 50; run the stage `encode`"):
        PrefixVectors(folder, 50)


def test_made_from_other_tables(folder: Path) -> None:
    opened_prefixes(folder, {"filtered/sequences.parquet": "a"}, 32)
    with pytest.raises(
        UserError, match=r"made from another filtered/sequences.parquet than is there now; run `dvc rep"
    ):
        opened_prefixes(folder, {"filtered/sequences.parquet": "b"}, 32)


@pytest.mark.parametrize("name", ["items.npy", "prefixes.npy", "rows.npy"])
def test_a_changed_array_is_named(folder: Path, name: str) -> None:
    """Of the same shape and type, so that nothing but its digest tells."""
    write_array(folder / name, np.zeros_like(np.load(folder / name)))
    with pytest.raises(UserError, match=rf"{name}: missing, or not as manifest.json describes it; run the stage"):
        opened_prefixes(folder, {"filtered/sequences.parquet": "a"}, 32)


def test_parts_that_do_not_fit_each_other(folder: Path) -> None:
    write_array(folder / "rows.npy", np.array([0, 1, 2, -1], dtype=np.int32))
    with pytest.raises(UserError, match=r"rows\.npy points beyond prefixes\.npy"):
        PrefixVectors(folder)
    write_array(folder / "prefixes.npy", np.zeros((9, 3), dtype=np.float16))
    with pytest.raises(UserError, match=r"prefixes\.npy: float16 numbers of shape \(9, 3\) do not fit"):
        PrefixVectors(folder)


@pytest.mark.parametrize("name", ["manifest.json", "items.npy", "prefixes.npy", "rows.npy"])
def test_missing_or_torn_files_are_named(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=name):
        PrefixVectors(folder)
    (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=name):
        PrefixVectors(folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        PrefixVectors(folder)


def test_manifest_without_dim(folder: Path) -> None:
    write_sealed(folder / "manifest.json", {})
    with pytest.raises(UserError, match="does not say how the vectors were made"):
        PrefixVectors(folder)
