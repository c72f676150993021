"""Vectors of texts on disk, by what was encoded and by which encoder: nothing is ever encoded twice.

A store holds the vectors of one encoder, in shards that are whole or absent. A shard is a safetensors file of the
texts' digests, their vectors and token counts, with a checksum. Several processes, on several machines with one file
system, may fill a store together: whoever computes a shard holds a lock on it, which the system releases when that
process dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Bool, Int, UInt8
from safetensors import SafetensorError

from iadsr.artifacts import new_memory_map, read_json, replacing, text_digest, write_array, write_json
from iadsr.encode.batches import Encoded
from iadsr.errors import UserError

SHARD = 512  # texts; a kill loses the work on one shard, and on one that is just being written
DIGEST_BYTES = 16
Digests = UInt8[np.ndarray, "texts 16"]


def text_digests(texts: Sequence[str]) -> Digests:
    """The digest of each text, the same on every machine."""
    joined = b"".join(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES] for text in texts)
    return np.frombuffer(joined, dtype=np.uint8).reshape(len(texts), DIGEST_BYTES)


def named(digests: Digests) -> str:
    return hashlib.sha256(digests.tobytes()).hexdigest()[:16]


def _sortable(digests: Digests) -> np.ndarray:
    """The digests as byte strings, which numpy compares; as all have one length, it may drop zeros at the end."""
    return np.ascontiguousarray(digests).view(f"S{DIGEST_BYTES}").ravel()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, as only one process can at a time; waits for the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class DamagedShard(UserError):
    """A shard that was damaged; it is deleted already."""


DAMAGE = (SafetensorError, ValueError, KeyError, FileNotFoundError)


def discard(path: Path, reason: Exception) -> None:
    """Delete a damaged shard, unless another process has written it again by now."""
    if isinstance(reason, FileNotFoundError):
        return
    with locked(path.with_suffix(".lock")):
        try:
            read_shard(path)
        except FileNotFoundError:
            pass
        except DAMAGE:
            print(f"{path}: damaged; its texts are encoded again", file=sys.stderr)
            path.unlink(missing_ok=True)


def _manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a store; None where it is missing or unreadable."""
    try:
        found = read_json(path)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _planned(path: Path) -> list[bytes]:
    """The digests of a plan; none where it is missing or unreadable, and so made anew."""
    try:
        return [digest.tobytes() for digest in np.load(path)]
    except (FileNotFoundError, ValueError, EOFError, BadZipFile):
        return []


def ordered(texts: Sequence[str], numbers: Iterable[int], alphabetical: bool) -> list[int]:
    """The numbers of the texts, sorted so that those of similar length, or that begin alike, come into one shard."""
    if alphabetical:
        return sorted(numbers, key=lambda number: texts[number])
    return sorted(numbers, key=lambda number: (len(texts[number]), texts[number]))


class Places(NamedTuple):
    """For each text whether a shard holds it; and where: the shard's number, and the row in it."""

    held: Bool[np.ndarray, " texts"]
    shard: Int[np.ndarray, " texts"]
    row: Int[np.ndarray, " texts"]


@dataclass(frozen=True)
class Index:
    """Which shard holds which text, and where: columns sorted by digest, of equal ones the earlier shard first."""

    digests: np.ndarray
    shard: Int[np.ndarray, " held"]
    row: Int[np.ndarray, " held"]

    @classmethod
    def of(cls, shards: Sequence[np.ndarray]) -> Index:
        """An index of the digests of each shard."""
        digests = _sortable(np.concatenate([np.zeros((0, DIGEST_BYTES), np.uint8), *shards]))
        order = np.argsort(digests, kind="stable")
        shard = np.repeat(np.arange(len(shards)), [len(each) for each in shards])
        row = np.concatenate([np.arange(0), *(np.arange(len(each)) for each in shards)])
        return cls(digests[order], shard[order], row[order])

    def find(self, digests: Digests) -> Places:
        asked = _sortable(digests)
        if not len(self.digests):
            nowhere = np.zeros(len(asked), dtype=np.int64)
            return Places(np.zeros(len(asked), dtype=bool), nowhere, nowhere)
        at = np.searchsorted(self.digests, asked).clip(max=len(self.digests) - 1)
        return Places(self.digests[at] == asked, self.shard[at], self.row[at])


class Store:
    """The vectors that one encoder made; `manifest` says which encoder, and differs between any two."""

    def __init__(self, folder: Path, manifest: dict[str, Any], alphabetical: bool = False) -> None:
        """A shard holds texts of similar length or, if `alphabetical`, texts that begin alike."""
        self.alphabetical = alphabetical
        self.folder = folder / text_digest(json.dumps(manifest, sort_keys=True))[:16]
        path = self.folder / "manifest.json"
        with locked(self.folder / "lock"):
            found = _manifest(path)
            if found is None:  # the folder's own name says whose it is
                write_json(path, manifest)
        if found is not None and found != manifest:
            keys = [key for key in {**found, **manifest} if found.get(key) != manifest.get(key)]
            raise UserError(
                f"{path}: of another encoder ({', '.join(sorted(keys))} differ), so the vectors beside it cannot be "
                f"used; move the folder {self.folder} elsewhere"
            )
        self._known: dict[Path, Digests] = {}
        self.refresh()

    def refresh(self, first: Path | None = None) -> None:
        """Read the shards that were added since; of a text in two of them, the one in the folder `first` counts."""
        for path in sorted(set(self.folder.glob("*/*.safetensors")) - set(self._known)):
            try:
                self._known[path] = read_digests(path)
            except DAMAGE as error:
                discard(path, error)
        self.shards = sorted(self._known, key=lambda path: (path.parent != first, path))
        self._index = Index.of([self._known[path] for path in self.shards])

    def holds(self, digests: Digests) -> Bool[np.ndarray, " texts"]:
        """Which texts are in a shard?"""
        return self._index.find(digests).held

    def holds_texts(self, texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
        return self.holds(text_digests(texts))

    def plan(self, texts: Sequence[str]) -> Plan:
        """How the distinct `texts` that no shard holds are cut into shards: the same for all who ask at the same time.

        The first one to ask writes the plan down; whoever asks later follows it, also after a kill.
        """
        digests = text_digests(texts)
        folder = self.folder / named(digests)
        path = folder / "plan.npy"
        numbers = {digest.tobytes(): number for number, digest in enumerate(digests)}
        with locked(self.folder / "lock"):
            self.refresh()
            planned = [numbers[digest] for digest in _planned(path) if digest in numbers]
            missing = set(np.flatnonzero(~self.holds(digests)).tolist())
            if missing - set(planned):
                planned = ordered(texts, missing, self.alphabetical)
                write_array(path, digests[planned])
        return Plan(self, folder, texts, digests, [planned[at : at + SHARD] for at in range(0, len(planned), SHARD)])

    def gathered(self, digests: Digests, path: Path, first: Path | None = None) -> Encoded:
        """What the shards hold for texts, all of which they must have; the vectors are a new memory map at `path`.

        Of a text in two shards, the one in the folder `first` counts. A shard that turns out to be damaged is deleted,
        and DamagedShard raised: what it held must be encoded again.
        """
        self.refresh(first)
        places = self._index.find(digests)
        if not places.held.all():
            missing = np.count_nonzero(~places.held)
            raise UserError(f"{self.folder}: {missing} texts were not encoded; run the same command again")
        tokens, truncated = np.empty(len(digests), dtype=np.int32), np.empty(len(digests), dtype=bool)
        vectors: Any = None
        order = np.argsort(places.shard, kind="stable")
        for mine in np.split(order, np.flatnonzero(np.diff(places.shard[order])) + 1):
            content, rows = self._content(self.shards[places.shard[mine[0]]]), places.row[mine]
            if vectors is None:
                vectors = new_memory_map(path, (len(digests), content.vectors.shape[1]), np.float16)
            vectors[mine], tokens[mine], truncated[mine] = (part[rows] for part in content)
        return Encoded(vectors, tokens, truncated)

    def _content(self, shard: Path) -> Encoded:
        try:
            return read_shard(shard)[1]
        except DAMAGE as error:
            del self._known[shard]
            discard(shard, error)
            raise DamagedShard(f"{shard}: damaged; run the same command again") from None


class Plan:
    """The texts that were missing when the plan was made, in the store's order, cut into shards."""

    def __init__(
        self, store: Store, folder: Path, texts: Sequence[str], digests: Digests, shards: list[list[int]]
    ) -> None:
        self.store, self.folder, self.texts, self.digests, self.shards = store, folder, texts, digests, shards

    def path(self, number: int) -> Path:
        """The shard's file, named by its texts, so that in no two plans it means different ones."""
        return self.folder / f"{named(self.digests[self.shards[number]])}.safetensors"

    def pending(self) -> list[int]:
        """Shards with a text that is in none, last first: the longest texts show at once whether memory suffices."""
        return [
            number
            for number in reversed(range(len(self.shards)))
            if not self.store.holds(self.digests[self.shards[number]]).all()
        ]

    def texts_of(self, number: int) -> list[str]:
        return [self.texts[text] for text in self.shards[number]]

    def characters(self, numbers: Sequence[int]) -> int:
        return sum(len(self.texts[text]) for number in numbers for text in self.shards[number])

    def claims(self, rank: int = 0, ranks: int = 1) -> Iterator[Claim]:
        """Pending shards that no other process has claimed, this one's share of them first; each is now claimed."""
        pending = self.pending()
        mine = set(pending[rank::ranks])
        for number in sorted(pending, key=lambda number: (number not in mine, -number)):
            if claim := claimed(self.path(number), self.texts_of(number), wait=False):
                yield claim

    def left_over(self) -> Iterator[Claim]:
        """Pending shards whose process has died; waits for those that others are still working on.

        Hold no claim meanwhile, or two processes could wait for each other.
        """
        self.store.refresh()
        for number in self.pending():
            if claim := claimed(self.path(number), self.texts_of(number), wait=True):
                yield claim


class Claim:
    """The right to write one shard, until it is written or given up."""

    def __init__(self, path: Path, texts: list[str], lock: IO[str]) -> None:
        self.path, self.texts, self._lock = path, texts, lock

    def write(self, content: Encoded) -> None:
        write_shard(self.path, text_digests(self.texts), content)
        self.release()

    def release(self) -> None:
        self._lock.close()


def claimed(path: Path, texts: list[str], wait: bool) -> Claim | None:
    """The claim of a shard; None if it is there already, or without `wait` if another process has claimed it."""
    if path.exists():
        return None
    lock = open(path.with_suffix(".lock"), "a")  # noqa: SIM115  # the claim closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        lock.close()
        return None
    if path.exists():  # written while this one waited
        lock.close()
        return None
    return Claim(path, texts, lock)


def write_shard(path: Path, digests: Digests, content: Encoded) -> None:
    """Write a shard whole or not at all; its bytes depend on nothing but its content."""
    tensors = {"digests": digests, "vectors": content.vectors, "tokens": content.tokens, "truncated": content.truncated}
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        sums = f"{checksum(tensors)} {checksum({'digests': digests})}"  # two entries would stand in random order
        safetensors.numpy.save_file(tensors, temporary, metadata={"checksums": sums})


def read_shard(path: Path) -> tuple[Digests, Encoded]:
    """The digests and the content of a shard; raises one of DAMAGE where the file is not as it was written."""
    with safetensors.safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        if not (file.metadata() or {}).get("checksums", "").startswith(checksum(tensors)):
            raise ValueError("wrong checksum")
    return tensors["digests"], Encoded(tensors["vectors"], tensors["tokens"], tensors["truncated"])


def read_digests(path: Path) -> Digests:
    """The digests of a shard alone, since a store may be larger than the memory; raises as `read_shard` does."""
    with safetensors.safe_open(path, framework="np") as file:
        digests: Digests = file.get_tensor("digests")
        if not (file.metadata() or {}).get("checksums", "").endswith(checksum({"digests": digests})):
            raise ValueError("wrong checksum")
    return digests


def checksum(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape} {tensors[name].dtype}".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()
