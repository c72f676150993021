"""A model on disk: the same after as before, and refused where it is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DIM, EVERY_BACKBONE, ITEMS, LENGTH, SETTINGS, USERS, WIDTH, batch_of, iadsr_params

from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.config import ModelConfig
from iadsr.models.files import load_config, load_model, save_model

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


def config_of(backbone: str = "gru4rec", denoiser: str = "iadsr", **changes: Any) -> ModelConfig:
    fields = {
        "dataset": "small",
        "backbone": backbone,
        "backbone_params": SETTINGS[backbone],
        "denoiser": denoiser,
        "denoiser_params": iadsr_params().model_dump() if denoiser == "iadsr" else {},
        "user_count": USERS,
        "item_count": ITEMS,
        "dim": DIM,
        "max_length": LENGTH,
        "seed": 7,
        "encodings": {"dim": WIDTH, "prefixes": "mean"} if denoiser == "iadsr" else None,
    }
    return ModelConfig.model_validate({**fields, **changes})


@pytest.mark.parametrize("denoiser", ["none", "iadsr"])
@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_goes_round(backbone: str, denoiser: str, tmp_path: Path) -> None:
    """Loaded elsewhere, with random weights drawn in between, it gives the same states."""
    config, batch = config_of(backbone, denoiser, best_epoch=3, epochs=9), batch_of([1, 2, 3], [4])
    model = build(config).eval()
    expected = model.states(batch)
    save_model(tmp_path, model, config)
    torch.manual_seed(0)
    loaded, found = load_model(tmp_path, CPU)
    assert found == config and not loaded.training
    assert torch.equal(loaded.states(batch), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_model_under_the_names_of_an_earlier_revision(tmp_path: Path) -> None:
    """There config.json called the text rule `semantic`, and the manifest of the encodings, too."""
    rule = {"share": 0.1, "mask_at_test": True}
    config = config_of(denoiser="text_rule", denoiser_params=rule, encodings={"dim": WIDTH, "prefixes": "mean"})
    save_model(tmp_path, build(config), config)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    content |= {"denoiser": "semantic", "semantic": content.pop("encodings")}
    path.write_text(json.dumps(content))
    assert load_model(tmp_path, CPU)[1] == config


def test_weights_are_drawn_from_the_seed() -> None:
    one, same, other = (build(config_of(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["items.weight"], other["items.weight"])


def test_a_denoiser_starts_from_the_plain_recommender_s_weights() -> None:
    plain, denoised = build(config_of(denoiser="none")).state_dict(), build(config_of()).state_dict()
    assert all(torch.equal(value, denoised[name]) for name, value in plain.items())


def test_no_model_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: no trained model here"):
        load_model(tmp_path, CPU)
    save_model(tmp_path, build(config_of()), config_of())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be loaded"):
        load_model(tmp_path, CPU)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"dataset": "small"}'])
def test_a_broken_configuration(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match="no trained model here"):
        load_config(tmp_path)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, build(config_of()), config_of())
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "surprise": 1}))
    with pytest.raises(UserError, match="surprise"):
        load_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50])
def test_broken_weights(content: bytes, tmp_path: Path) -> None:
    save_model(tmp_path, build(config_of()), config_of())
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(tmp_path, CPU)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    save_model(tmp_path, build(config_of()), config_of(item_count=ITEMS + 1))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(tmp_path, CPU)
