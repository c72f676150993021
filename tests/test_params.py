"""params.yaml: what is refused, and that each message names the key by its full path."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from iadsr.encode.encoders.interface import encoder_params
from iadsr.errors import UserError
from iadsr.filter.interactions import FilterParams
from iadsr.ingest.sources import chosen_source
from iadsr.models.assembly import NO_BACKBONE, backbone_params, chosen_denoiser, denoiser_params
from iadsr.models.backbones.registry import BACKBONES
from iadsr.models.denoisers.iadsr.model import IADSRParams
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.params import MOVED, TOP_LEVEL, Group, choice, chosen_dataset, group, lookup, read_params
from iadsr.params_check import GROUPS

COMMITTED = Path(__file__).parents[1] / "params.yaml"


class Engine(Group):
    power: int = Field(ge=1, le=9)
    fuel: Literal["wood", "coal"] = "coal"


class Train(Group):
    engine: Engine
    wagons: list[Engine] = Field(default_factory=list)
    speed: float = 1.0


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_params(path)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- the file ---


def test_reads_nested_values_with_their_types(tmp_path: Path) -> None:
    """YAML 1.2: `no` is a word, 1e-3 a number; a comment is nothing."""
    text = "theta: -0.9  # gate\nseed: 3\ndataset: no\ntrain: {learning_rate: 1e-3, on: true}\n"
    assert read_params(written(tmp_path, text)) == {
        "theta": -0.9,
        "seed": 3,
        "dataset": "no",
        "train": {"learning_rate": 0.001, "on": True},
    }


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    said = "cannot be read (No such file or directory); run from the project's root folder"
    assert message(path) == f"{path}: {said}"


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    assert message(tmp_path).startswith(f"{tmp_path}: cannot be read (Is a directory)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 0\n")
    path.chmod(0)
    assert message(path).startswith(f"{path}: cannot be read (Permission denied)")


def test_broken_yaml_names_the_line(tmp_path: Path) -> None:
    said = message(written(tmp_path, "seed: 0\ntheta: [1, 2\ndataset: demo\n"))
    assert "row 3: not valid YAML" in said


@pytest.mark.parametrize(
    "line",
    [
        *("format: %d-%m-%Y", "format: %d: %m", "separator: ,", "separator: *", "separator: &", "separator: @"),
        *("separator: `", "separator: :", "separator: -", "separator: ?", 'format: "%d-%m', "format: '%d"),
    ],
)
def test_a_value_without_quotation_marks(tmp_path: Path, line: str) -> None:
    """Its row and key are named, and it stands as it should."""
    key, value = line.split(": ", 1)
    said = message(written(tmp_path, f"seed: 0\n{line}\n"))
    mended = value.strip("\"'")
    assert said.endswith(
        f"row 2: not valid YAML: the value of '{key}' must stand in quotation marks, as in {key}: \"{mended}\""
    )


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    said = message(written(tmp_path, "theta: 0.1\ntheta: 0.2\n"))
    assert "not valid YAML" in said and 'duplicate key "theta"' in said


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 2000,
        "a: " + "{b: " * 2000,
        "9" * 5000 + ": 1",
        "? [1]\n: 2\n",
        "a: 2020-13-45\n",
        "a: !!python/name:os.x",
    ],
)
def test_hostile_yaml_is_one_sentence(tmp_path: Path, text: str) -> None:
    """Nested too deep, a number of 5,000 digits, a list as key, no such day, the name of a function."""
    path = written(tmp_path, text)
    assert message(path).startswith(str(path)) and len(message(path)) < 300


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"dataset: \xff\xfe\n")
    assert message(path) == f"{path}: not a text file in UTF-8"


@pytest.mark.parametrize(("text", "found"), [("", "NoneType"), ("- 1\n", "list"), ("demo\n", "str")])
def test_anything_but_a_mapping(tmp_path: Path, text: str, found: str) -> None:
    assert message(written(tmp_path, text)).endswith(f"expected a mapping of parameters, found {found}")


def test_an_unknown_key_at_top_level(tmp_path: Path) -> None:
    said = message(written(tmp_path, "seed: 0\nthetta: 0.5\n"))
    assert "unknown parameter 'thetta'; known are dataset, backbone, denoiser, theta, " in said


def test_unknown_keys_of_several_types(tmp_path: Path) -> None:
    """5 and "zz" have no order; the first of them as text is named."""
    assert "unknown parameter 5; known are" in message(written(tmp_path, "5: 1\nzz: 1\n"))


# --- one value ---


def test_lookup_of_a_dotted_key() -> None:
    assert lookup({"a": {"b": {"c": 0}}}, "a.b.c") == 0
    assert lookup({"a": {"b": {"c": 0}}}, "a.b") == {"c": 0}
    assert lookup({"a": {"b": None}}, "a.b") is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("x", "no parameter 'x'; params.yaml has: a"),
        ("a.x.y", "no parameter 'a.x.y'; a has: b"),
        ("a.b.x", "no parameter 'a.b.x'; a.b has: c, d"),
        ("a.b.c.x", "no parameter 'a.b.c.x'; a.b.c has: 0"),
    ],
)
def test_lookup_of_what_is_not_there(key: str, said: str) -> None:
    with pytest.raises(UserError, match=f"^params.yaml: {said}$"):
        lookup({"a": {"b": {"c": 0, "d": 1}}}, key)


@pytest.mark.parametrize("name", ["huge", 3, None, ["demo"], {"demo": 1}])
def test_an_unknown_choice_lists_what_is_known(name: Any) -> None:
    with pytest.raises(UserError) as error:
        choice({"dataset": name, "datasets": {"demo": {}, "toys": {}}}, "dataset", "datasets")
    assert str(error.value) == f"params.yaml: unknown dataset {name!r}; known (under `datasets`) are demo, toys"


def test_known_names_may_be_numbers() -> None:
    with pytest.raises(UserError, match=r"known .* are 7, toys$"):
        choice({"dataset": "demo", "datasets": {7: {}, "toys": {}}}, "dataset", "datasets")


@pytest.mark.parametrize("name", ["magic", 3, None, ["none"]])
def test_an_unknown_denoiser(name: Any) -> None:
    """One that is no entry, and an entry of which the code knows nothing."""
    content = {**read_params(COMMITTED), "denoiser": name}
    with pytest.raises(UserError, match=r"unknown denoiser .*; known \(under `denoisers`\) are none, iadsr, hsd"):
        chosen_denoiser(content)
    content = {**content, "denoiser": "magic", "denoisers": {"magic": {}}}
    with pytest.raises(UserError, match=r"params.yaml: denoisers.magic: unknown denoiser; known are none, iadsr, hsd"):
        chosen_denoiser(content)


def test_names_of_earlier_files_are_answered_with_todays(tmp_path: Path) -> None:
    for old, new in MOVED.items():
        assert message(written(tmp_path, f"{old}: {{}}\n")).endswith(f"unknown parameter {old!r}; it is {new} now")
        assert lookup(read_params(COMMITTED), new)
    with pytest.raises(UserError, match=r"unknown denoiser 'semantic'; it is called text_rule now; known"):
        chosen_denoiser({**read_params(COMMITTED), "denoiser": "semantic"})
    content = {**read_params(COMMITTED), "denoiser": "semantic", "denoisers": {"semantic": {}}}
    with pytest.raises(UserError, match=r"denoisers.semantic: unknown denoiser; it is called text_rule now; known"):
        chosen_denoiser(content)


@pytest.mark.parametrize(("key", "least"), [("core", 0), ("max_length", 1)])
@pytest.mark.parametrize("value", [-1, True, "32", 3.5, None])
def test_sizes_of_a_data_set_are_whole_numbers(key: str, least: int, value: object) -> None:
    entry = {"core": 5, "max_length": 20, "source": {}}
    content = {"dataset": "mine", "datasets": {"mine": {**entry, key: least}}}
    assert getattr(chosen_dataset(content)[1], key) == least
    with pytest.raises(UserError, match=rf"^params.yaml: datasets\.mine\.{key}: input should be "):
        chosen_dataset({"dataset": "mine", "datasets": {"mine": {**entry, key: value}}})


@pytest.mark.parametrize("table", [None, 3, "demo", ["demo"]])
def test_a_table_of_choices_must_be_a_mapping(table: Any) -> None:
    with pytest.raises(UserError) as error:
        choice({"dataset": "demo", "datasets": table}, "dataset", "datasets")
    assert str(error.value) == f"params.yaml: datasets: expected a mapping, found {table!r}"


# --- a group ---


def test_a_group_is_typed_and_immutable() -> None:
    train = group({"train": {"engine": {"power": 2}, "speed": 3}}, "train", Train)
    assert (train.engine.fuel, train.speed) == ("coal", 3.0)
    with pytest.raises(ValueError, match="frozen"):
        train.speed = 4.0


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"engine": {"power": 0}}, "train.engine.power: input should be greater than or equal to 1, found 0"),
        ({"engine": {"power": 10}}, "train.engine.power: input should be less than or equal to 9, found 10"),
        ({"engine": {"power": "1"}}, "train.engine.power: input should be a valid integer, found '1'"),
        ({"engine": {"power": 1.0}}, "train.engine.power: input should be a valid integer, found 1.0"),
        ({"engine": {"power": True}}, "train.engine.power: input should be a valid integer, found True"),
        ({"engine": {"power": 1, "fuel": "air"}}, "train.engine.fuel: input should be 'wood' or 'coal', found 'air'"),
        ({"engine": {"power": 1, "size": 1}}, "train.engine.size: unknown parameter"),
        ({"engine": {"power": 1}, "sped": 1}, "train.sped: unknown parameter"),
        ({"engine": {"power": 1}, "wagons": [{"power": 0}]}, "train.wagons.0.power: input should be greater than"),
        ({"engine": {}}, "train.engine.power: field required, found {}"),
        ({"engine": {"power": 1}, "speed": "fast"}, "train.speed: input should be a valid number, found 'fast'"),
        ({"engine": {"power": 1}, "speed": float("inf")}, "train.speed: input should be a finite number, found inf"),
        ({"engine": {"power": 1}, "speed": float("nan")}, "train.speed: input should be a finite number, found nan"),
        ({"engine": {"power": 1}, 5: 1}, "train.5: keys should be strings, found 5"),
        ({"engine": None}, "train.engine: expected a mapping, found None"),
        ([1], "train: expected a mapping, found [1]"),
        (None, "train: expected a mapping, found None"),
    ],
)
def test_a_wrong_group_names_the_whole_path(value: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        group({"train": value}, "train", Train)
    assert str(error.value).startswith(f"params.yaml: {said}")


def test_all_mistakes_of_a_group_are_in_one_message() -> None:
    with pytest.raises(UserError) as error:
        group({"train": {"engine": {"power": 0}, "sped": 1}}, "train", Train)
    assert "train.engine.power: " in str(error.value) and "; train.sped: unknown parameter" in str(error.value)


def test_a_missing_group() -> None:
    with pytest.raises(UserError, match=r"^params.yaml: no parameter 'filter'; params.yaml has: train"):
        group({"train": {}}, "filter", FilterParams)


def test_a_key_that_stands_at_top_level_is_named_so() -> None:
    """`theta` is checked with the group `denoisers.iadsr`, but stands above it."""
    masks = lookup(read_params(COMMITTED), "denoisers.iadsr")
    for theta, said in ((1.5, "less than or equal to 1, found 1.5"), (-1.01, "greater than or equal to -1")):
        with pytest.raises(UserError) as error:
            group({"iadsr": masks}, "iadsr", IADSRParams, theta=theta)
        assert str(error.value).startswith("params.yaml: theta: ")
        assert said in str(error.value)
    for wrong in ("high", None, True, float("nan")):
        with pytest.raises(UserError, match=r"^params.yaml: theta: "):
            group({"iadsr": masks}, "iadsr", IADSRParams, theta=wrong)


def test_a_key_that_stands_at_top_level_is_refused_in_the_group() -> None:
    masks = lookup(read_params(COMMITTED), "denoisers.iadsr")
    with pytest.raises(UserError, match=r"^params.yaml: iadsr.theta: unknown parameter; theta stands at top level$"):
        group({"iadsr": {**masks, "theta": 0.5}}, "iadsr", IADSRParams, theta=0.0)


# --- the committed file ---

ENTRIES = {table: list(read_params(COMMITTED)[table]) for table in ("datasets", "encoders", "backbones", "denoisers")}


def test_the_committed_file_has_every_top_level_key_in_order() -> None:
    content = read_params(COMMITTED)
    assert set(content) == set(TOP_LEVEL)
    keys = ("dataset", "backbone", "denoiser", "encoder")
    assert [choice(content, key, f"{key}s") for key in keys] == [content[key] for key in keys]


@pytest.mark.parametrize("key", GROUPS)
def test_the_committed_groups(key: str) -> None:
    """All keys are written out, so that the file shows what can be turned: none is left to a default."""
    content = read_params(COMMITTED)
    assert set(group(content, key, GROUPS[key]).model_dump()) == set(content[key])


@pytest.mark.parametrize("denoiser", ENTRIES["denoisers"])
def test_the_committed_denoisers(denoiser: str) -> None:
    content = read_params(COMMITTED)
    above = DENOISERS[denoiser].traits.top_level
    assert set(denoiser_params(content, denoiser).model_dump()) == {*content["denoisers"][denoiser], *above}
    assert above == (("theta",) if denoiser in ("iadsr", "cloze") else ())


def test_every_denoiser_has_an_entry() -> None:
    assert sorted(ENTRIES["denoisers"]) == sorted(DENOISERS)


@pytest.mark.parametrize("dataset", ENTRIES["datasets"])
def test_the_committed_data_sets(dataset: str) -> None:
    content = {**read_params(COMMITTED), "dataset": dataset}
    entry = content["datasets"][dataset]
    assert set(entry) == {"core", "max_length", "source"}
    assert chosen_dataset(content)[1].model_dump() == entry
    assert chosen_source(content).kind == entry["source"]["kind"]


@pytest.mark.parametrize("encoder", ENTRIES["encoders"])
def test_the_committed_encoders(encoder: str) -> None:
    content = read_params(COMMITTED)
    assert encoder_params(content, encoder).kind == content["encoders"][encoder]["kind"]


@pytest.mark.parametrize("kind", ["oracle", 3, None, ["transformer"]])
def test_an_unknown_kind_of_encoder(kind: Any) -> None:
    with pytest.raises(UserError) as error:
        encoder_params({"encoders": {"small": {"kind": kind}}}, "small")
    expected = f"expected one of transformer, llm2vec, random, found {kind!r}"
    assert str(error.value) == f"params.yaml: encoders.small.kind: {expected}"


@pytest.mark.parametrize("backbone", ENTRIES["backbones"])
def test_the_committed_backbones(backbone: str) -> None:
    content = read_params(COMMITTED)
    assert set(backbone_params(content, backbone).model_dump()) == set(content["backbones"][backbone])


def test_every_backbone_has_an_entry() -> None:
    assert set(ENTRIES["backbones"]) == {*BACKBONES, NO_BACKBONE}
