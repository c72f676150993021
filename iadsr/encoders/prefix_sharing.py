"""Texts that begin one another, such as the prefixes of a history, as one sequence: an approximation of each by itself.

A text is cut into blocks, each of which but the first begins at a separator. A token sees its own block and those
before it, in both directions, but none after it, so that a text's states serve all texts that go on with another block.
Computed by itself, as `encode.prefixes: joint` does, an older block would see the newer ones, too. The tokens that an
encoder puts behind a text (the [SEP] of a BERT) see all of it, and nothing sees them. A text of one block is exact, and
so is one that is too long: what is left of it begins no other, so that it counts as one block. The vector of a text
depends on that text alone, whatever is computed together with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.encoders import Encoder, Tokens
from iadsr.encoders.weights import COUNTED_FROM_PADDING, moved
from iadsr.errors import UserError

Chain = Sequence[Tokens]  # each begins the next one
TOLERANCE = 0.03  # of a vector's largest value, for bfloat16's sake


def blocks(starts: Sequence[int] | Int[np.ndarray, " tokens"], text: str, separator: str) -> Int[np.ndarray, " tokens"]:
    """The block of each token that begins at one of `starts`, characters of the text."""
    found, at = [], text.find(separator)
    while at >= 0:
        found.append(at)
        at = text.find(separator, at + len(separator))
    return np.searchsorted(np.asarray(found, dtype=np.int64), np.asarray(starts), side="right").astype(np.int32)


def body(tokens: Tokens) -> Int[np.ndarray, " body"]:
    """All ids but those that are put behind a text; all ids of a text of one block."""
    return tokens.ids if _one_block(tokens) else tokens.ids[: len(_blocks(tokens))]


def length(chain: Chain) -> int:
    """Tokens of the sequence that a chain becomes."""
    return len(body(chain[-1])) + sum(len(tokens.ids) - len(body(tokens)) for tokens in chain)


def chains(tokens: Sequence[Tokens]) -> list[list[int]]:
    """Numbers of the texts that are computed together, the shortest first; each is in one chain."""
    order = sorted(range(len(tokens)), key=lambda number: body(tokens[number]).astype(">i4").tobytes())
    found: list[list[int]] = []
    for number in reversed(order):
        if found and _begins(tokens[number], tokens[found[-1][0]]):
            found[-1].insert(0, number)
        else:
            found.append([number])
    return found


def vectors(
    model: Any, batch: Sequence[Chain], pad: int, pooling: str, device: torch.device
) -> Float[Tensor, "texts dim"]:
    """One float32 vector a text, chain by chain; `pooling` as `pooling_weights` knows it."""
    laid_out = [_Sequence(chain, pooling) for chain in batch]
    longest, most = max(len(each.ids) for each in laid_out), max(len(chain) for chain in batch)
    ids = np.full((len(batch), longest), pad, dtype=np.int64)
    positions = np.zeros((len(batch), longest), dtype=np.int64)
    seen = np.zeros((len(batch), longest, longest), dtype=bool)
    seen[:, np.arange(longest), np.arange(longest)] = True
    weights = np.zeros((len(batch), most, longest), dtype=np.float32)
    asked = np.zeros((len(batch), most), dtype=bool)
    for row, each in enumerate(laid_out):
        size = len(each.ids)
        ids[row, :size], positions[row, :size] = each.ids, each.positions
        seen[row, :size, :size] = each.seen()
        weights[row, : len(each.weights), :size] = each.weights
        asked[row, : len(each.weights)] = True
    positions += model.config.pad_token_id + 1 if model.config.model_type in COUNTED_FROM_PADDING else 0
    given, placed, mask, share = (moved(torch.from_numpy(part), device) for part in (ids, positions, seen, weights))
    with torch.inference_mode():
        barred = torch.zeros(mask.shape, dtype=model.dtype, device=device)
        barred.masked_fill_(~mask, torch.finfo(model.dtype).min)
        hidden = model(input_ids=given, attention_mask=barred[:, None], position_ids=placed).last_hidden_state
        return (share @ hidden.float())[torch.from_numpy(asked)]


def pooling_weights(tokens: Tokens, how: str) -> Float[np.ndarray, " tokens"]:
    """What each token's state counts in the vector.

    mean: those of the text equally. weighted_mean: the n-th of them n times. eos_token: the last alone.
    """
    weights = np.zeros(len(tokens.ids), dtype=np.float32)
    if how == "eos_token":
        weights[-1] = 1
        return weights
    pooled = np.ones(tokens.pooled) if how == "mean" else np.arange(1, tokens.pooled + 1)
    weights[-tokens.pooled :] = pooled / pooled.sum()
    return weights


def assert_shares(encoder: Encoder, name: str) -> None:
    """UserError unless the model heeds a mask and positions of one's own: not all do."""
    model, device = encoder.model, encoder.device

    def vector(later: int) -> Tensor:
        """Of a text that is computed with one that goes on with `later`."""
        shorter, longer = _made_up([5, 6, 7, 8], [0, 0, 1, 1]), _made_up([5, 6, 7, 8, later, 4], [0, 0, 1, 1, 2, 2])
        return encoder.together([[shorter, longer]])[0]

    def states(positions: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model(input_ids=some, position_ids=positions).last_hidden_state
        return found

    some = torch.arange(4, 8, device=device)[None]
    whole = _made_up([5, 6, 7], [0, 0, 0])
    exact, alone = encoder.vectors([whole]), encoder.together([[whole]])
    if (
        not torch.equal(vector(3), vector(4))
        or torch.equal(states(some), states(some.flip(1)))
        or not bool(((exact - alone).abs() <= TOLERANCE * exact.abs().max()).all())
    ):
        raise UserError(f"{name}: this kind of model cannot compute prefixes together; set encode.prefixes: joint")


def _made_up(ids: list[int], in_blocks: list[int]) -> Tokens:
    """With a token behind the text."""
    return Tokens(np.array([*ids, 9], np.int32), 1 + len(ids), False, np.array(in_blocks, np.int32))


class _Sequence:
    """The longest text of a chain, and behind it what is put behind each of its texts."""

    def __init__(self, chain: Chain, pooling: str) -> None:
        longest = body(chain[-1])
        sizes = [len(body(tokens)) for tokens in chain]
        behind = [tokens.ids[size:] for tokens, size in zip(chain, sizes, strict=True)]
        level = np.zeros(len(longest), np.int32) if _one_block(chain[-1]) else _blocks(chain[-1])
        self.ids = np.concatenate([longest, *behind])
        self.positions = np.concatenate(
            [np.arange(len(longest)), *(size + np.arange(len(ids)) for size, ids in zip(sizes, behind, strict=True))]
        )
        lasts = [np.full(len(ids), level[size - 1]) for size, ids in zip(sizes, behind, strict=True)]
        self.level = np.concatenate([level, *lasts])  # the newest block that a token sees
        owners = [np.full(len(ids), text) for text, ids in enumerate(behind, 1)]
        self.owner = np.concatenate([np.zeros(len(longest), np.int64), *owners])  # 0: all texts
        self.weights = np.zeros((len(chain), len(self.ids)), dtype=np.float32)
        for text, (tokens, size) in enumerate(zip(chain, sizes, strict=True)):
            own = pooling_weights(tokens, pooling)
            self.weights[text, :size] = own[:size]
            self.weights[text, self.owner == text + 1] = own[size:]

    def seen(self) -> Bool[np.ndarray, "tokens tokens"]:
        """Which token (row) sees which."""
        shared = (self.owner == 0) & (self.level <= self.level[:, None])
        return shared | ((self.owner == self.owner[:, None]) & (self.owner > 0))


def _blocks(tokens: Tokens) -> Int[np.ndarray, " body"]:
    assert tokens.blocks is not None, "the encoder was opened to compute each text by itself"
    return tokens.blocks


def _one_block(tokens: Tokens) -> bool:
    found = _blocks(tokens)
    return bool(found[0] == found[-1])


def _begins(one: Tokens, other: Tokens) -> bool:
    """Does `other` go on where `one` ends, with another block?"""
    if _one_block(one):
        return False
    size, own, others = len(body(one)), _blocks(one), _blocks(other)
    return bool(
        len(others) > size
        and others[size] > own[-1]
        and len(one.ids) - one.pooled == len(other.ids) - other.pooled
        and np.array_equal(body(other)[:size], body(one))
        and np.array_equal(others[:size], own)
    )
