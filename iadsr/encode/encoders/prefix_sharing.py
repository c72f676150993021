"""Texts that begin one another, such as the prefixes of a history, as one sequence: an approximation of each alone.

A text is cut into blocks before each separator, and each block is tokenized separately. A token sees its own block and
those before it, in both directions, but none after it, so that a text's states serve all texts that go on with another
block. In a text computed alone, as `encode.prefixes: joint` does, an older block would see the newer ones, too. The
tokens that an encoder puts behind a text (the [SEP] of a BERT) see all of it, and nothing sees them. The vector of a
text depends on that text alone, whatever is computed together with it.

Texts of one block have no blocks here, and neither have those that are too long, since what is left of them begins no
other text: these are computed alone, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.device import is_out_of_memory, moved
from iadsr.encode.encoders.interface import Encoder, Tokens
from iadsr.errors import UserError

ALL, PADDING = 0, -1  # owners of tokens that belong to no single text
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "esm")
METHOD = 1  # part of a store's identity: raise it when vectors change
Chain = Sequence[Tokens]  # each begins the next one
TOLERANCES = {torch.float32: 1e-4}  # of a vector's largest value; other formats:
TOLERANCE = 0.03


def cut(text: str, separator: str) -> list[str]:
    """The blocks of a text: each but the first begins with the separator.

    >>> cut("ab; c;; d", "; ")
    ['ab', '; c;', '; d']
    """
    first, *others = text.split(separator)
    return [first, *(separator + other for other in others)]


def in_blocks(
    tokenizer: Any, texts: Sequence[list[str]], plain: Sequence[Tokens], most: int, behind: str = ""
) -> list[Tokens]:
    """The tokens of each text: in blocks where it has several and at most `most` tokens, else those in `plain`.

    `texts` are already cut, with an instruction before the first block; a prompt puts `behind` behind the last.
    """
    found = list(plain)
    several = [number for number, pieces in enumerate(texts) if len(pieces) > 1 and not plain[number].truncated]
    given = [[*texts[number], behind] if behind else texts[number] for number in several]
    encodings = tokenizer.encode_batch(given, is_pretokenized=True)
    for number, encoding in zip(several, encodings, strict=True):
        words, last = encoding.word_ids, len(texts[number]) - 1
        size = max((place for place, word in enumerate(words, 1) if word is not None and word <= last), default=0)
        if size and len(words) <= most and not encoding.overflowing:
            head = len(plain[number].ids) - plain[number].pooled
            blocks = np.array([word or 0 for word in words[:size]], dtype=np.int32)
            found[number] = Tokens(np.array(encoding.ids, dtype=np.int32), len(words) - head, False, blocks)
    return found


def body(tokens: Tokens) -> Int[np.ndarray, " body"]:
    """All ids but those that are put behind a text."""
    return tokens.ids[: len(_blocks(tokens))]


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
    positions, level, owner = (np.zeros((len(batch), longest), dtype=np.int64) for _ in range(3))
    weights = np.zeros((len(batch), most, longest), dtype=np.float32)
    for row, each in enumerate(laid_out):
        size = len(each.ids)
        ids[row, :size], positions[row, :size] = each.ids, each.positions
        level[row, :size], owner[row, :size], owner[row, size:] = each.level, each.owner, PADDING
        weights[row, : len(each.weights), :size] = each.weights
    positions += first_position(model.config)
    rows = np.concatenate([row * most + np.arange(len(chain)) for row, chain in enumerate(batch)])
    parts = (torch.from_numpy(part) for part in (ids, positions, level, owner, weights, rows))
    given, placed, seeing, owned, share, asked = (moved(part, device) for part in parts)
    with torch.inference_mode():
        mask = added_mask(seen(seeing, owned), model.dtype)
        hidden = model(input_ids=given, attention_mask=mask, position_ids=placed).last_hidden_state
        return (share @ hidden.float()).flatten(0, 1).index_select(0, asked)


def added_mask(sees: Bool[Tensor, "batch tokens tokens"], dtype: torch.dtype) -> Float[Tensor, "batch 1 tokens tokens"]:
    """What attention adds to its scores, for all heads, so that a token (the row) sees only those in `sees`."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, torch.finfo(dtype).min)[:, None]


def seen(level: Int[Tensor, "batch tokens"], owner: Int[Tensor, "batch tokens"]) -> Bool[Tensor, "batch tokens tokens"]:
    """Which tokens each token (the row) sees: the shared ones up to its newest block, and those of its own text."""
    shared = (owner[:, None] == ALL) & (level[:, None] <= level[..., None])
    return shared | ((owner[:, None] == owner[..., None]) & (owner[..., None] != ALL))


def pooling_weights(tokens: Tokens, how: str) -> Float[np.ndarray, " tokens"]:
    """How much each token's state counts in the vector.

    mean: the text's count equally. weighted_mean: the n-th of them counts n times. eos_token: only the last counts.
    """
    weights = np.zeros(len(tokens.ids), dtype=np.float32)
    if how == "eos_token":
        weights[-1] = 1
        return weights
    pooled = np.ones(tokens.pooled) if how == "mean" else np.arange(1, tokens.pooled + 1)
    weights[-tokens.pooled :] = pooled / pooled.sum()
    return weights


def assert_shares(encoder: Encoder, name: str) -> None:
    """UserError unless the model obeys a custom mask and custom positions: not all do."""
    try:
        shares = _heeds_mask(encoder) and _heeds_positions(encoder)
    except Exception as error:  # what a model does with a mask that it does not know
        if is_out_of_memory(error):
            raise
        shares = False
    if not shares:
        raise UserError(f"{name}: this kind of model cannot compute prefixes together; set encode.prefixes: joint")


def check_window(config: Any, most: int, name: str) -> None:
    """UserError where some layers see fewer tokens around than a text may have: a custom mask would drop that limit."""
    local = getattr(config, "local_attention", None)
    windows = [window for window in (getattr(config, "sliding_window", None), local and local // 2) if window]
    if windows and min(windows) < most:
        raise UserError(
            f"params.yaml: max_tokens {most}, but {name} has layers that see {min(windows)} tokens around, which "
            "prefixes that are computed together would not heed; lower max_tokens, or set encode.prefixes: joint"
        )


def _heeds_mask(encoder: Encoder) -> bool:
    """Is a text blind to what comes later, and is the vector of one that sees all of itself the same without a mask?"""
    whole = Tokens(np.array([5, 6, 7, 8], np.int32), 4, False, np.zeros(4, np.int32))
    first, last = (_beside([later] * 12, encoder) for later in (3, 4))
    dtype = encoder.model.dtype
    return _near(first, last, dtype) and _near(encoder.together([[whole]]), encoder.vectors([whole]), dtype)


def _beside(later: list[int], encoder: Encoder) -> Tensor:
    """The vector of a text of two blocks, computed together with a text that goes on with `later`."""
    shorter = Tokens(np.array([5, 6, 7, 8, 9], np.int32), 5, False, np.array([0, 0, 1, 1], np.int32))
    ids, blocks = [5, 6, 7, 8, *later, 9], [0, 0, 1, 1, *(2 for _ in later)]
    longer = Tokens(np.array(ids, np.int32), len(ids), False, np.array(blocks, np.int32))
    return encoder.together([[shorter, longer]])[0]


def _heeds_positions(encoder: Encoder) -> bool:
    """Are the states the same when tokens are reordered together with their positions?"""
    model, mixed = encoder.model, torch.tensor([3, 0, 5, 1, 4, 2], device=encoder.device)
    plain = torch.arange(len(mixed), device=encoder.device)
    with torch.inference_mode():
        states, expected = (
            model(input_ids=5 + order[None], position_ids=order[None] + first_position(model.config)).last_hidden_state
            for order in (mixed, plain)
        )
    return _near(states[0], expected[0, mixed], model.dtype)


def first_position(config: Any) -> int:
    """The position of a text's first token; these models begin to count behind the padding's id."""
    return config.pad_token_id + 1 if config.model_type in COUNTED_FROM_PADDING else 0


def _near(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    tolerance = TOLERANCES.get(dtype, TOLERANCE)
    return bool((one - other).abs().amax() <= tolerance * other.abs().amax())


class _Sequence:
    """The longest text of a chain, followed by what is put behind each of its texts."""

    def __init__(self, chain: Chain, pooling: str) -> None:
        longest, level = body(chain[-1]), _blocks(chain[-1])
        sizes = [len(body(tokens)) for tokens in chain]
        behind = [tokens.ids[size:] for tokens, size in zip(chain, sizes, strict=True)]
        self.ids = np.concatenate([longest, *behind])
        self.positions = np.concatenate(
            [np.arange(len(longest)), *(size + np.arange(len(ids)) for size, ids in zip(sizes, behind, strict=True))]
        )
        lasts = [np.full(len(ids), level[size - 1]) for size, ids in zip(sizes, behind, strict=True)]
        self.level = np.concatenate([level, *lasts])  # the newest block that a token sees
        owners = [np.full(len(ids), text) for text, ids in enumerate(behind, 1)]
        self.owner = np.concatenate([np.full(len(longest), ALL), *owners])
        self.weights = np.zeros((len(chain), len(self.ids)), dtype=np.float32)
        for text, (tokens, size) in enumerate(zip(chain, sizes, strict=True)):
            own = pooling_weights(tokens, pooling)
            self.weights[text, :size] = own[:size]
            self.weights[text, self.owner == text + 1] = own[size:]


def _blocks(tokens: Tokens) -> Int[np.ndarray, " body"]:
    assert tokens.blocks is not None, "this text is computed by itself"
    return tokens.blocks


def _begins(one: Tokens, other: Tokens) -> bool:
    """Does `other` go on where `one` ends, with another block?"""
    size, own, others = len(body(one)), _blocks(one), _blocks(other)
    return bool(
        len(others) > size
        and others[size] > own[-1]
        and np.array_equal(body(other)[:size], body(one))
        and np.array_equal(others[:size], own)
    )
