"""How vectors are made: what params.yaml says of it, and what the manifest of the encodings keeps of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from iadsr.encode.encoders.interface import EncoderParams, encoder_params
from iadsr.encode.texts import TITLE_MARK, TITLES_MARK, Wording
from iadsr.errors import UserError
from iadsr.params import Group, Params, choice, chosen_dataset, group

# The denoisers that read the text of prefixes. The models say so themselves, but are not imported here: a change of
# their code must not encode anything again.
READ_PREFIXES = frozenset({"iadsr"})
NO_PREFIXES = "none"  # what a manifest says of prefixes where there are vectors of items alone


class EncodeParams(Group):
    """`encode` of params.yaml."""

    prefixes: Literal["joint", "shared", "mean"]
    item_template: str = TITLE_MARK
    prefix_template: str = TITLES_MARK
    separator: str
    batch_tokens: int = Field(ge=0)
    dtype: Literal["auto", "float32", "bfloat16"]
    device: str = "auto"
    threads: int = Field(default=0, ge=0)
    engine: Literal["local", "ray"] = "local"
    actors: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _marks_are_there(self) -> EncodeParams:
        for name, mark in (("item_template", TITLE_MARK), ("prefix_template", TITLES_MARK)):
            if mark not in getattr(self, name):
                raise ValueError(f"{name} has no {mark}, where the text of the data goes")
        ends, times = self.prefix_template.endswith(TITLES_MARK), self.prefix_template.count(TITLES_MARK)
        if self.prefixes == "shared" and not (self.separator and ends and times == 1):
            raise ValueError(
                f"prefixes: shared needs a separator, and a prefix_template that ends with {TITLES_MARK} and has it "
                "once: the text of a prefix must begin that of the next one"
            )
        if self.prefixes == "shared" and self.separator in self.item_template:
            raise ValueError("prefixes: shared needs an item_template without the separator: items are to be exact")
        return self

    @property
    def templates(self) -> dict[str, str]:
        """What decides the texts, as the manifest keeps it."""
        return {name: getattr(self, name) for name in ("item_template", "prefix_template", "separator")}

    @property
    def wording(self) -> Wording:
        return wording_of(self.templates)

    def budget(self, device: str) -> int:
        """Tokens in a batch; chosen here, a CPU's batch stays within its caches (1024: 1.4 times 8192's speed)."""
        return self.batch_tokens or (1024 if device == "cpu" else 16384)


def wording_of(manifest: dict[str, Any]) -> Wording:
    return Wording(manifest["item_template"], manifest["prefix_template"], manifest["separator"])


def separator_of(manifest: dict[str, Any]) -> str:
    """The separator to give to `open_encoder`."""
    separator: str = manifest["separator"] if manifest["prefixes"] == "shared" else ""
    return separator


@dataclass(frozen=True)
class Recipe:
    """All that params.yaml says about the vectors: the encoder, how prefixes are cut, and who is to read them."""

    name: str
    spec: EncoderParams
    settings: EncodeParams
    max_length: int
    denoiser: str

    @classmethod
    def of(cls, params: Params) -> Recipe:
        """The recipe in params.yaml; UserError for wrong parameters."""
        name = choice(params, "encoder", "encoders")
        settings, dataset = group(params, "encode", EncodeParams), chosen_dataset(params)[1]
        denoiser = choice(params, "denoiser", "denoisers")
        return cls(name, encoder_params(params, name), settings, dataset.max_length, denoiser)

    def __post_init__(self) -> None:
        if self.sharing_separator and self.spec.pooling == "cls":
            raise UserError(
                f"params.yaml: encode.prefixes: shared, but encoders.{self.name}.pooling is cls, and the first token "
                "sees the first item alone; use pooling: mean, or prefixes: joint"
            )

    @property
    def prefixes(self) -> str:
        """`encode.prefixes`; none, whatever that is, where the denoiser reads no prefixes."""
        return self.settings.prefixes if self.denoiser in READ_PREFIXES else NO_PREFIXES

    @property
    def prefixes_are_texts(self) -> bool:
        return self.prefixes in ("joint", "shared")

    @property
    def sharing_separator(self) -> str:
        """The separator behind which texts computed together go on; empty: each text is computed alone."""
        return separator_of({**self.settings.templates, "prefixes": self.prefixes})

    @property
    def why_no_prefixes(self) -> str:
        """What a person is told where no prefixes are encoded; else nothing."""
        return f"; no prefixes, as denoiser {self.denoiser} reads none" if self.prefixes == NO_PREFIXES else ""


def manifest(recipe: Recipe) -> dict[str, Any]:
    """How the arrays were made, as far as params.yaml says; nothing in it names this machine or this day."""
    texts = {**recipe.settings.templates, "max_length": recipe.max_length}
    if recipe.prefixes == NO_PREFIXES:
        texts = {"item_template": recipe.settings.item_template}
    return {**described(recipe.name, recipe.spec), **texts, "prefixes": recipe.prefixes}


def described(name: str, spec: EncoderParams) -> dict[str, Any]:
    """An encoder's name and parameters as the manifest keeps them."""
    values = spec.model_dump()
    adapters = [_portable(adapter) for adapter in values.get("adapters", [])]
    return {**values, "encoder": name, "model": _portable(spec.model), "adapters": adapters}


def _portable(model: str) -> str:
    """A folder's own name in place of its path, which would differ from machine to machine."""
    return Path(model).name if Path(model).is_absolute() else model
