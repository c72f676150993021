"""A decoder language model as a text encoder: the llm2vec library, made to work on current transformers.

Source: BehnamGhader et al., LLM2Vec: Large Language Models Are Secretly Powerful Text Encoders, COLM 2024. The library
(0.2.3) knows transformers up to 4.44; here it gives the prompts and the pooling, transformers the bidirectional model.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, cache_utils

from iadsr.artifacts import read_json
from iadsr.device import dtype_name, is_out_of_memory, moved
from iadsr.encode.encoders import prefix_sharing, weights
from iadsr.encode.encoders.interface import Identity, Llm2VecParams, Tokens
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

MARK = "!@#$%^&*()"  # the library's own, between the instruction and the text
ATTENTION_CLASSES = {"llama": "Llama", "mistral": "Mistral", "gemma": "Gemma", "qwen2": "Qwen2"}


class Llm2VecEncoder:
    """The last hidden states of a decoder without its causal mask, pooled over the text but not its instruction."""

    def __init__(self, spec: Llm2VecParams, model: Any, tokenizer: Any, separator: str = "") -> None:
        """An encoder around a loaded model; UserError unless the model looks both ways."""
        self.separator = separator
        model.eval()
        assert_bidirectional(model, spec.model)
        self.spec, self.model, self.device = spec, model, model.device
        self.dtype = dtype_name(model.dtype)
        self.library = wrapped(model, tokenizer, spec.pooling)
        self.dim: int = model.config.hidden_size

    def tokenize(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids of instruction and text; where there are too many, the oldest of the text go and the newest stay."""
        instruction = f"{self.spec.instruction.strip()} " if self.spec.instruction else ""
        marked = [self.library.prepare_for_tokenization(f"{instruction}{MARK}{text}") for text in texts]
        parts = [text.split(MARK, 1) for text in marked]
        whole = self.library.tokenizer([head + tail for head, tail in parts])["input_ids"]
        tails = self.library.tokenizer([tail for _, tail in parts], add_special_tokens=False)["input_ids"]
        found = [self._cut(ids, len(tail), text) for ids, tail, text in zip(whole, tails, texts, strict=True)]
        if not self.separator:
            return found
        behind = self.library.prepare_for_tokenization(MARK).split(MARK, 1)[1]
        pieces = [prefix_sharing.cut(tail.removesuffix(behind), self.separator) for _, tail in parts]
        pieces = [[head + first, *others] for (head, _), (first, *others) in zip(parts, pieces, strict=True)]
        backend = self.library.tokenizer.backend_tokenizer
        return prefix_sharing.in_blocks(backend, pieces, found, self.spec.max_tokens, behind)

    def vectors(self, batch: Sequence[Tokens]) -> Float[Tensor, "batch dim"]:
        ids, real, pooled = left_padded(batch, self.library.tokenizer.pad_token_id or 0)
        with torch.inference_mode():
            attended = attention_mask(real, self.device)
            hidden = self.model(input_ids=moved(ids, self.device), attention_mask=attended).last_hidden_state
            return pool(hidden.float(), moved(pooled, self.device), self.spec.pooling)

    def together(self, batch: Sequence[prefix_sharing.Chain]) -> Float[Tensor, "texts dim"]:
        pad = self.library.tokenizer.pad_token_id or 0
        return prefix_sharing.vectors(self.model, batch, pad, self.spec.pooling, self.device)

    def _cut(self, ids: list[int], pooled: int, text: str) -> Tokens:
        """Cut the oldest items of a history; the library's own limits cut the end of a text, which is the newest."""
        if not pooled or not text.strip():
            raise UserError(f"{self.spec.model}: a text without a token: {text!r}; give it words")
        head, over = len(ids) - pooled, len(ids) - self.spec.max_tokens
        if pooled <= max(over, 0):
            limit = f"max_tokens {self.spec.max_tokens}, {head} of them for the instruction"
            raise UserError(f"{self.spec.model}: no token is left of the text {text[:200]!r} ({limit})")
        kept = ids if over <= 0 else ids[:head] + ids[head + over :]
        return Tokens(np.asarray(kept, dtype=np.int32), len(kept) - head, over > 0)


def opened(spec: Llm2VecParams, device: torch.device, dtype: torch.dtype, separator: str = "") -> Llm2VecEncoder:
    """The encoder that `spec` describes, its adapters merged."""
    silence_progress()
    folder, adapters = find_model(spec.model), [find_model(adapter) for adapter in spec.adapters]
    config = _config_of_decoder(folder)
    check_context(config, spec)
    if separator:
        prefix_sharing.check_window(config, spec.max_tokens, spec.model)
    model: Any = merged(bidirectional(folder, dtype), adapters)
    return Llm2VecEncoder(spec, model.to(device), tokenizer_of(folder), separator)


def identity(spec: Llm2VecParams) -> Identity:
    """Which weights `spec` names; UserError for a model that is not a decoder."""
    models = [find_model(name) for name in (spec.model, *spec.adapters)]
    check_context(_config_of_decoder(models[0]), spec)
    if spec.adapters:
        from peft import PeftConfig

        for adapter in models[1:]:
            load(PeftConfig.from_pretrained, name=adapter)  # so that its commit is known before its weights are
    return weights.identity(models)


def _config_of_decoder(model: str) -> Any:
    config = model_config(model)
    if not is_decoder(config):
        raise UserError(f"{model}: {config.model_type} is no decoder language model; use the kind `transformer` for it")
    return config


def bidirectional(model: str, dtype: torch.dtype) -> PreTrainedModel:
    """The decoder without its head and without its causal mask; UserError for a model that is not a decoder."""
    config = _config_of_decoder(model)
    config.is_causal = False  # on the object: an argument of from_pretrained is lost on the way
    config.use_cache = False  # nothing is generated, so keys and values need not be kept
    return load_model(model, config=config, dtype=dtype, trust_remote_code=False)


def merged(model: PreTrainedModel, adapters: list[str]) -> PreTrainedModel:
    """The model with each adapter merged into its weights, in order; UserError for one that does not fit it."""
    from peft import PeftModel  # 5 s to import, and many models need no adapter

    for adapter in adapters:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # peft 0.21 asks transformers 5.23 under an old name; the reader of this warning could do nothing about it.
            warnings.filterwarnings(
                "ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning
            )
            try:
                model = load(PeftModel.from_pretrained, model, name=adapter).merge_and_unload()
            except (UserWarning, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise
                raise UserError(f"{adapter}: does not fit the model: {str(error)[:300]}") from None
    return model


def assert_bidirectional(model: Any, name: str) -> None:
    """UserError unless the first token's state depends on the last token: with padding, without, and without a mask."""
    ids = torch.arange(1, 13).reshape(2, 6) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    changed = ids.clone()
    changed[:, -1] = 0
    differences = []
    for given, first in ((mask, [0, 2]), (None, [0, 0])):
        before, after = (_states(model, each, given) for each in (ids, changed))
        differences.append((before - after)[torch.arange(2), torch.tensor(first)].abs().amax(dim=1))
    change = torch.cat(differences)
    if not bool((change > 0).all() and torch.isfinite(change).all()):
        raise UserError(
            f"{name}: still causal under this version of transformers: the first token does not see the last. "
            "Its vectors would be wrong; use a Llama, Mistral, Gemma, Qwen2 or Qwen3 model"
        )


def _states(model: Any, ids: Tensor, mask: Tensor | None) -> Tensor:
    with torch.inference_mode():
        mask = None if mask is None else mask.to(model.device)
        output = model(input_ids=ids.to(model.device), attention_mask=mask)
        return output.last_hidden_state.float().cpu()


def tokenizer_of(model: str) -> Any:
    """The model's tokenizer as LLM2Vec wants it: padded on the left with the end-of-text token."""
    tokenizer = load(AutoTokenizer.from_pretrained, name=model, trust_remote_code=False)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def wrapped(model: PreTrainedModel, tokenizer: Any, pooling: str) -> Any:
    """The library's LLM2Vec around a loaded model; it chooses the prompt by the model's original name."""
    folder = Path(model.config._name_or_path)
    if (folder / "config.json").exists():
        model.config._name_or_path = read_json(folder / "config.json").get("_name_or_path", "")
    return llm2vec_library().LLM2Vec(model, tokenizer, pooling_mode=pooling)


def llm2vec_library() -> Any:
    """Import llm2vec, giving it the names that transformers has removed since; none of them is used here."""
    for module, prefix in ATTENTION_CLASSES.items():
        modeling = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
        for suffix in ("FlashAttention2", "SdpaAttention"):
            _alias(modeling, f"{prefix}{suffix}", getattr(modeling, f"{prefix}Attention"))
    _alias(cache_utils, "SlidingWindowCache", cache_utils.StaticCache)
    return importlib.import_module("llm2vec")


def _alias(module: Any, name: str, value: Any) -> None:
    if not hasattr(module, name):
        setattr(module, name, value)


def pool(
    hidden: Float[Tensor, "batch time dim"], pooled: Bool[Tensor, "batch time"], how: str
) -> Float[Tensor, "batch dim"]:
    """The library's poolings of left-padded rows, but without asking a GPU for each row's length and waiting for it.

    mean: of the text's states. weighted_mean: the n-th of them counts n times. eos_token: the last state.
    """
    if how == "eos_token":
        return hidden[:, -1]
    weights = pooled.float() if how == "mean" else pooled.cumsum(1) * pooled
    return (weights[:, None].float() @ hidden)[:, 0] / weights.sum(1, keepdim=True)


def left_padded(
    batch: Sequence[Tokens], pad: int
) -> tuple[Int[Tensor, "batch time"], Bool[Tensor, "batch time"], Bool[Tensor, "batch time"]]:
    """Ids filled up on the left with `pad`, which of them are real, and which are pooled."""
    lengths = torch.tensor([len(tokens.ids) for tokens in batch])
    pooled = torch.tensor([tokens.pooled for tokens in batch])
    from_end = torch.arange(int(lengths.max()), 0, -1)
    real = from_end <= lengths[:, None]
    ids = torch.full(real.shape, pad, dtype=torch.long)
    ids[real] = torch.from_numpy(np.concatenate([tokens.ids for tokens in batch])).long()
    return ids, real, from_end <= pooled[:, None]
