"""A model on disk: the same after as before, and refused where it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import DIM, EVERY_BACKBONE, ITEMS, LENGTH, SETTINGS, SMALL_MANIFEST, USERS, batch_of, iadsr_params

from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.config import ModelConfig
from iadsr.models.files import load_config, load_model, require_own, save_model
from iadsr.provenance import digest_of, read_sealed, write_sealed

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
        "encodings": SMALL_MANIFEST if denoiser == "iadsr" else None,
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
    assert found.model_copy(update={"outputs": {}}) == config and not loaded.training
    assert torch.equal(loaded.states(batch), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_weights_are_drawn_from_the_seed() -> None:
    one, same, other = (build(config_of(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["items.weight"], other["items.weight"])


def test_a_denoiser_starts_from_the_plain_recommender_s_weights() -> None:
    plain, denoised = build(config_of(denoiser="none")).state_dict(), build(config_of()).state_dict()
    assert all(torch.equal(value, denoised[name]) for name, value in plain.items())


def resealed(folder: Path, **changes: Any) -> None:
    """As by somebody who knows how the digests are made."""
    content = read_sealed(folder / "config.json", "train")
    weights = folder / "model.safetensors"
    write_sealed(folder / "config.json", {**content, **changes, "outputs": {weights.name: digest_of(weights)}})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_model(folder, build(config_of()), config_of())
    return folder


def test_no_model_here(saved: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: missing; run `dvc repro train` first"):
        load_model(saved / "elsewhere", CPU)
    (saved / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors: missing; run `dvc repro train` first"):
        load_model(saved, CPU)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"dataset": "small"}', b"[" * 10**5, b"1" * 5000])
def test_a_broken_configuration(content: bytes, saved: Path) -> None:
    (saved / "config.json").write_bytes(content)
    with pytest.raises(
        UserError, match=r"config\.json: damaged, changed by hand, or of an earlier version; run `dvc re"
    ):
        load_config(saved)


def test_a_configuration_changed_by_hand(saved: Path) -> None:
    path = saved / "config.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    with pytest.raises(UserError, match=r"config\.json: damaged, changed by hand"):
        load_config(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"dim": "wide"},
        {"dim": 0},
        {"backbone": "gru5rec"},
        {"backbone": "../../x"},
        {"backbone": "os.system"},
        {"backbone": "none"},
        {"backbone_params": {"hidden": -1}},
        {"denoiser": "magic"},
        {"denoiser_params": {"theta": None}},
        {"encodings": None},
        {"encodings": {"dim": [1]}},
        {"encodings": {**SMALL_MANIFEST, "encoder": 5}},
        {"encodings": {name: value for name, value in SMALL_MANIFEST.items() if name != "prefixes"}},
        {"best_epoch": 3, "epochs": 3},
        {"best_epoch": -5},
        {"item_count": 10**30},
    ],
)
def test_a_configuration_that_nothing_can_be_built_from(changes: dict[str, Any], saved: Path) -> None:
    """Even with digests that are right: names outside the registries, values outside their ranges."""
    resealed(saved, **changes)
    with pytest.raises(
        UserError, match=r"config\.json: describes no model that this version knows; run `dvc repro train`"
    ):
        load_config(saved)


@pytest.mark.parametrize(
    "changes", [{"item_count": 10**12}, {"backbone": "caser", "backbone_params": SETTINGS["caser"]}]
)
def test_a_configuration_of_another_model(changes: dict[str, Any], saved: Path) -> None:
    """Found by the shapes, before any memory is taken."""
    resealed(saved, **changes)
    with pytest.raises(
        UserError, match=r"model\.safetensors: not the weights of the model that config\.json describes"
    ):
        load_model(saved, CPU)


@pytest.mark.parametrize("content", [b"", b"\xff" * 50])
def test_broken_weights(content: bytes, saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: not of the training that config\.json describes"):
        load_model(saved, CPU)
    resealed(saved)
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole file of weights"):
        load_model(saved, CPU)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float, saved: Path) -> None:
    model = build(config_of())
    with torch.no_grad():
        model.items.weight[3, 2] = value
    save_model(saved, model, config_of())
    with pytest.raises(
        UserError, match=r"model\.safetensors: some weights are no numbers; run `dvc repro train` again"
    ):
        load_model(saved, CPU)


def test_files_beside_the_model_belong_to_it(saved: Path) -> None:
    (saved.parent / "history.csv").write_text("a")
    save_model(saved, build(config_of()), config_of(), (saved.parent / "history.csv",))
    require_own(load_config(saved), saved.parent / "history.csv")
    (saved.parent / "history.csv").write_text("b")
    with pytest.raises(UserError, match=r"history\.csv: not of the training that config\.json describes"):
        require_own(load_config(saved), saved.parent / "history.csv")
