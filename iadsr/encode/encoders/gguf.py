"""Models in GGUF, the format of llama.cpp: converted once to safetensors, as which every other part reads them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pooch
import torch
import transformers

from iadsr.artifacts import file_digest, replacing_folder
from iadsr.device import is_out_of_memory
from iadsr.errors import UserError, first_line


def converted(file: Path) -> Path:
    """The folder of the converted model and its tokenizer, in the user's cache; made by the first call.

    UserError without the package `gguf`, and for a file that is no model.
    """
    folder = Path(pooch.os_cache("iadsr")) / "models" / f"{file.stem}-{file_digest(file)[:12]}"
    if not folder.exists():
        if importlib.util.find_spec("gguf") is None:
            raise UserError(
                f"{file}: to read it the package `gguf` is needed: `pip install --no-deps -r requirements-smollm2.txt`"
            )
        with replacing_folder(folder) as new:
            convert(file, new)
    return folder


def convert(file: Path, folder: Path) -> None:
    """Write weights, which are stored in fewer bits, in bfloat16; half a minute for 135 million of them."""
    try:
        model = transformers.AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # broken files have many ways to fail
        if is_out_of_memory(error):
            raise
        raise UserError(f"{file}: not a model that can be converted: {first_line(error)}") from None
    model.hf_quantizer = None  # what is written is quantised no more
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
