"""Windows, limits, targets and padding: what each split may see, worked by hand and as properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import sequences_of, write_means

from iadsr.errors import UserError
from iadsr.schemas import TEST, TRAIN, VALIDATION
from iadsr.sequences.text_vectors import ItemVectors
from iadsr.sequences.windows import (
    Batch,
    Feed,
    Sequences,
    Windows,
    history_windows,
    read_sequences,
    shortest_first,
    training_tail_windows,
    training_windows,
)

TWO_USERS = sequences_of([1, 2, 3, 4], [5, 6, 7])


def table(**changes: Any) -> pa.Table:
    """Users 0 (items 3, 1, 2) and 1 (items 2, 2, 1, 3)."""
    columns = {
        "user": pa.array([0, 0, 0, 1, 1, 1, 1], pa.int32()),
        "item": pa.array([3, 1, 2, 2, 2, 1, 3], pa.int32()),
        "position": pa.array([0, 1, 2, 0, 1, 2, 3], pa.int32()),
        "timestamp": pa.array(range(7), pa.int64()),
        "split": [TRAIN, VALIDATION, TEST, TRAIN, TRAIN, VALIDATION, TEST],
    }
    return pa.table({name: column for name, column in {**columns, **changes}.items() if column is not None})


def test_reads_items_offsets_and_noise(tmp_path: Path) -> None:
    noise = [False, False, False, True, False, False, False]
    pyarrow.parquet.write_table(table(is_noise=noise), tmp_path / "s.parquet")
    sequences = read_sequences(tmp_path / "s.parquet")
    assert sequences.items.tolist() == [3, 1, 2, 2, 2, 1, 3]
    assert sequences.offsets.tolist() == [0, 3, 7]
    assert sequences.noise is not None and sequences.noise.tolist() == noise
    assert (sequences.users, sequences.item_count) == (2, 3)


def test_one_user_without_noise(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(table()[:3], tmp_path / "s.parquet")
    sequences = read_sequences(tmp_path / "s.parquet")
    assert (sequences.offsets.tolist(), sequences.noise) == ([0, 3], None)


def test_refuses_missing_empty_and_narrow_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"s\.parquet: missing"):
        read_sequences(tmp_path / "s.parquet")
    pyarrow.parquet.write_table(table(split=None), tmp_path / "s.parquet")
    with pytest.raises(UserError, match="no column 'split'"):
        read_sequences(tmp_path / "s.parquet")
    pyarrow.parquet.write_table(table()[:0], tmp_path / "s.parquet")
    with pytest.raises(UserError, match="empty"):
        read_sequences(tmp_path / "s.parquet")


@pytest.mark.parametrize("rows", [[1, 0, 2, 3, 4, 5, 6], [0, 1, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5]])
def test_refuses_rows_out_of_order(tmp_path: Path, rows: list[int]) -> None:
    """Positions swapped; a first user without, a last user without its test row."""
    pyarrow.parquet.write_table(table().take(pa.array(rows, pa.int64())), tmp_path / "s.parquet")
    with pytest.raises(UserError, match="rows are not as `filter` writes them"):
        read_sequences(tmp_path / "s.parquet")


def test_what_each_split_sees_and_predicts() -> None:
    """Rows 0-3 and 4-6: training histories end before rows 2 and 5, test histories before 3 and 6."""
    assert TWO_USERS.history_ends(TRAIN).tolist() == [2, 5]
    assert TWO_USERS.history_ends(VALIDATION).tolist() == [2, 5]
    assert TWO_USERS.history_ends(TEST).tolist() == [3, 6]
    assert TWO_USERS.targets(VALIDATION).tolist() == [3, 6]
    assert TWO_USERS.targets(TEST).tolist() == [4, 7]


def as_lists(windows: Windows) -> list[tuple[int, ...]]:
    return list(zip(windows.starts.tolist(), windows.lengths.tolist(), windows.limits.tolist(), strict=True))


def test_windows_of_the_shortest_histories() -> None:
    """Three rows leave one training row, which has no target: a window of one item that ends at its limit."""
    one = sequences_of([1, 2, 3])
    assert as_lists(training_windows(one, 4, torch.Generator())) == [(0, 1, 1)]
    assert as_lists(training_tail_windows(one, 1)) == [(0, 1, 1)]
    assert as_lists(history_windows(one, TEST, 4)) == [(0, 2, 2)]


def test_windows_of_a_long_history() -> None:
    """Training rows 0-6 in tiles of 3. Backwards: 0, 1-3, 4-6. A random head of 1, 2 or 3 rows: three tilings."""
    long = sequences_of(list(range(1, 10)))
    assert as_lists(training_tail_windows(long, 3)) == [(0, 1, 7), (1, 3, 7), (4, 3, 7)]
    generator = torch.Generator().manual_seed(0)
    drawn = {tuple(as_lists(training_windows(long, 3, generator))) for _ in range(50)}
    assert drawn == {
        ((0, 1, 7), (1, 3, 7), (4, 3, 7)),
        ((0, 2, 7), (2, 3, 7), (5, 2, 7)),
        ((0, 3, 7), (3, 3, 7), (6, 1, 7)),
    }


def test_a_history_of_exactly_max_length_is_one_window() -> None:
    five = sequences_of([1, 2, 3, 4, 5])
    assert as_lists(training_windows(five, 3, torch.Generator())) == [(0, 3, 3)]
    assert as_lists(training_tail_windows(five, 3)) == [(0, 3, 3)]


def test_history_windows_by_hand() -> None:
    """Newest two rows before the target: user 0 validation rows 0-1, test 1-2; user 1 validation row 4, test 4-5."""
    assert as_lists(history_windows(TWO_USERS, VALIDATION, 2)) == [(0, 2, 2), (4, 1, 5)]
    assert as_lists(history_windows(TWO_USERS, TEST, 2)) == [(1, 2, 3), (4, 2, 6)]


HISTORIES = st.lists(st.integers(3, 14), min_size=1, max_size=5)


def numbered(lengths: list[int]) -> Sequences:
    """Histories of these lengths; the item of row r is r + 1."""
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Sequences(torch.arange(1, int(offsets[-1]) + 1), offsets)


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.integers(1, 5), st.integers(0, 5), st.booleans())
def test_every_training_row_is_an_input_once_and_a_target_once(
    lengths: list[int], max_length: int, seed: int, tail: bool
) -> None:
    """Training rows stand in exactly one window; all but each user's first are the target of exactly one position."""
    sequences = numbered(lengths)
    generator = torch.Generator().manual_seed(seed)
    windows = (
        training_tail_windows(sequences, max_length) if tail else training_windows(sequences, max_length, generator)
    )
    batch = Feed(sequences).batch(windows)
    begins, ends = sequences.offsets[:-1].tolist(), sequences.history_ends(TRAIN).tolist()
    training = [row for begin, end in zip(begins, ends, strict=True) for row in range(begin, end)]
    assert sorted(batch.rows[batch.valid].tolist()) == training
    assert sorted((batch.targets[batch.targets > 0] - 1).tolist()) == [row for row in training if row not in begins]
    assert int(windows.lengths.min()) >= 1 and int(windows.lengths.max()) <= max_length
    for begin, end in zip(begins, ends, strict=True):  # no target at or after the end of the user's training part
        own = (batch.rows >= begin) & (batch.rows < end) & (batch.targets > 0)
        assert (batch.targets[own] - 1 < end).all()


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.integers(1, 5))
def test_tail_windows_are_full_but_for_the_first(lengths: list[int], max_length: int) -> None:
    sequences = numbered(lengths)
    windows = training_tail_windows(sequences, max_length)
    firsts = set(sequences.offsets[:-1].tolist())
    assert all(length == max_length for start, length, _ in as_lists(windows) if start not in firsts)


@settings(max_examples=40, deadline=None)
@given(HISTORIES, st.integers(1, 5), st.sampled_from([VALIDATION, TEST]))
def test_history_windows_end_before_the_target(lengths: list[int], max_length: int, split: str) -> None:
    """The newest row is the one before the target's; padding is on the right; targets follow their inputs."""
    sequences = numbered(lengths)
    batch = Feed(sequences).batch(history_windows(sequences, split, max_length))
    newest = batch.items[torch.arange(len(batch.items)), batch.last]
    assert newest.tolist() == (sequences.targets(split) - 1).tolist()
    assert (batch.items.max(1).values < sequences.targets(split)).all()
    assert (batch.valid[:, 1:] <= batch.valid[:, :-1]).all()
    assert (batch.targets[batch.targets > 0] == batch.items[batch.targets > 0] + 1).all()


def test_batch_by_hand() -> None:
    """Windows: rows 0-2 of user 0 (limit 3), row 5 of user 1 (limit 6): the newest items have no target."""
    windows = Windows(torch.tensor([0, 5]), torch.tensor([3, 1]), torch.tensor([3, 6]))
    batch = Feed(TWO_USERS).batch(windows)
    assert batch.rows.tolist() == [[0, 1, 2], [5, -1, -1]]
    assert batch.items.tolist() == [[1, 2, 3], [6, 0, 0]]
    assert batch.targets.tolist() == [[2, 3, 0], [0, 0, 0]]
    assert batch.last.tolist() == [2, 0]
    assert batch.text_vectors is None


def test_batch_at_the_very_last_row() -> None:
    """A window whose newest row is the data set's last looks for no row after it."""
    batch = Feed(TWO_USERS).batch(Windows(torch.tensor([6]), torch.tensor([1]), torch.tensor([7])))
    assert (batch.items.tolist(), batch.targets.tolist()) == ([[7]], [[0]])


def test_text_encodings_by_row(tmp_path: Path) -> None:
    """Each real position carries its row's prefix vector, padding carries zeros; a test row cannot be asked for."""
    vectors = write_means(tmp_path, TWO_USERS)
    feed = Feed(TWO_USERS, vectors)
    batch = feed.batch(history_windows(TWO_USERS, TEST, 2))
    assert batch.text_vectors is not None
    assert torch.equal(batch.text_vectors[0], vectors.rows(torch.tensor([1, 2])))
    padded = feed.batch(history_windows(TWO_USERS, VALIDATION, 2))
    assert (
        padded.text_vectors is not None
        and (padded.text_vectors[1, 1] == 0).all()
        and (padded.text_vectors[1, 0] != 0).any()
    )
    with pytest.raises(IndexError, match="test target"):
        feed.batch(Windows(torch.tensor([3]), torch.tensor([1]), torch.tensor([4])))


def test_item_vectors_are_no_part_of_a_batch(tmp_path: Path) -> None:
    write_means(tmp_path, TWO_USERS)
    batch = Feed(TWO_USERS, ItemVectors(tmp_path)).batch(history_windows(TWO_USERS, TEST, 2))
    assert batch.text_vectors is None


def test_shortest_first_covers_all_windows() -> None:
    """Histories of 4, 2, 5, 3, 6 before the test item, cut to 3: lengths 3, 2, 3, 3, 3; equal ones keep their order."""
    sequences = numbered([5, 3, 6, 4, 7])
    windows = history_windows(sequences, TEST, 3)
    assert [numbers.tolist() for numbers in shortest_first(windows, 2)] == [[1, 0], [2, 3], [4]]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 7), st.integers(0, 5))
def test_shuffled_has_every_window_once(users: int, size: int, seed: int) -> None:
    sequences = numbered([3 + user % 5 for user in range(users)])
    windows = training_windows(sequences, 5, torch.Generator())
    batches = list(Feed(sequences).shuffled(windows, size, torch.Generator().manual_seed(seed)))
    assert sorted(batch.rows[place, 0].item() for batch in batches for place in range(len(batch.rows))) == (
        sorted(windows.starts.tolist())
    )
    assert all(len(batch.rows) <= size for batch in batches)
    assert max(len(batch.rows) for batch in batches) - min(len(batch.rows) for batch in batches) <= 1


def test_the_newest_windows_leave_the_rest_out() -> None:
    """Histories of 9 and 4 rows, so 7 and 2 training rows: rows 4 to 6 and 9 to 10; tiles hold all nine."""
    sequences, generator = numbered([9, 4]), torch.Generator()
    newest = training_windows(sequences, 3, generator, "newest")
    assert (newest.starts.tolist(), newest.lengths.tolist(), newest.limits.tolist()) == ([4, 9], [3, 2], [7, 11])
    assert int(training_windows(sequences, 3, generator, "tiles").lengths.sum()) == 9


def test_shuffled_mixes_lengths_in_the_generator_s_order() -> None:
    """Of 100 windows of lengths 1 to 5 in batches of 20, every batch holds short and long ones."""
    sequences = numbered([3 + user % 5 for user in range(100)])
    windows = training_windows(sequences, 5, torch.Generator())

    def shuffled(seed: int) -> list[Batch]:
        return list(Feed(sequences).shuffled(windows, 20, torch.Generator().manual_seed(seed)))

    one, same, other = ([batch.rows.tolist() for batch in shuffled(seed)] for seed in (1, 1, 2))
    assert one == same != other
    for batch in shuffled(1):
        assert len(set(batch.last.tolist())) > 2
