"""Fixtures that several tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# The files that take longest: no process is to be left with one of them when the others are through.
FIRST = (
    "test_dvc.py",
    "test_train.py",
    "test_encode.py",
    "test_served_model.py",
    "test_every_denoiser.py",
    "test_ray_workers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.fixture
def mirror() -> Path:
    """The official files in the folder that IADSR_MIRROR names; skips the test without."""
    folder = os.environ.get("IADSR_MIRROR", "")
    if not folder or not (Path(folder) / "ml-100k.zip").is_file():
        pytest.skip("IADSR_MIRROR names no folder with the official files")
    return Path(folder)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in one order, so that the same seed means the same bytes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
