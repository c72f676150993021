"""From texts to arrays: batches, shards, restart and assembly, with an encoder whose vectors are worked by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from letters import Letters
from torch import Tensor

from iadsr.artifacts import file_digest
from iadsr.encode import cache
from iadsr.encode.batches import batches, prefix_means
from iadsr.encode.encoders.interface import Tokens, TransformerEncoderParams
from iadsr.encode.fill import distinct
from iadsr.encode.recipe import EncodeParams, Recipe
from iadsr.encode.texts import Corpus
from iadsr.encode.write import TextCounts, write_encoded
from iadsr.errors import UserError
from iadsr.provenance import read_sealed


def recipe(
    prefixes: str = "joint",
    batch_tokens: int = 8,
    max_length: int = 2,
    model: str = "letters",
    denoiser: str = "iadsr",
) -> Recipe:
    settings = EncodeParams.model_validate(
        {"prefixes": prefixes, "separator": "-", "batch_tokens": batch_tokens, "dtype": "float32"}
    )
    spec = TransformerEncoderParams(kind="transformer", model=model, max_tokens=8)
    return Recipe("tiny", spec, settings, max_length, denoiser)


@pytest.fixture
def corpus() -> Corpus:
    """Items a, bb, a (again), ccc; users (1, 2, 3, 4) and (3, 2, 1), the last item of each the test item."""
    items, positions = np.array([1, 2, 3, 4, 3, 2, 1]), np.array([0, 1, 2, 3, 0, 1, 2])
    return Corpus(["a", "bb", "a", "ccc"], items, positions, np.array([1, 1, 1, 0, 1, 1, 0], dtype=bool))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in sorted(folder.iterdir())}


def test_joint_by_hand(tmp_path: Path, corpus: Corpus) -> None:
    """Prefixes of at most 2 items: a, a-bb, bb-a, (test); a, a-bb, (test). Distinct: a, a-bb, bb-a.

    a = [1, 1]; a-bb = bb-a = [3, 1 + 2 + 2]; bb = [2, 4]; ccc = [3, 9].
    """
    write_encoded(tmp_path / "out", corpus, Letters(), recipe(), tmp_path / "work")
    items, prefixes, rows = (np.load(tmp_path / "out" / f"{name}.npy") for name in ("items", "prefixes", "rows"))
    assert items.tolist() == [[0, 0], [1, 1], [2, 4], [1, 1], [3, 9]]
    assert prefixes.tolist() == [[1, 1], [3, 5], [3, 5]]
    assert rows.tolist() == [0, 1, 2, -1, 0, 1, -1]
    assert (items.dtype, prefixes.dtype, rows.dtype) == (np.float16, np.float16, np.int32)


def test_mean_by_hand(tmp_path: Path, corpus: Corpus) -> None:
    """Means of the newest 2 items' vectors: a; (a + bb) / 2 = [1.5, 2.5]; the same; user 2: a; (a + bb) / 2."""
    write_encoded(tmp_path / "out", corpus, Letters(), recipe("mean"), tmp_path / "work")
    prefixes, rows = np.load(tmp_path / "out/prefixes.npy"), np.load(tmp_path / "out/rows.npy")
    assert prefixes.tolist() == [[1, 1], [1.5, 2.5], [1.5, 2.5], [1, 1], [1.5, 2.5]]
    assert rows.tolist() == [0, 1, 2, -1, 3, 4, -1]


@pytest.mark.parametrize("prefixes", ["joint", "shared", "mean"])
def test_items_alone_by_hand(tmp_path: Path, corpus: Corpus, prefixes: str) -> None:
    """A denoiser that reads no prefixes has none encoded: of the titles a, bb, a, ccc three are distinct."""
    encoder, made = Letters(), recipe(prefixes, denoiser="text_rule")
    counts = write_encoded(tmp_path / "out", corpus, encoder, made, tmp_path / "work").counts
    assert sorted(encoder.encoded) == ["a", "bb", "ccc"] and counts == TextCounts(4, 3, 6, 0)
    assert sorted(digests(tmp_path / "out")) == ["items.npy", "manifest.json"]
    assert np.load(tmp_path / "out/items.npy").tolist() == [[0, 0], [1, 1], [2, 4], [1, 1], [3, 9]]


@pytest.mark.parametrize("prefixes", ["joint", "mean"])
def test_prefixes_of_an_earlier_encoding_do_not_stay(tmp_path: Path, corpus: Corpus, prefixes: str) -> None:
    """Without them the folder is as if they had never been there; nor do they change the vectors of items."""
    made, alone = recipe(prefixes), recipe(prefixes, denoiser="none")
    write_encoded(tmp_path / "out", corpus, Letters(), made, tmp_path / "work")
    before = digests(tmp_path / "out")
    assert write_encoded(tmp_path / "out", corpus, Letters(), alone, tmp_path / "work").new_texts == 0
    write_encoded(tmp_path / "fresh", corpus, Letters(), alone, tmp_path / "elsewhere")
    assert digests(tmp_path / "out") == digests(tmp_path / "fresh")
    assert digests(tmp_path / "out")["items.npy"] == before["items.npy"]


def test_how_prefixes_would_be_made_is_not_noted_where_there_are_none(tmp_path: Path, corpus: Corpus) -> None:
    """So another separator or max_length trains nothing again that reads items alone."""
    for name, made in {"one": recipe("mean", denoiser="none"), "other": recipe(max_length=9, denoiser="none")}.items():
        write_encoded(tmp_path / name, corpus, Letters(), made, tmp_path / "work")
    assert digests(tmp_path / "one") == digests(tmp_path / "other")
    found = read_sealed(tmp_path / "one/manifest.json", "encode")
    assert found["prefixes"] == "none" and not {"prefix_template", "separator", "max_length"} & set(found)


def test_each_distinct_text_is_encoded_once(tmp_path: Path, corpus: Corpus) -> None:
    """4 titles + 5 usable prefixes; distinct are a, bb, ccc, a-bb and bb-a of 1 + 2 + 3 + 3 + 3 = 12 tokens."""
    encoder = Letters()
    counts, new, dim = write_encoded(tmp_path / "out", corpus, encoder, recipe(), tmp_path / "work")
    assert (new, dim) == (5, 2)
    assert sorted(encoder.encoded) == ["a", "abb", "bb", "bba", "ccc"]
    assert (counts.texts, counts.distinct_texts, counts.tokens, counts.truncated_texts) == (9, 5, 12, 0)


def test_truncated_texts_are_counted(tmp_path: Path, corpus: Corpus) -> None:
    """Item 2 becomes dddd: the prefixes a-dddd and dddd-a have 5 letters and keep the last 4, dddd and ddda."""
    longer = Corpus(["a", "dddd", "a", "ccc"], corpus.items, corpus.positions, corpus.usable)
    encoder = Letters()
    assert write_encoded(tmp_path / "out", longer, encoder, recipe(), tmp_path / "work").counts.truncated_texts == 2
    assert sorted(encoder.encoded) == ["a", "ccc", "ddda", "dddd", "dddd"]


@pytest.mark.parametrize("prefixes", ["joint", "mean"])
def test_no_usable_prefix(tmp_path: Path, prefixes: str) -> None:
    """One user with one item, the test item: only the title is encoded."""
    alone = Corpus(["a"], np.array([1]), np.array([0]), np.array([False]))
    write_encoded(tmp_path / "out", alone, Letters(), recipe(prefixes), tmp_path / "work")
    assert np.load(tmp_path / "out/prefixes.npy").shape == (0, 2)
    assert np.load(tmp_path / "out/rows.npy").tolist() == [-1]


def test_manifest_is_the_same_everywhere(tmp_path: Path, corpus: Corpus) -> None:
    made = recipe(model=str(tmp_path / "weights"))
    write_encoded(tmp_path / "out", corpus, Letters(), made, tmp_path / "work")
    assert read_sealed(tmp_path / "out/manifest.json", "encode") == {
        "adapters": [],
        "computed_in": "float32",
        "dim": 2,
        "distinct_texts": 5,
        "dtype": "float16",
        "encoder": "tiny",
        "kind": "transformer",
        "max_length": 2,
        "max_tokens": 8,
        "model": "weights",
        "normalize": True,
        "pooling": "mean",
        "prefixes": "joint",
        "revision": None,
        "item_template": "{title}",
        "prefix_template": "{titles}",
        "separator": "-",
        "sha256": {name: file_digest(tmp_path / "out" / name) for name in ("items.npy", "prefixes.npy", "rows.npy")},
        "inputs": {},
        "texts": 9,
        "tokens": 12,
        "truncated_texts": 0,
    }


@pytest.mark.parametrize(("prefixes", "denoiser"), [("joint", "iadsr"), ("mean", "iadsr"), ("joint", "none")])
@pytest.mark.parametrize("lived", [0, 1, 2])
def test_a_killed_run_goes_on(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, prefixes: str, denoiser: str, lived: int
) -> None:
    """Shards of one text and one batch each: after k batches, k texts need not be encoded again."""
    monkeypatch.setattr(cache, "SHARD", 1)
    whole, made = Letters(), recipe(prefixes, denoiser=denoiser)
    write_encoded(tmp_path / "whole", corpus, whole, made, tmp_path / "elsewhere")
    with pytest.raises(KeyboardInterrupt):
        write_encoded(tmp_path / "out", corpus, Letters(lived), made, tmp_path / "work")
    assert not (tmp_path / "out").exists()
    rest = Letters()
    write_encoded(tmp_path / "out", corpus, rest, made, tmp_path / "work")
    assert rest.encoded == whole.encoded[lived:]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_templates(tmp_path: Path, corpus: Corpus) -> None:
    """z and a title, and y before the joined titles; the order of the marks' words does not matter, nor do braces.

    Items: za, zbb, zccc. Prefixes: ya, ya-bb, ybb-a.
    """
    made = recipe()
    settings = made.settings.model_copy(update={"item_template": "{}z{title}", "prefix_template": "y{titles}"})
    encoder = Letters()
    made = replace(made, settings=settings)
    write_encoded(tmp_path / "out", corpus, encoder, made, tmp_path / "work")
    assert sorted(encoder.encoded) == sorted(["za", "zbb", "zccc", "ya", "yabb", "ybba"])
    assert read_sealed(tmp_path / "out/manifest.json", "encode")["item_template"] == "{}z{title}"


def test_what_was_encoded_is_never_encoded_again(tmp_path: Path, corpus: Corpus) -> None:
    """The same again costs nothing; another title costs itself and the prefixes that hold it: d and a-d, d-a."""
    write_encoded(tmp_path / "out", corpus, Letters(), recipe(), tmp_path / "work")
    again = Letters()
    assert write_encoded(tmp_path / "again", corpus, again, recipe(), tmp_path / "work").new_texts == 0
    assert again.encoded == [] and digests(tmp_path / "out") == digests(tmp_path / "again")
    grown = Corpus(["a", "d", "a", "ccc"], corpus.items, corpus.positions, corpus.usable)
    assert write_encoded(tmp_path / "grown", grown, again, recipe(), tmp_path / "work").new_texts == 3
    assert again.encoded == ["d", "ad", "da"]
    write_encoded(tmp_path / "alone", grown, Letters(), recipe(), tmp_path / "elsewhere")
    assert digests(tmp_path / "grown") == digests(tmp_path / "alone")


def test_a_failed_run_leaves_the_old_output(tmp_path: Path, corpus: Corpus) -> None:
    write_encoded(tmp_path / "out", corpus, Letters(), recipe(), tmp_path / "work")
    before = digests(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        write_encoded(tmp_path / "out", corpus, Letters(0), recipe(max_length=3), tmp_path / "work")
    assert digests(tmp_path / "out") == before


def test_shards_of_another_encoder_are_not_taken(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SHARD", 1)
    with pytest.raises(KeyboardInterrupt):
        write_encoded(tmp_path / "out", corpus, Letters(2), recipe(), tmp_path / "work")
    other = Letters(weights="others")
    write_encoded(tmp_path / "out", corpus, other, recipe(), tmp_path / "work")
    assert len(other.encoded) == 5


@pytest.mark.parametrize(("sharded", "batch_tokens"), [(1, 1), (2, 3), (3, 100), (2048, 1)])
def test_shards_and_batches_change_nothing(
    tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, sharded: int, batch_tokens: int
) -> None:
    write_encoded(tmp_path / "one", corpus, Letters(), recipe(), tmp_path / "work")
    monkeypatch.setattr(cache, "SHARD", sharded)
    write_encoded(tmp_path / "two", corpus, Letters(batch_tokens=batch_tokens), recipe(), tmp_path / "other")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize("value", [7e4, float("nan"), float("inf")])
def test_a_vector_that_float16_cannot_hold_names_its_text(tmp_path: Path, corpus: Corpus, value: float) -> None:
    """float16 ends at 65504."""

    class Overflowing(Letters):
        def vectors(self, batch: Sequence[Tokens]) -> Tensor:
            return torch.where(
                torch.tensor([[len(tokens.ids) == 2] for tokens in batch]), value, super().vectors(batch)
            )

    with pytest.raises(UserError, match=r"not finite in float16 .*'bb'"):
        write_encoded(tmp_path / "out", corpus, Overflowing(), recipe(), tmp_path / "work")


def test_distinct() -> None:
    texts, numbers = distinct(iter(["b", "a", "b", "c", "a"]))
    assert (texts, numbers.tolist()) == (["b", "a", "c"], [0, 1, 0, 2, 1])


def test_batches_count_padding() -> None:
    """Budget 6: 1 1 2 costs 3 * 2 = 6; then 3 3 costs 6; 4 would cost 3 * 4; 9 is over the budget and stands alone."""
    assert list(batches([1, 1, 2, 3, 3, 4, 9], 6)) == [slice(0, 3), slice(3, 5), slice(5, 6), slice(6, 7)]
    assert list(batches([], 6)) == []


@given(st.lists(st.integers(1, 50)), st.integers(1, 120))
def test_batches_cover_all_within_the_budget(lengths: list[int], budget: int) -> None:
    lengths = sorted(lengths)
    cut = list(batches(lengths, budget))
    assert [number for part in cut for number in range(len(lengths))[part]] == list(range(len(lengths)))
    for part in cut:
        size = part.stop - part.start
        assert size == 1 or size * lengths[part.stop - 1] <= budget


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 5), st.integers(0, 2**31))
def test_prefix_means_equal_a_plain_loop(lengths: list[int], max_length: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(7, 3)).astype(np.float16)
    positions = np.concatenate([np.arange(length) for length in lengths])
    items = random.integers(1, 7, size=len(positions))
    corpus = Corpus(["t"] * 6, items, positions, np.ones(len(items), dtype=bool))
    rows = np.flatnonzero(random.random(len(items)) < 0.7)
    starts = [row - min(positions[row], max_length - 1) for row in rows]
    plain = [
        vectors[items[start : row + 1]].astype(np.float64).mean(0) for start, row in zip(starts, rows, strict=True)
    ]
    means = prefix_means(vectors, corpus, max_length, rows)
    np.testing.assert_allclose(means, np.reshape(plain, (-1, 3)), atol=2e-3)


def test_automatic_batch_size() -> None:
    assert recipe(batch_tokens=0).settings.budget("cpu") == 1024
    assert recipe(batch_tokens=0).settings.budget("cuda") == 16384
    assert recipe(batch_tokens=5).settings.budget("cuda") == 5
