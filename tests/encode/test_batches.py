"""Batches of texts in memory: smaller where the memory ends, nothing lost, and errors that name a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import save_model
from torch import Tensor
from transformers import BertConfig

from iadsr.encode.batches import Budget, batch_end, encoded
from iadsr.encode.encoders.interface import Tokens, TransformerEncoderParams
from iadsr.encode.encoders.transformer import TransformerEncoder
from iadsr.errors import UserError

TEXTS = ["ccc", "a", "dddd", "bb", "a", "eeeee"]


class Small:
    """A token a letter, the vector is their number twice; batches of more than `room` tokens find no memory."""

    dim, dtype, model = 2, "float32", None
    device = torch.device("cpu")

    def __init__(self, room: int, error: type[RuntimeError] = torch.OutOfMemoryError, message: str = "full") -> None:
        self.room, self.error, self.message, self.sizes = room, error, message, list[int]()

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        return [Tokens(np.zeros(len(text), dtype=np.int32), len(text), len(text) > 4) for text in texts]

    def together(self, batch: Sequence[Sequence[Tokens]]) -> Tensor:
        raise AssertionError("no text has blocks")

    def vectors(self, batch: Sequence[Tokens]) -> Tensor:
        if len(batch) * len(batch[-1].ids) > self.room:
            raise self.error(self.message)
        self.sizes.append(len(batch))
        return torch.tensor([[len(tokens.ids)] * 2 for tokens in batch], dtype=torch.float32)


def test_vectors_in_the_order_of_the_texts() -> None:
    seen: list[int] = []
    found = encoded(Small(100), TEXTS, Budget(100), advance=seen.append)
    assert found.vectors.tolist() == [[len(text)] * 2 for text in TEXTS]
    assert found.tokens.tolist() == [3, 1, 4, 2, 1, 5] and found.truncated.tolist() == [False] * 5 + [True]
    assert sum(seen) == sum(map(len, TEXTS))


@pytest.mark.parametrize(
    ("error", "message"),
    [(torch.OutOfMemoryError, "CUDA out of memory"), (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you")],
)
def test_out_of_memory_halves_the_batches(error: type[RuntimeError], message: str) -> None:
    """6 texts of 5 are 30 tokens; halved to 15, then to 7, then nothing fails: lengths 1 1 2 | 3 3.. and so on."""
    small, budget = Small(8, error, message), Budget(100)
    found = encoded(small, TEXTS, budget)
    assert found.vectors.tolist() == [[len(text)] * 2 for text in TEXTS]
    assert sum(small.sizes) == len(TEXTS) and budget.tokens < 15
    again = len(small.sizes)
    encoded(small, TEXTS, budget)  # goes on with what is left of the budget
    assert len(small.sizes) == 2 * again


def test_vectors_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """A real transformer on texts of many lengths: the same bytes from one batch at a time and from three at once."""
    folder = save_model(tmp_path / "tiny", BertConfig, "<s> $A </s>")
    encoder = TransformerEncoder(
        TransformerEncoderParams(kind="transformer", model=folder, max_tokens=32), torch.device("cpu"), torch.float32
    )
    texts = [chr(97 + number % 26) * (1 + number % 30) for number in range(60)]
    before, found = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(encoded(encoder, texts, Budget(100)).vectors.tobytes())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert found[0] == found[1]


def test_another_error_is_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        encoded(Small(1, RuntimeError, "shapes do not fit"), TEXTS, Budget(100))


def test_a_text_that_is_too_large_alone_is_named() -> None:
    with pytest.raises(UserError, match="no memory for one sequence of 5 tokens: 'eeeee'; lower max_tokens"):
        encoded(Small(4), TEXTS, Budget(100))


@pytest.mark.parametrize("value", [7e4, float("nan"), float("-inf")])
def test_what_float16_cannot_hold_names_its_text(value: float) -> None:
    class Wrong(Small):
        def vectors(self, batch: Sequence[Tokens]) -> Tensor:
            found = super().vectors(batch)
            return torch.where(found == 4, value, found)

    with pytest.raises(UserError, match=rf"largest value {abs(value):g}\): 'dddd'; set encode.dtype"):
        encoded(Wrong(100), TEXTS, Budget(3))


def test_where_a_batch_ends() -> None:
    assert [batch_end([1, 1, 2, 9], start, 6) for start in range(4)] == [3, 3, 3, 4]
