"""The store of vectors: whole shards or none, several processes at once, and what is damaged is found out."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from letters import Letters

from iadsr.encode import cache
from iadsr.encode.batches import Encoded
from iadsr.encode.cache import DamagedShard, Plan, Store, claimed, discard, read_shard, text_digests, write_shard
from iadsr.encode.fill import fill, releasing
from iadsr.errors import UserError

MANIFEST = Letters().identity
TEXTS = ["a", "bb", "ccc", "abcd", "dd", "ba"]


@pytest.fixture(autouse=True)
def shards_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "SHARD", 2)


def filled(folder: Path, texts: list[str] = TEXTS, encoder: Letters | None = None) -> Plan:
    plan = Store(folder, MANIFEST).plan(texts)
    fill(plan, encoder or Letters())
    return plan


def vectors(plan: Plan, folder: Path) -> list[list[float]]:
    return plan.store.gathered(plan.digests, folder / "vectors.npy").vectors.tolist()


def expected(texts: list[str] = TEXTS) -> list[list[float]]:
    encoder = Letters()
    return encoder.vectors(encoder.tokenize(texts)).tolist()


def test_shards_hold_what_was_encoded(tmp_path: Path) -> None:
    """Shortest first, two texts a shard; the manifest says of which encoder; in any order they come back."""
    plan = filled(tmp_path)
    assert [plan.texts_of(number) for number in range(3)] == [["a", "ba"], ["bb", "dd"], ["ccc", "abcd"]]
    assert vectors(plan, tmp_path) == expected()
    assert json.loads((plan.store.folder / "manifest.json").read_text()) == MANIFEST
    other = Store(tmp_path, MANIFEST).plan(["bb", "ccc"])
    assert other.shards == [] and vectors(other, tmp_path) == expected(["bb", "ccc"])


def test_digests_are_of_the_text_alone() -> None:
    """The first 16 bytes of its SHA-256; also of what is no valid text."""
    found = text_digests(["abc", "", "\ud800", "abc"])
    assert found[0].tobytes().hex() == "ba7816bf8f01cfea414140de5dae2223"
    assert np.array_equal(found[0], found[3]) and len(np.unique(found, axis=0)) == 3
    assert text_digests([]).shape == (0, 16)


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_shard_is_encoded_again(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = filled(tmp_path).path(1)
    good = path.read_bytes()
    path.write_bytes({"cut": good[:-3], "garbage": b"x" * 100, "empty": b""}[damage])
    encoder = Letters()
    plan = filled(tmp_path, encoder=encoder)
    assert f"{path}: damaged" in capsys.readouterr().err
    assert sorted(encoder.encoded) == ["bb", "dd"]
    assert path.read_bytes() == good and vectors(plan, tmp_path) == expected()


def test_a_damaged_shard_of_other_texts_too(tmp_path: Path) -> None:
    """The plan of the second data set was made when the shard of the first one was whole."""
    first = filled(tmp_path, ["a", "ba"])
    second = filled(tmp_path, ["a", "ba", "bb"])
    first.path(0).write_bytes(b"")
    encoder = Letters()
    again = filled(tmp_path, ["a", "ba", "bb"], encoder)
    assert encoder.encoded == ["a", "ba"] and len(second.shards) == len(again.shards) == 1
    assert vectors(again, tmp_path) == expected(["a", "ba", "bb"])


def test_damage_that_shows_only_at_the_end_is_mended_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bit of a vector flips, which opening a store does not look at: the shard goes, and is made again."""
    plan = filled(tmp_path)
    path = plan.path(1)
    good = path.read_bytes()
    at = good.index(read_shard(path)[1].vectors.tobytes())
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    store = Store(tmp_path, MANIFEST)
    with pytest.raises(DamagedShard, match="damaged; run the same command again"):
        store.gathered(plan.digests, tmp_path / "vectors.npy")
    assert not path.exists() and f"{path}: damaged; its texts are encoded again" in capsys.readouterr().err
    assert vectors(filled(tmp_path), tmp_path) == expected() and path.read_bytes() == good


def test_a_shard_that_another_process_has_mended_stays(tmp_path: Path) -> None:
    path = filled(tmp_path).path(0)
    discard(path, ValueError("what it was a moment ago"))
    assert path.exists()
    path.unlink()
    discard(path, FileNotFoundError())


def test_the_own_shard_counts_where_a_text_is_in_two(tmp_path: Path) -> None:
    """Two data sets that share `a` and were planned at the same time: each goes by what it wrote itself, ever after."""
    one, other = (Store(tmp_path, MANIFEST).plan(texts) for texts in (["a", "bb"], ["a", "ccc"]))
    fill(one, Letters())
    claim = claimed(other.path(0), other.texts_of(0), wait=False)
    assert claim is not None and claim.texts == ["a", "ccc"]
    claim.write(Encoded(np.full((2, 2), 9, np.float16), np.ones(2, np.int32), np.zeros(2, bool)))
    for plan, value in ((one, 1), (other, 9)):
        for _ in range(2):
            again = Store(tmp_path, MANIFEST)
            found = again.gathered(plan.digests, tmp_path / "vectors.npy", again.plan(list(plan.texts)).folder)
            assert found.vectors[0].tolist() == [value, value]


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_an_unreadable_plan_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    folder = Store(tmp_path, MANIFEST).plan(TEXTS).folder
    if content is None:
        np.save(folder / "plan.npy", text_digests(["of", "others"]))
    else:
        (folder / "plan.npy").write_bytes(content)
    assert vectors(filled(tmp_path), tmp_path) == expected()


@pytest.mark.parametrize("content", ["", "[]", "[" * 10**5])
def test_an_unreadable_manifest_is_written_again(tmp_path: Path, content: str) -> None:
    path = Store(tmp_path, MANIFEST).folder / "manifest.json"
    path.write_text(content)
    Store(tmp_path, MANIFEST)
    assert json.loads(path.read_text()) == MANIFEST


def test_a_manifest_of_another_encoder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, MANIFEST)
    (store.folder / "manifest.json").write_text(json.dumps(MANIFEST | {"dtype": "bfloat16"}))
    with pytest.raises(UserError, match=r"manifest.json: of another encoder \(dtype differ\).* move the folder"):
        Store(tmp_path, MANIFEST)
    assert Store(tmp_path, MANIFEST | {"dtype": "other"}).folder != store.folder


def test_what_is_missing_at_the_end_is_an_error(tmp_path: Path) -> None:
    plan = Store(tmp_path, MANIFEST).plan(TEXTS)
    with pytest.raises(UserError, match="6 texts were not encoded; run the same command again"):
        vectors(plan, tmp_path)


def test_the_bytes_of_a_shard_depend_on_its_content_alone(tmp_path: Path) -> None:
    one, other = filled(tmp_path / "one"), filled(tmp_path / "other")
    for number in range(3):
        assert one.path(number).read_bytes() == other.path(number).read_bytes()
    digests, content = read_shard(one.path(0))
    write_shard(tmp_path / "again.safetensors", digests, content)
    assert (tmp_path / "again.safetensors").read_bytes() == one.path(0).read_bytes()


# --- several processes ---


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_ranks_share_the_shards(tmp_path: Path, ranks: int) -> None:
    """Each takes its own share first, longest texts first; the first rank finds nothing left."""
    orders = []
    for rank in range(ranks):
        plan = Store(tmp_path, MANIFEST).plan(TEXTS)
        with releasing() as held:
            held += plan.claims(rank, ranks)
            orders.append([claim.texts[-1] for claim in held])
    assert [order[0] for order in orders[:2]] == ["abcd", "dd"]
    encoders = [Letters() for _ in range(ranks)]
    for rank in reversed(range(ranks)):
        fill(Store(tmp_path, MANIFEST).plan(TEXTS), encoders[rank], rank, ranks)
    assert sorted(text for encoder in encoders for text in encoder.encoded) == sorted(TEXTS)
    assert vectors(Store(tmp_path, MANIFEST).plan(TEXTS), tmp_path) == expected()


def test_a_claim_is_exclusive_until_it_is_released(tmp_path: Path) -> None:
    plan = Store(tmp_path, MANIFEST).plan(TEXTS)
    first = claimed(plan.path(0), plan.texts_of(0), wait=False)
    assert first is not None and claimed(plan.path(0), plan.texts_of(0), wait=False) is None
    first.release()
    second = claimed(plan.path(0), plan.texts_of(0), wait=False)
    assert second is not None
    second.release()


def slowly(folder: Path, seconds: float, texts: list[str]) -> None:
    """A process that fills the store, so many seconds a batch."""

    class Slow(Letters):
        def vectors(self, batch: Any) -> Any:
            time.sleep(seconds)
            return super().vectors(batch)

    cache.SHARD = 2
    plan = Store(folder, MANIFEST).plan(texts)
    fill(plan, Slow())


def started(folder: Path, seconds: float) -> multiprocessing.process.BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=slowly, args=(folder, seconds, TEXTS))
    process.start()
    return process


def test_two_processes_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    both = [started(tmp_path, 0.2) for _ in range(2)]
    for process in both:
        process.join(30)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(tmp_path.glob("*/*/*.safetensors"))) == 3
    assert vectors(Store(tmp_path, MANIFEST).plan(TEXTS), tmp_path) == expected()


def test_the_shard_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    """It is killed in its first batch, with two claims; no shard is half-written, and all are encoded by the next."""
    process = started(tmp_path, 60.0)
    while not list(tmp_path.glob("*/*/*.lock")):
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    encoder = Letters()
    assert vectors(filled(tmp_path, encoder=encoder), tmp_path) == expected()
    assert sorted(encoder.encoded) == sorted(TEXTS)
