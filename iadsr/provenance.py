"""Which files belong together: a stage notes what it read and wrote, and whoever reads it compares.

The note `made.json` lies beside a stage's outputs and holds the SHA-256 of each input and each output, and the
parameters by which they were made. Files that were changed since, or that come from different runs, are refused by
name; nothing is ever combined by count alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from iadsr.artifacts import file_digest, read_json, require, text_digest, write_json
from iadsr.errors import UserError
from iadsr.params import Params, found_at, lookup, shown

NOTE = "made.json"
SEAL = "seal"
Digests = dict[str, str]  # name -> SHA-256 in hexadecimal


def name_of(path: Path) -> str:
    """What notes call a file: its folder and its name, since the project's own place says nothing of its content."""
    return f"{path.parent.name}/{path.name}"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, computed once while it stays as it is."""
    found = path.stat()
    return _digest(path.resolve(), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed: int, inode: int) -> str:
    return file_digest(path)


def digests_of(paths: Iterable[Path]) -> Digests:
    return {name_of(path): digest_of(path) for path in paths}


def write_note(
    folder: Path, inputs: Mapping[str, str], outputs: Iterable[Path], made_with: Mapping[str, Any] | None = None
) -> None:
    """Note in `folder` what its files, and others of the same stage, were made from; written after all of them."""
    content = {"inputs": dict(inputs), "outputs": digests_of(outputs), "params": dict(made_with or {})}
    write_sealed(folder / NOTE, content)


def read_note(folder: Path, stage: str) -> dict[str, dict[str, Any]]:
    """The note of `stage` in `folder`; UserError when it is missing or not as it was written."""
    content = read_sealed(folder / NOTE, stage)
    whole = all(_are_digests(content.get(part)) for part in ("inputs", "outputs"))
    if not whole or not isinstance(content.get("params"), dict):
        raise UserError(f"{folder / NOTE}: not a note of what was made from what; run `dvc repro {stage}` again")
    return content


def _are_digests(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(digest, str) for digest in part.values())


def checked(paths: Iterable[Path], stage: str, folder: Path | None = None) -> Digests:
    """The digests of files that `stage` has written; UserError for one that is missing, or not of its last run.

    The note is in `folder`, by default that of the file.
    """
    found: Digests = {}
    for path in paths:
        require(path, stage)
        noted = read_note(folder or path.parent, stage)["outputs"].get(name_of(path))
        found[name_of(path)] = digest_of(path)
        if found[name_of(path)] != noted:
            raise UserError(f"{path}: not what the stage `{stage}` wrote last; run `dvc repro {stage}` again")
    return found


def require_same(what: Path, made_from: Mapping[str, str], now: Mapping[str, str], stage: str) -> None:
    """UserError unless `what`, made from the digests `made_from`, belongs to the files `now`."""
    for name, digest in now.items():
        if made_from.get(name) != digest:
            raise UserError(f"{what}: made from another {name} than is there now; run `dvc repro {stage}` again")


def chosen(params: Params, keys: Iterable[str]) -> dict[str, Any]:
    """The values at dotted keys, in which `{dataset}` and the like stand for the entry that is chosen there."""
    choices = {name: value for name, value in params.items() if isinstance(value, str)}
    return {key: lookup(params, key) for key in (key.format_map(choices) for key in keys)}


def require_params(what: Path, made_with: Mapping[str, Any], params: Params, stage: str) -> None:
    """UserError unless `what` was made with the values that params.yaml has now."""
    for key, value in made_with.items():
        now = found_at(params, key)
        if now != value:
            raise UserError(
                f"{what}: made with {key}: {shown(value)}, but params.yaml has {shown(now)}; run `dvc repro {stage}`"
            )


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON with a digest of itself."""
    write_json(path, {**content, SEAL: _seal(content)})


def read_sealed(path: Path, stage: str) -> dict[str, Any]:
    """What `write_sealed` wrote, without the seal; UserError names `stage` where it is missing or was changed."""
    require(path, stage)
    try:
        content = read_json(path)
        seal = content.pop(SEAL, None) if isinstance(content, dict) else None
        if isinstance(content, dict) and seal == _seal(content):
            return content
    except (OSError, ValueError, RecursionError):
        pass
    raise UserError(f"{path}: damaged, changed by hand, or of an earlier version; run `dvc repro {stage}` again")


def _seal(content: Mapping[str, Any]) -> str:
    return text_digest(json.dumps(content, sort_keys=True))
