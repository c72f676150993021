"""An encoder whose vectors are worked by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iadsr.encode.batches import Budget
from iadsr.encode.encoders.interface import Tokens


class Letters:
    """One token a letter a..z (1..26), at most 4; the vector is [number of tokens, sum of tokens].

    An encoder and its own source; it dies after so many batches.
    """

    dim, dtype, model = 2, "float32", None
    device = torch.device("cpu")

    def __init__(self, batches_before_death: int | None = None, batch_tokens: int = 8, weights: str = "own") -> None:
        self.life, self.encoded, self.batch_tokens = batches_before_death, list[str](), batch_tokens
        self.identity = {"weights": weights, "revision": None, "dtype": self.dtype}

    def open(self) -> Letters:
        return self

    def budget(self) -> Budget:
        return Budget(self.batch_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        ids = [np.array([ord(letter) - 96 for letter in text if letter.isalpha()], dtype=np.int32) for text in texts]
        return [Tokens(each[-4:], min(len(each), 4), len(each) > 4) for each in ids]

    def together(self, batch: Sequence[Sequence[Tokens]]) -> Tensor:
        raise AssertionError("no text has blocks")

    def vectors(self, batch: Sequence[Tokens]) -> Tensor:
        if self.life == 0:
            raise KeyboardInterrupt
        self.life = None if self.life is None else self.life - 1
        self.encoded += ["".join(chr(96 + letter) for letter in tokens.ids) for tokens in batch]
        return torch.tensor([[len(tokens.ids), int(tokens.ids.sum())] for tokens in batch], dtype=torch.float32)
