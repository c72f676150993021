"""The encoding benchmark: what it counts by hand, and that all its ways encode the same texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_process import Here
from typer.testing import CliRunner

from benchmarks import encoding, machine, prepared
from benchmarks.random_decoder import SHAPES, decoder, tokenizer
from iadsr.encode.encoders.interface import Llm2VecParams
from iadsr.encode.encoders.llm2vec import Llm2VecEncoder
from iadsr.encode.texts import Corpus

pytestmark = pytest.mark.usefixtures("one_thread")
TITLES = [f"red lipstick number {number}" for number in range(40)]


@pytest.fixture(scope="module")
def encoder() -> Llm2VecEncoder:
    model = decoder("llama-tiny", torch.device("cpu"), torch.float32)
    spec = Llm2VecParams(kind="llm2vec", model="llama-tiny", max_tokens=64)
    return Llm2VecEncoder(spec, model, tokenizer(TITLES, model.config.vocab_size))


def test_every_field_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the demo; the ratio is that of the seconds, and the library's vectors are ours."""
    monkeypatch.setattr(encoding, "Child", Here)
    monkeypatch.setattr(machine, "SIZES", {"cpu": 64, "cuda": 64, "mps": 64})
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    options = [
        "--model",
        "llama-tiny",
        "--dataset",
        "demo",
        "--quick",
        "--dtype",
        "float32",
        "--threads",
        "1",
        "--json",
    ]
    result = CliRunner().invoke(encoding.app, options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["texts"] == 64 and found["tokens"] > 64 and found["computed_in"] == "float32"
    assert found["cosine"] > 0.9999 and found["peak_fraction"] > 0 and 0 <= found["padding_share"] < 0.5
    own, theirs = (found["seconds"][name][0] for name in ("ours", "library"))
    assert found["ratio"] == pytest.approx(theirs / own, rel=0.05)
    assert found["tokens_per_second"] == pytest.approx(found["tokens"] / own, rel=0.05)


def test_prefixes_of_whole_histories_computed_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fewer tokens than all have, near to the exact vectors, and the ratio is that of the seconds."""
    monkeypatch.setattr(encoding, "Child", Here)
    monkeypatch.setattr(machine, "SIZES", {"cpu": 64, "cuda": 64, "mps": 64})
    monkeypatch.setattr(prepared, "CACHE", tmp_path)
    options = "--model llama-tiny --dataset demo --quick --shared --dtype float32 --threads 1 --json"
    result = CliRunner().invoke(encoding.app, options.split())
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert 0.2 < found["shared_computed"] < 0.6
    assert 0.7 < found["shared_cosine_least"] < found["shared_cosine_mean"] < 1
    exact, shared, theirs = (found["seconds"][name][0] for name in ("ours", "shared", "library"))
    assert found["shared_ratio"] == pytest.approx(theirs / shared, rel=0.05)
    assert found["shared_over_ours"] == pytest.approx(exact / shared, rel=0.05)


def test_whole_histories_by_hand() -> None:
    """Four users of three items, the last for test; of two of them, the first and the last, two prefixes each."""
    items, positions = np.array([1, 2, 3, 3, 2, 1, 2, 3, 1, 3, 1, 2]), np.tile(np.arange(3), 4)
    corpus = Corpus(["a", "b", "c"], items, positions, positions < 2)
    assert encoding.whole_histories(corpus, 5, 4) == ["a", "c", "a; b", "c; a"]


def test_all_ways_give_the_same_vectors(encoder: Llm2VecEncoder) -> None:
    texts = [title[: 5 + number % 17] for number, title in enumerate(TITLES)]
    ours = encoding.in_shards(encoder, texts, 64).vectors
    theirs = encoding.by_library(encoding.around(encoder, 64), texts)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    tokens = sorted(encoder.tokenize(texts), key=lambda each: len(each.ids))
    expected = torch.cat([encoder.vectors([each]) for each in tokens])
    for way in (encoding.equal_lengths, encoding.packed):
        np.testing.assert_allclose(way(encoder, texts, 64), expected, atol=2e-3)


def test_multiply_adds_by_hand(encoder: Llm2VecEncoder) -> None:
    """Two layers of width 32, two heads and one of keys of 16 each, 64 inside: q and o 32 x 32, k and v 32 x 16, three
    of 32 x 64, norms: 2 (2 x 1024 + 2 x 512 + 3 x 2048 + 64) + 32 = 18,592 weights. Of 3 and 1 tokens: 4 x 18,592, and
    of 3 x 3 + 1 pairs twice 32 in each of two layers.
    """
    assert encoding.multiply_adds(encoder, np.array([3, 1])) == 4 * 18592 + 10 * 2 * 32 * 2


def test_padding_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts of 1, 2, 3 and 4 letters and as many tokens, in batches of at most 6 tokens: 1 2 | 3 | 4 are 11 places of
    10; the library's of two, the longest first: 4 3 | 2 1 are 12.
    """
    texts, lengths = ["a", "bb", "ccc", "dddd"], np.array([1, 2, 3, 4])
    monkeypatch.setattr(encoding, "LIBRARY_BATCH", 2)
    shares = [encoding.padding_share(who, texts, lengths, 6) for who in encoding.WAYS]
    assert shares == pytest.approx([1 - 10 / 11, 0, 0, 1 - 10 / 12, 1 - 10 / 12])


def test_a_sample_has_whole_batches_of_all_lengths() -> None:
    """Of 10,000 of 30,000 prefixes of one to thirty titles, 64 in two runs of neighbours at a quarter and three."""
    positions = np.tile(np.arange(30), 1000)
    items = np.arange(30000) % 977 + 1
    corpus = Corpus([f"{number:04d}" for number in range(977)], items, positions, np.ones(30000, dtype=bool))
    found = encoding.sample(corpus, 30, 64)
    sizes = [len(text.split("; ")) for text in found]
    assert (
        len(set(found)) == 64
        and max(sizes[:32]) - min(sizes[:32]) <= 1
        and sizes[0] in (7, 8)
        and sizes[40] in (22, 23)
    )


def test_the_shapes_are_what_they_are_called() -> None:
    """Without the tables of embeddings: 85 million, and 7 billion of Llama-3.1-8B's."""

    def weights(shape: str) -> int:
        model = decoder(shape, torch.device("meta"), torch.float32)
        return sum(weight.numel() for name, weight in model.named_parameters() if "embed" not in name)

    assert weights("llama-100m") == 84_953_856 and weights("llama-8b") == 6_979_588_096
    assert SHAPES["llama-8b"]["vocab_size"] == 128256
