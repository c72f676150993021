"""Fixtures that several tests share."""

import os
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
