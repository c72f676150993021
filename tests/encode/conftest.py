"""Tiny models in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_encoders import save_model
from transformers import BertConfig, PretrainedConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_decoder(tmp_path: Path) -> Callable[[type[PretrainedConfig]], str]:
    """Builds a decoder of the given configuration class and returns its folder."""
    return lambda kind: save_model(tmp_path / kind.__name__, kind, "<s> $A", num_key_value_heads=2, head_dim=16)


@pytest.fixture
def tiny_bert(tmp_path: Path) -> str:
    return save_model(tmp_path / "bert", BertConfig, "<s> $A </s>", max_position_embeddings=64)
