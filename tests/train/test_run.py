"""One training from files to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from iadsr.errors import UserError


def test_a_training_is_done_by_one_process(tmp_path: Path) -> None:
    """While another process holds the lock of this very run, there is an error that says so, and nothing is touched."""
    import fcntl

    from iadsr.train.run import alone_in

    work = tmp_path / "work"
    with alone_in(work), pytest.raises(UserError, match="another process is at this training"), alone_in(work):
        pass
    with alone_in(work), open(work / "lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with alone_in(work):
        pass
