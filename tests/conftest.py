"""Fixtures that several tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def mirror() -> Path:
    """The official files: IADSR_MIRROR, or ../shared/data beside the repository; skips the test without."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("IADSR_MIRROR") or default)
    if not (folder / "ml-100k.zip").is_file():
        pytest.skip(f"no official files in {folder}")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, so that the same seed means the same bytes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
