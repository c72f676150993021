"""Where each official file lives, and how it reaches this machine: from a mirror, or by a checked download."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadsr.artifacts import file_digest, replacing
from iadsr.errors import UserError
from iadsr.published import TABLE_1, DatasetSize

MIRROR_VARIABLE = "IADSR_MIRROR"
MIRROR_SUMS = "SHA256SUMS"
ATTEMPTS = 4
CHUNK = 1 << 20
# A gzip file that unpacks to more than both is refused: the official ones grow fourfold, one of zeros a thousandfold.
MOST_GROWTH, GROWS_FREELY = 100, 1 << 28  # times its size; bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfficialFile:
    """A file as its publisher offers it.

    `checksum` is "algorithm:hexadecimal", `size` in bytes. Where they are not `verified`, because the publisher states
    none and others only reported them, a difference is a warning. `counts` is what the literature reports.
    """

    name: str
    url: str
    size: int | None = None
    checksum: str | None = None
    verified: bool = False
    counts: DatasetSize | None = None


MOVIELENS_100K = OfficialFile(
    name="ml-100k.zip",
    url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
    size=4_924_029,
    checksum="md5:0e33842e24a9c977be4e0107933c0723",
    verified=True,
    counts=TABLE_1["ml-100k"].size,
)

AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
# From public pointers to these files; the publisher states no sums. Other categories have none that we know.
AMAZON_REPORTED = {
    "reviews_Beauty_5.json.gz": (
        44_819_276,
        "sha256:e5925ec99023f1dc9c7d3dff7ef34cfeacd40d1b981b5525e1e4ba9c8abc18fe",
    ),
    "meta_Beauty.json.gz": (
        99_156_148,
        "sha256:c7977dc0e0ead14ac7df8c1c6de74da00e4bebfad87a0f0c5763d4c5bc9b53a0",
    ),
    "reviews_Sports_and_Outdoors_5.json.gz": (
        68_275_834,
        "sha256:8130a2206c3062db1b4b9d4353efc303b0ebd13f48372559fee26c47a1d7fe51",
    ),
    "meta_Sports_and_Outdoors.json.gz": (
        183_143_051,
        "sha256:677108a0fe0f47cce08885a348879a5a89dd69e75fbc5d66410ae436750df086",
    ),
}
AMAZON_COUNTS = {
    category: TABLE_1[name].size
    for category, name in {"Beauty": "beauty", "Sports_and_Outdoors": "sports", "Toys_and_Games": "toys"}.items()
}


def amazon_reviews(category: str) -> OfficialFile:
    """The 5-core reviews of an Amazon 2014 category."""
    return _amazon_file(f"reviews_{category}_5.json.gz", AMAZON_COUNTS.get(category))


def amazon_meta(category: str) -> OfficialFile:
    """The product descriptions of an Amazon 2014 category."""
    return _amazon_file(f"meta_{category}.json.gz", None)


def _amazon_file(name: str, counts: DatasetSize | None) -> OfficialFile:
    size, checksum = AMAZON_REPORTED.get(name, (None, None))
    return OfficialFile(name, AMAZON_2014 + name, size, checksum, counts=counts)


def mirror_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder that IADSR_MIRROR names, or None where it is unset or empty; UserError if it is no folder."""
    name = environment.get(MIRROR_VARIABLE, "")
    if not name:
        return None
    if not Path(name).is_dir():
        given, found = (name, "none") if "://" not in name else ("...", "an address")  # which may hold a password
        raise UserError(
            f"{MIRROR_VARIABLE}={given}: expected a folder of official files, found {found}; unset it to download"
        )
    return Path(name)


def fetch(file: OfficialFile, cache: Path, mirror: Path | None = None) -> Path:
    """The path of a whole, checked copy of `file`: in `mirror` where one is given, else downloaded into `cache`.

    UserError if it is missing from the mirror, cannot be downloaded, or does not have its checksum.
    """
    return _downloaded(file, cache) if mirror is None else _mirrored(file, mirror)


def check_counts(file: OfficialFile, found: DatasetSize) -> None:
    """Warn when a data set does not have the size that the literature reports for it."""
    if file.counts is not None and file.counts != found:
        log.warning("warning: %s: expected %s, found %s", file.name, _in_words(file.counts), _in_words(found))


def _in_words(counts: DatasetSize) -> str:
    return f"{counts.users:,} users, {counts.items:,} items, {counts.interactions:,} interactions"


def _mirrored(file: OfficialFile, mirror: Path) -> Path:
    path = mirror / file.name
    if not path.is_file():
        raise UserError(f"{path}: missing from the mirror ({MIRROR_VARIABLE}); put the file of {file.url} there")
    own_sum = _mirror_sums(mirror).get(file.name)
    if own_sum is None:
        _check(file, path)
    elif own_sum != (found := file_digest(path)):
        raise UserError(
            f"{path}: wrong checksum: expected sha256 {own_sum} ({MIRROR_SUMS}), found {found}; "
            "replace it by a whole copy"
        )
    return path


def _mirror_sums(mirror: Path) -> dict[str, str]:
    """File name -> SHA-256 from the mirror's own list (the format of `sha256sum`), empty where it has none."""
    path = mirror / MIRROR_SUMS
    if not path.exists():
        return {}
    sums = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-fA-F]{64}) [ *](.+)", line.rstrip())
        if match:
            sums[match[2].removeprefix("./")] = match[1].lower()
        elif line.strip():
            raise UserError(f"{path}, row {number}: expected a SHA-256 and a file name, found {line!r}")
    return sums


def _downloaded(file: OfficialFile, cache: Path) -> Path:
    # pooch and what it imports are needed only for a download
    import pooch
    from requests.exceptions import RequestException

    known = file.checksum if file.verified else None
    path, own_sum = cache / file.name, cache / f"{file.name}.sha256"
    if known is None and path.exists() and not _is_as_downloaded(path, own_sum):
        log.warning("note: %s: damaged since it was downloaded; downloading it again", path)
        path.unlink()
    store = pooch.create(
        path=str(cache.resolve()),
        base_url="",
        registry={file.name: known},
        urls={file.name: file.url},
        retry_if_failed=ATTEMPTS - 1,
    )
    try:
        path = Path(store.fetch(file.name, downloader=_whole_file_downloader(file)))
    except (RequestException, ValueError) as error:
        raise UserError(
            f"{file.name}: could not be downloaded from {file.url} in {ATTEMPTS} attempts ({_one_line(error)}); try "
            f"again later, or put the file into a folder and name that in {MIRROR_VARIABLE}"
        ) from None
    if known is None:
        with replacing(own_sum) as temporary:
            temporary.write_text(file_digest(path), encoding="ascii")
    _check(file, path)
    return path


def _is_as_downloaded(path: Path, own_sum: Path) -> bool:
    """Whether a download of unknown checksum still has the one noted beside it, or, where none is, is whole."""
    if own_sum.exists():
        return own_sum.read_text(encoding="ascii", errors="replace") == file_digest(path)
    try:
        _check_gzip(path)
    except ValueError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _whole_file_downloader(file: OfficialFile) -> Callable[[str, str, Any], None]:
    """A downloader that fails on a truncated file, so that pooch tries again and never gives it its final name."""
    from pooch import HTTPDownloader

    # identity: a server that wraps a .gz in a second, transparent gzip would change its size and sum
    download = HTTPDownloader(progressbar=True, chunk_size=CHUNK, headers={"Accept-Encoding": "identity"})

    def downloader(url: str, target: str, store: Any) -> None:
        download(url, target, store)
        size = Path(target).stat().st_size
        if file.verified and file.size is not None and size != file.size:
            raise ValueError(f"expected {file.size:,} bytes, found {size:,}")
        if file.name.endswith(".gz"):
            _check_gzip(Path(target))

    return downloader


def _check_gzip(path: Path) -> None:
    """Read the whole file, whose end carries a checksum; ValueError if it is truncated, corrupt or of no content."""
    if not sum(map(len, gunzipped(path, CHUNK))):
        raise ValueError("nothing in the gzip file")


def gunzipped(path: Path, size: int) -> Iterator[bytes]:
    """The content in pieces of up to `size` bytes; ValueError, in words, where it is truncated, corrupt or a bomb."""
    most, unpacked = max(GROWS_FREELY, MOST_GROWTH * path.stat().st_size), 0
    try:
        with gzip.open(path) as file:
            while piece := file.read1(size):
                unpacked += len(piece)
                if unpacked > most:
                    raise ValueError(f"unpacks to more than {MOST_GROWTH} times its size, as no official file does")
                yield piece
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ValueError("truncated or corrupt, not a whole gzip file") from None


def _check(file: OfficialFile, path: Path) -> None:
    """Compare with what is known of the file: an error against an official sum, a warning against a reported one."""
    algorithm, _, expected = (file.checksum or "sha256:").partition(":")
    found = _digest(path, algorithm)
    if not expected:
        log.warning("note: %s: no checksum is known for it; this copy has %s %s", path, algorithm, found)
    elif found != expected and file.verified:
        raise UserError(
            f"{path}: wrong checksum: expected {algorithm} {expected}, found {found}; replace it by a whole copy"
        )
    elif found != expected:
        log.warning(
            "warning: %s: differs from what others report (not official): expected %s bytes, %s %s; found %s bytes, %s",
            *(path, f"{file.size:,}", algorithm, expected, f"{path.stat().st_size:,}", found),
        )


def _digest(path: Path, algorithm: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
