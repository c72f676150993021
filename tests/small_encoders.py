"""Tiny random models with a byte-level tokenizer, saved in a folder without any network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<s>", "</s>", "<|endoftext|>"]  # the last is of Qwen2's class
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def save_tokenizer(folder: Path, template: str, merges: Sequence[tuple[str, str]] = ()) -> int:
    """One token a byte, but for `merges`, in the way of GPT-2, Llama 3 and Qwen; returns the vocabulary's size."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, vocabulary[token]) for token in SPECIAL]
    )
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    inputs = ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)
    return len(vocabulary)


def save_model(
    folder: Path, config_class: Any, template: str, merges: Sequence[tuple[str, str]] = (), **more: object
) -> str:
    torch.manual_seed(0)
    vocabulary = save_tokenizer(folder, template, merges)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = config_class(vocab_size=vocabulary, **SIZES, **ids, **more)
    AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)
