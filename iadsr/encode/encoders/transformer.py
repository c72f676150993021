"""Any encoder of the transformers library, pooled over its real tokens: all-MiniLM-L6-v2, E5, BGE, GTE, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoTokenizer

from iadsr.device import dtype_name, moved
from iadsr.encode.encoders import prefix_sharing, weights
from iadsr.encode.encoders.interface import Identity, Tokens, TransformerEncoderParams
from iadsr.encode.encoders.weights import (
    attention_mask,
    check_context,
    find_model,
    is_decoder,
    load,
    load_model,
    model_config,
    silence_progress,
)
from iadsr.errors import UserError


class TransformerEncoder:
    """Mean or first-token pooling of the last hidden state, by default scaled to unit length.

    Source: the model card of sentence-transformers/all-MiniLM-L6-v2.
    """

    def __init__(
        self, spec: TransformerEncoderParams, device: torch.device, dtype: torch.dtype, separator: str = ""
    ) -> None:
        silence_progress()
        self.separator = separator
        folder = find_model(spec.model)
        config = model_config(folder)
        _check(config, spec)
        if separator:
            prefix_sharing.check_window(config, spec.max_tokens, spec.model)
        self.spec, self.device, self.dtype = spec, device, dtype_name(dtype)
        self.tokenizer = load(
            AutoTokenizer.from_pretrained, name=folder, trust_remote_code=False, truncation_side="left"
        )
        if not self.tokenizer.is_fast:
            raise UserError(f"{spec.model}: has no fast tokenizer (tokenizer.json), which is needed to cut texts")
        self.model = load_model(folder, trust_remote_code=False, dtype=dtype)
        self.model.to(device).eval()
        self.dim: int = self.model.config.hidden_size

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids with special tokens; a text that is too long loses its oldest tokens, never its special ones."""
        encoded = self.tokenizer(list(texts), truncation=True, max_length=self.spec.max_tokens)
        found = [
            Tokens(np.asarray(encoding.ids, dtype=np.int32), len(encoding.ids), bool(encoding.overflowing))
            for encoding in encoded.encodings
        ]
        if not self.separator:
            return found
        pieces = [prefix_sharing.cut(text, self.separator) for text in texts]
        return prefix_sharing.in_blocks(self.tokenizer.backend_tokenizer, pieces, found, self.spec.max_tokens)

    def vectors(self, batch: Sequence[Tokens]) -> Float[Tensor, "batch dim"]:
        ids, mask = padded(batch, self.tokenizer.pad_token_id or 0)
        attended = attention_mask(mask, self.device)
        ids, mask = moved(ids, self.device), moved(mask, self.device)
        with torch.inference_mode():
            hidden = self.model(input_ids=ids, attention_mask=attended).last_hidden_state.float()
            pooled = masked_mean(hidden, mask) if self.spec.pooling == "mean" else hidden[:, 0]
            return self._scaled(pooled)

    def together(self, batch: Sequence[prefix_sharing.Chain]) -> Float[Tensor, "texts dim"]:
        pad = self.tokenizer.pad_token_id or 0
        return self._scaled(prefix_sharing.vectors(self.model, batch, pad, self.spec.pooling, self.device))

    def _scaled(self, pooled: Float[Tensor, "texts dim"]) -> Float[Tensor, "texts dim"]:
        return torch.nn.functional.normalize(pooled, dim=-1) if self.spec.normalize else pooled


def identity(spec: TransformerEncoderParams) -> Identity:
    """Which weights `spec` names; UserError for a model that is not an encoder."""
    folder = find_model(spec.model)
    _check(model_config(folder), spec)
    return weights.identity([folder])


def _check(config: Any, spec: TransformerEncoderParams) -> None:
    if is_decoder(config) or config.is_encoder_decoder:
        raise UserError(f"{spec.model}: {config.model_type} is no encoder; use the kind `llm2vec` for a decoder")
    check_context(config, spec)


def padded(batch: Sequence[Tokens], pad: int) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Ids filled up on the right with `pad`, and which of them are real."""
    lengths = torch.tensor([len(tokens.ids) for tokens in batch])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.full(mask.shape, pad, dtype=torch.long)
    ids[mask] = torch.from_numpy(np.concatenate([tokens.ids for tokens in batch])).long()
    return ids, mask


def masked_mean(
    hidden: Float[Tensor, "batch time dim"], mask: Bool[Tensor, "batch time"]
) -> Float[Tensor, "batch dim"]:
    """Mean of the states where `mask` is set, which is at least once a row."""
    return (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
