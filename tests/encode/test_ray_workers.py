"""The engine `ray` on a simulated cluster of two nodes: the bytes of the engine `local`, whatever dies meanwhile."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iadsr.artifacts import file_digest
from iadsr.encode import cache, ray_workers, write
from iadsr.encode.encoders.interface import TransformerEncoderParams
from iadsr.encode.fill import RecipeEncoder
from iadsr.encode.ray_workers import RayEngine, ShardEncoder
from iadsr.encode.recipe import EncodeParams, Recipe
from iadsr.encode.texts import Corpus
from iadsr.encode.write import write_encoded
from iadsr.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own code
USERS, LENGTH = 12, 6


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, beside a head that has none."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(write.__file__).parents[1]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
    import ray
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    for _ in range(2):
        found.add_node(num_cpus=1, object_store_memory=80 * 2**20)
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.fixture
def corpus() -> Corpus:
    """Histories of six items of twenty, the last one the test item."""
    random = np.random.default_rng(0)
    positions = np.tile(np.arange(LENGTH), USERS)
    titles = [f"title {number} {'x' * int(random.integers(1, 30))}" for number in range(20)]
    return Corpus(titles, random.integers(1, 21, USERS * LENGTH), positions, positions < LENGTH - 1)


def weights(model: str) -> tuple[Recipe, RecipeEncoder]:
    settings = EncodeParams.model_validate(
        {
            "prefixes": "joint", "separator": "; ", "batch_tokens": 64, "dtype": "float32", "device": "cpu",
            "threads": 1, "engine": "ray", "actors": 2,
        }
    )  # fmt: skip
    spec = TransformerEncoderParams(kind="transformer", model=model, max_tokens=48)
    recipe = Recipe("tiny", spec, settings, 4, "iadsr")
    return recipe, RecipeEncoder(recipe, torch.device("cpu"), torch.float32)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.rglob("*") if path.suffix in (".npy", ".safetensors")}


class Noting(ShardEncoder):
    """Leaves a file for each shard and node; an actor's process dies in the middle of its second shard, once."""

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        import ray

        (path,) = map(Path, batch["path"].tolist())
        notes = path.parents[2] / "notes"
        notes.mkdir(exist_ok=True)
        (notes / f"{path.stem}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()
        died = notes / "died"
        if not died.exists() and sum(note.name.endswith(f"-{os.getpid()}") for note in notes.iterdir()) == 2:
            died.write_text(path.stem)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def test_two_nodes_write_the_bytes_of_one_process(
    tiny_bert: str, corpus: Corpus, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor dies with a shard in its hands: the shard is done again by another, nothing is lost or doubled."""
    monkeypatch.setattr(cache, "SHARD", 8)
    recipe, source = weights(tiny_bert)
    local = write_encoded(tmp_path / "local", corpus, source, recipe, tmp_path / "here")
    there = write_encoded(tmp_path / "ray", corpus, source, recipe, tmp_path / "there", RayEngine(recipe, Noting))
    assert local == there and there.new_texts == there.counts.distinct_texts > 60
    assert digests(tmp_path / "local") == digests(tmp_path / "ray")
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    notes = [note.name for note in (tmp_path / "there/notes").iterdir()]
    seen = [note.split("-") for note in notes if note != "died"]
    shards = {path.stem for path in (tmp_path / "there").glob("*/*/*.safetensors")}
    assert {shard for shard, _, _ in seen} == shards and len(shards) == -(-there.new_texts // 8)
    assert len({node for _, node, _ in seen}) == 2
    dead = (tmp_path / "there/notes/died").read_text()
    assert len([shard for shard, _, _ in seen if shard == dead]) == 2
    assert not list((tmp_path / "there").glob("*/*/*.parquet"))


def test_nodes_with_another_encoder_are_refused(tiny_bert: str) -> None:
    recipe, source = weights(tiny_bert)
    ShardEncoder(recipe, source.identity).opened()
    with pytest.raises(UserError, match=r"another encoder than the driver \(weights differ\)"):
        ShardEncoder(recipe, source.identity | {"weights": "others"}).opened()


class Failing(ShardEncoder):
    def opened(self) -> Any:
        raise UserError("the vector of a text is not finite")


def test_an_error_of_an_actor_is_the_user_s(tiny_bert: str, corpus: Corpus, cluster: Any, tmp_path: Path) -> None:
    recipe, source = weights(tiny_bert)
    with pytest.raises(UserError, match=r"^the vector of a text is not finite$"):
        write_encoded(tmp_path / "out", corpus, source, recipe, tmp_path / "work", RayEngine(recipe, Failing))
    assert not list(tmp_path.rglob("*.parquet")) and not (tmp_path / "out").exists()


def test_more_actors_than_the_cluster_has_room_for(
    tiny_bert: str, corpus: Corpus, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "SHARD", 8)
    recipe, source = weights(tiny_bert)
    many = replace(recipe, settings=recipe.settings.model_copy(update={"actors": 3}))
    with pytest.raises(UserError, match=r"encode.actors: 3, but the cluster has 2 CPUs"):
        write_encoded(tmp_path / "out", corpus, source, many, tmp_path / "work", RayEngine(many))
    assert not (tmp_path / "out").exists()


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"encode.engine: ray is not installed; `pip install -e '.\[cluster\]'`"):
        ray_workers._ray()
