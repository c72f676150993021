"""The user's own files, wherever they lie: where they are found, and the digest by which a change is noticed.

DVC knows the files of the project's folder only, and a path in params.yaml may be any.
"""

from __future__ import annotations

from pathlib import Path

from iadsr.artifacts import file_digest, read_json, text_digest, write_json
from iadsr.ingest.folders import all_files
from iadsr.ingest.own_files import Files
from iadsr.ingest.sources import SourceParams

TABLES = ("interactions", "items")


def located(source: SourceParams, root: Path) -> SourceParams:
    """The source, with paths that the current folder lacks taken from the project's root.

    An experiment in a queue runs in a copy of the project without the files that git ignores.
    """
    if not isinstance(source, Files):
        return source
    names = {table: getattr(source, table) for table in TABLES}
    elsewhere = {table: str(root / name) for table, name in names.items() if not Path(name).exists()}
    return source.model_copy(update={name: path for name, path in elsewhere.items() if Path(path).exists()})


def digests_of_own(source: SourceParams, memory: Path) -> dict[str, str | None]:
    """By table the digest of what it is read from, None where nothing is there; no table for any other source.

    `memory` keeps the digests of files by size, time and inode: one that did not change is not read again.
    """
    if not isinstance(source, Files):
        return {}
    before, now = _remembered(memory), dict[str, str]()
    found = {table: _digest(Path(getattr(source, table)), before, now) for table in TABLES}
    write_json(memory, now)
    return found


def _digest(path: Path, before: dict[str, str], now: dict[str, str]) -> str | None:
    if path.is_dir():
        return text_digest(
            *(part for file in all_files(path) for part in (str(file.relative_to(path)), _known(file, before, now)))
        )
    return _known(path, before, now) if path.is_file() else None


def _known(path: Path, before: dict[str, str], now: dict[str, str]) -> str:
    """The file's digest, from `before` if it is as it was then; also noted in `now`."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
    now[key] = before.get(key) or file_digest(path)
    return now[key]


def _remembered(memory: Path) -> dict[str, str]:
    """What an earlier run has noted; nothing where that cannot be read."""
    try:
        content = read_json(memory)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and all(isinstance(each, str) for each in content.values()) else {}
