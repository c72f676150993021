"""Prefix texts: which titles they hold, in what order, and that no later item changes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iadsr.encode.texts import Corpus, Wording, prefix_texts, read_corpus
from iadsr.errors import UserError
from iadsr.provenance import write_note


def corpus_of(*histories: list[int], titles: list[str]) -> Corpus:
    """The last item of each history is its test item."""
    items = np.array([item for history in histories for item in history])
    positions = np.concatenate([np.arange(len(history)) for history in histories])
    usable = np.concatenate([np.arange(len(history)) < len(history) - 1 for history in histories])
    return Corpus(titles, items, positions, usable)


def write_tables(folder: Path, **changes: list[object]) -> tuple[Path, Path]:
    """Two users, (1, 2, 1) and (2, 1); `changes` replaces columns."""
    sequences: dict[str, list[object]] = {
        "user": [0, 0, 0, 1, 1],
        "item": [1, 2, 1, 2, 1],
        "position": [0, 1, 2, 0, 1],
        "split": ["train", "validation", "test", "validation", "test"],
    }
    items: dict[str, list[object]] = {"item": [1, 2], "title": ["red", "blue"]}
    for name, values in changes.items():
        (items if name == "title" else sequences)[name] = values
    paths = folder / "sequences.parquet", folder / "items.parquet"
    for path, columns in zip(paths, (sequences, items), strict=True):
        pyarrow.parquet.write_table(pa.table({name: column for name, column in columns.items() if column}), path)
    write_note(folder, {}, paths)
    return paths


def test_newest_items_oldest_first() -> None:
    """Histories a b c | d and c a | b, at most 2 items: user 1's prefixes are a, ab, bc; user 2's c, ca.

    d and the second b are test items, so no prefix ends there.
    """
    corpus = corpus_of([1, 2, 3, 4], [3, 1, 2], titles=["a", "b", "c", "d"])
    assert list(prefix_texts(corpus, 2, Wording(separator="; "))) == ["a", "a; b", "b; c", "c", "c; a"]


def test_prefix_shorter_than_max_length_is_whole() -> None:
    corpus = corpus_of([2, 1, 2, 1], titles=["a", "b"])
    assert list(prefix_texts(corpus, 50, Wording(separator=","))) == ["b", "b,a", "b,a,b"]


def test_max_length_one_is_the_item_itself() -> None:
    corpus = corpus_of([2, 1, 1], titles=["a", "b"])
    assert list(prefix_texts(corpus, 1, Wording(separator=","))) == ["b", "a"]


@given(
    st.lists(st.integers(1, 5), min_size=3, max_size=12),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 6),
)
def test_later_items_change_no_earlier_prefix(history: list[int], later: list[int], max_length: int) -> None:
    """A history with other items after position t has the same prefix texts up to t."""
    titles = ["a", "b", "c", "d", "e"]
    before = list(prefix_texts(corpus_of([*history, 1], titles=titles), max_length, Wording(separator=" ")))
    after = list(prefix_texts(corpus_of([*history, *later, 2], titles=titles), max_length, Wording(separator=" ")))
    assert after[: len(before)] == before


def test_reads_what_filter_wrote(tmp_path: Path) -> None:
    corpus = read_corpus(*write_tables(tmp_path))
    assert corpus.titles == ["red", "blue"]
    assert corpus.items.tolist() == [1, 2, 1, 2, 1]
    assert corpus.usable.tolist() == [True, True, False, True, False]
    assert list(prefix_texts(corpus, 9, Wording(separator="+"))) == ["red", "red+blue", "blue"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": ["red", "  "]}, "items.parquet: item 2 has an empty title"),
        ({"title": ["red", None]}, "items.parquet: column 'title': expected text without gaps"),
        ({"item": [1, 2, 3, 2, 1]}, "sequences.parquet: items 1..3, but"),
        ({"item": [1, 2, 0, 2, 1]}, "sequences.parquet: items 0..2, but"),
        ({"position": [1, 2, 0, 0, 1]}, "not sorted by user and position"),
        ({"position": [0, 2, 1, 0, 1]}, "not sorted by user and position"),
        ({"split": []}, "sequences.parquet: no column 'split'"),
    ],
)
def test_broken_tables_are_named(tmp_path: Path, changes: dict[str, list[object]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_corpus(*write_tables(tmp_path, **changes))


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    sequences, items = write_tables(tmp_path)
    sequences.write_text("user,item\n")
    with pytest.raises(UserError, match=r"sequences\.parquet: not what the stage `filter` wrote last; run"):
        read_corpus(sequences, items)
    write_note(tmp_path, {}, (sequences, items))
    with pytest.raises(UserError, match=r"sequences\.parquet: not a whole Parquet file"):
        read_corpus(sequences, items)
    sequences.unlink()
    with pytest.raises(UserError, match=r"sequences\.parquet: missing; run"):
        read_corpus(sequences, items)
