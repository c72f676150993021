"""LLM2Vec on current transformers: bidirectional, equal to the library, the newest kept, wrong models refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from iadsr.encode.encoders.interface import Encoder, Llm2VecParams, Tokens
from iadsr.encode.encoders.llm2vec import assert_bidirectional, bidirectional, left_padded, llm2vec_library, pool
from iadsr.encode.encoders.registry import identity, open_encoder
from iadsr.errors import UserError

CPU = torch.device("cpu")
DECODERS = [LlamaConfig, MistralConfig, GemmaConfig, Qwen2Config, Qwen3Config]
TITLES = [
    "red lipstick",
    "a",
    "blue soap; green brush",
    "oil",
    "an eye cream of some length; oil",
    "\x07 \U0001f9f4\tcré\n",
]
Build = Callable[[type[PretrainedConfig]], str]


def opened(model: str, max_tokens: int = 48, **more: Any) -> Encoder:
    return open_encoder(Llm2VecParams(kind="llm2vec", model=model, max_tokens=max_tokens, **more), CPU, torch.float32)


def library_vectors(folder: str, pooling: str, instruction: str, texts: list[str], **more: Any) -> np.ndarray:
    """The library's own loading and `encode`, changed only in the class that it loads the model with."""

    class Bidirectional:
        @staticmethod
        def from_pretrained(name: str, **options: Any) -> Any:
            config = AutoConfig.from_pretrained(name)
            config.is_causal = False
            return AutoModel.from_pretrained(name, config=config, **options)

    class Library(llm2vec_library().LLM2Vec):  # type: ignore[misc]
        @classmethod
        def _get_model_class(cls, *args: Any, **options: Any) -> Any:
            return Bidirectional

    model = Library.from_pretrained(folder, pooling_mode=pooling, **more)
    return model.encode([[instruction, text] for text in texts], batch_size=2, show_progress_bar=False).numpy()


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("pooling", "instruction"),
    [("mean", ""), ("mean", "Find alike:"), ("weighted_mean", ""), ("weighted_mean", "Find alike:"), ("eos_token", "")],
)
def test_equals_the_library(tiny_decoder: Build, kind: Any, attention: str, pooling: str, instruction: str) -> None:
    """Texts of many lengths in one padded batch, with emoji and control characters; then of one length, not padded."""
    folder = tiny_decoder(kind)
    encoder = opened(folder, pooling=pooling, instruction=instruction)
    encoder.model.set_attn_implementation(attention)
    for texts in (TITLES, ["red", "oil", "a\tb"]):
        ours = encoder.vectors(encoder.tokenize(texts))
        assert ours.shape == (len(texts), encoder.dim) == (len(texts), 64)
        theirs = library_vectors(folder, pooling, instruction, texts, attn_implementation=attention)
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of get_peft_model
def test_equals_the_library_with_an_adapter(tiny_decoder: Build, tmp_path: Path, kind: Any) -> None:
    folder = tiny_decoder(kind)
    lora = adapter(folder, tmp_path / "lora", 1)
    encoder = opened(folder, adapters=[lora])
    ours = encoder.vectors(encoder.tokenize(TITLES))
    theirs = library_vectors(folder, "mean", "", TITLES, peft_model_name_or_path=lora, merge_peft=True)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    plain = library_vectors(folder, "mean", "", TITLES)
    assert np.abs(theirs - plain).max() > 1e-2


def test_poolings_by_hand() -> None:
    """States 1, 2, 6 of which the last two are pooled: their mean 4; (2 + 2 * 6) / 3 = 14 / 3; the last, 6."""
    hidden, pooled = torch.tensor([[[1.0], [2.0], [6.0]]]), torch.tensor([[False, True, True]])
    found = [pool(hidden, pooled, how).item() for how in ("mean", "weighted_mean", "eos_token")]
    assert found == pytest.approx([4, 14 / 3, 6])


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_bidirectional_and_the_check_notices_when_not(tiny_decoder: Build, kind: Any, attention: str) -> None:
    folder = tiny_decoder(kind)
    causal = AutoModel.from_pretrained(folder, attn_implementation=attention)
    with pytest.raises(UserError, match="still causal"):
        assert_bidirectional(causal, folder)
    free = bidirectional(folder, torch.float32)
    free.set_attn_implementation(attention)
    assert_bidirectional(free, folder)


def test_the_check_of_every_load_needs_rows_without_a_mask_too(tiny_decoder: Build) -> None:
    """A model that is bidirectional only where it is given a mask is refused."""
    free = bidirectional(tiny_decoder(LlamaConfig), torch.float32)

    class OnlyMasked(torch.nn.Module):
        config, device = free.config, CPU

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
            output = free(input_ids=input_ids, attention_mask=attention_mask)
            output.last_hidden_state[:] *= attention_mask is not None
            return output

    with pytest.raises(UserError, match="still causal"):
        assert_bidirectional(OnlyMasked(), "half")


def test_the_check_needs_the_padded_row_too(tiny_decoder: Build) -> None:
    """A model that is bidirectional only without padding is refused."""
    free = bidirectional(tiny_decoder(LlamaConfig), torch.float32)

    class OnlyUnpadded(torch.nn.Module):
        config, device = free.config, CPU

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> Any:
            output = free(input_ids=input_ids, attention_mask=attention_mask)
            if attention_mask is not None:
                output.last_hidden_state[~attention_mask.bool().all(1)] = 0
            return output

    with pytest.raises(UserError, match="still causal"):
        assert_bidirectional(OnlyUnpadded(), "half")


def test_padding_changes_no_vector(tiny_decoder: Build) -> None:
    encoder = opened(tiny_decoder(LlamaConfig), instruction="Find alike:")
    tokens = encoder.tokenize(TITLES)
    alone = np.concatenate([encoder.vectors([each]) for each in tokens])
    np.testing.assert_allclose(encoder.vectors(tokens), alone, atol=1e-5)


def test_truncation_keeps_instruction_and_newest(tiny_decoder: Build) -> None:
    """One token a byte: `<s>Ask: abcdefghij` is 16 tokens; of at most 10, `<s>Ask: ` takes 6, so 4 are left."""
    encoder = opened(tiny_decoder(LlamaConfig), max_tokens=10, instruction="Ask:")
    long, same = encoder.tokenize(["abcdefghij", "ghij"])
    assert (long.truncated, long.pooled, len(long.ids)) == (True, 4, 10)
    assert (same.truncated, same.pooled) == (False, 4)
    assert long.ids.tolist() == same.ids.tolist()


def test_an_instruction_that_leaves_no_room_is_refused(tiny_decoder: Build) -> None:
    """<s> and `Ask me: ` are 9 tokens of at most 9."""
    encoder = opened(tiny_decoder(LlamaConfig), max_tokens=9, instruction="Ask me:")
    with pytest.raises(UserError, match=r"no token is left of the text 'ab' .*max_tokens 9, 9 of them"):
        encoder.tokenize(["ab"])


def test_a_text_with_the_marker_of_the_library_is_whole(tiny_decoder: Build) -> None:
    encoder = opened(tiny_decoder(LlamaConfig))
    (tokens,) = encoder.tokenize(["a!@#$%^&*()b"])
    assert (tokens.pooled, len(tokens.ids)) == (12, 13)


def test_left_padding() -> None:
    """Three ids of which two are the text, beside one: padded to three on the left with 9."""
    three, one = np.array([5, 6, 7], dtype=np.int32), np.array([8], dtype=np.int32)
    ids, real, pooled = left_padded([Tokens(three, 2, False), Tokens(one, 1, False)], 9)
    assert ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert real.tolist() == [[True, True, True], [False, False, True]]
    assert pooled.tolist() == [[False, True, True], [False, False, True]]


def adapter(base: str, folder: Path, seed: int, **more: Any) -> str:
    """A random LoRA adapter for `base`, made on a plain model as training would."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    lora = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **more)
    get_peft_model(AutoModel.from_pretrained(base), lora).save_pretrained(str(folder))
    return str(folder)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of get_peft_model
def test_adapters_are_merged_in_order(tiny_decoder: Build, tmp_path: Path) -> None:
    """W becomes W + (alpha / r) B1 A1 + (alpha / r) B2 A2, with alpha 8 and r 2 the factor 4, on every q_proj."""
    base = tiny_decoder(LlamaConfig)
    adapters = [adapter(base, tmp_path / str(seed), seed) for seed in (1, 2)]
    key = "layers.1.self_attn.q_proj"
    expected = AutoModel.from_pretrained(base).get_submodule(key).weight.detach().clone()
    for folder in adapters:
        lora = load_file(f"{folder}/adapter_model.safetensors")
        down, up = (lora[f"base_model.model.{key}.lora_{name}.weight"] for name in "AB")
        expected += 4 * up @ down
    encoder = opened(base, adapters=adapters)
    torch.testing.assert_close(encoder.model.get_submodule(key).weight, expected)
    merged, plain = (
        identity(Llm2VecParams(kind="llm2vec", model=base, adapters=some, max_tokens=48)) for some in (adapters, [])
    )
    assert merged.fingerprint != plain.fingerprint


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of get_peft_model
def test_an_adapter_of_another_model_is_refused(tiny_decoder: Build, tmp_path: Path) -> None:
    base = tiny_decoder(LlamaConfig)
    fits = Path(adapter(base, tmp_path / "adapter", 1))
    lora = load_file(fits / "adapter_model.safetensors")
    save_file(
        {name.replace("layers", "blocks"): value for name, value in lora.items()}, fits / "adapter_model.safetensors"
    )
    with pytest.raises(UserError, match="adapter: does not fit the model"):
        opened(base, adapters=[str(fits)])


def test_missing_weights_are_refused(tiny_decoder: Build) -> None:
    """transformers would draw them at random: one that is gone, and all under a wrapper's names."""
    folder = tiny_decoder(LlamaConfig)
    path = Path(folder) / "model.safetensors"
    whole = load_file(path)
    gone = "layers.1.self_attn.q_proj.weight"
    save_file({name: value for name, value in whole.items() if name != gone}, path, {"format": "pt"})
    with pytest.raises(UserError, match=rf"1 weights are missing in its files, such as {gone}, and would be random"):
        opened(folder)
    save_file({f"base_model.model.{name}": value for name, value in whole.items()}, path, {"format": "pt"})
    with pytest.raises(UserError, match="weights are missing in its files"):
        opened(folder)


def test_a_broken_file_of_weights_is_named(tiny_decoder: Build) -> None:
    folder = tiny_decoder(LlamaConfig)
    (Path(folder) / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(UserError, match=f"{folder}: not a model that can be loaded"):
        opened(folder)


def test_a_model_too_large_for_the_memory(tiny_decoder: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.PreTrainedModel.to", full)
    with pytest.raises(UserError, match=r"too large for the memory of cpu in float32; use a larger device"):
        opened(tiny_decoder(LlamaConfig))


@pytest.mark.parametrize("name", ["/no/such/adapter", "../adapter"])
def test_adapter_folders_that_are_not_there(tiny_decoder: Build, name: str) -> None:
    spec = Llm2VecParams(kind="llm2vec", model=tiny_decoder(LlamaConfig), adapters=[name], max_tokens=48)
    with pytest.raises(UserError, match="neither on this machine nor"):
        identity(spec)


def test_absent_adapters_say_how_to_get_them(
    tiny_decoder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is as it is without a network, but at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"weights of 'some/adapter' are neither on this machine nor"):
        opened(tiny_decoder(LlamaConfig), adapters=["some/adapter"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: not a model that can be loaded"):
        opened(tiny_decoder(LlamaConfig), adapters=[str(tmp_path / "empty")])


def test_a_tokenizer_without_a_token_for_padding(tiny_decoder: Build) -> None:
    """What stands at padding is never looked at, so any id will do."""
    folder = tiny_decoder(LlamaConfig)
    expected = opened(folder)
    path = Path(folder) / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "pad_token": None, "eos_token": None}))
    found = opened(folder)
    assert found.library.tokenizer.pad_token_id is None  # type: ignore[attr-defined]
    vectors = [encoder.vectors(encoder.tokenize(TITLES)) for encoder in (expected, found)]
    torch.testing.assert_close(*vectors)


def test_more_tokens_than_the_context_are_refused(tiny_decoder: Build) -> None:
    """A Llama's default context has 2048 positions."""
    with pytest.raises(UserError, match=r"max_tokens 2049, but .* has only 2048 positions"):
        opened(tiny_decoder(LlamaConfig), max_tokens=2049)


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_refused(tiny_decoder: Build, text: str) -> None:
    with pytest.raises(UserError, match=r"a text without a token: '.*'; give it words"):
        opened(tiny_decoder(LlamaConfig)).tokenize(["fine", text])


def test_an_encoder_model_is_refused(tiny_bert: str) -> None:
    with pytest.raises(UserError, match="bert is no decoder language model; use the kind `transformer`"):
        opened(tiny_bert)


def test_absent_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, **options: Any) -> None:
        raise OSError("You are trying to access a gated repo.\nmore")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", refused)
    with pytest.raises(UserError, match=r"gated repo.*https://huggingface.co/meta-llama/x.*`encoder: minilm`"):
        opened("meta-llama/x")
