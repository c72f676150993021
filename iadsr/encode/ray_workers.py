"""Encoding by a pool of Ray actors, each with the encoder loaded once; needs the extra `cluster`.

The driver writes the texts of each shard to a Parquet file beside the shards, and a Ray Data pipeline hands the files
out. An actor writes its shard itself, with the same code and so the same bytes as the engine `local`. If an actor dies,
Ray starts another and gives it the file again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

import iadsr
from iadsr.artifacts import replacing
from iadsr.encode.cache import Plan, claimed
from iadsr.encode.fill import LazyEncoder, RecipeEncoder, finish, releasing
from iadsr.encode.launcher import Share
from iadsr.encode.recipe import Recipe
from iadsr.errors import UserError

TEXT = "text"


class ShardEncoder:
    """What an actor does: one shard after another."""

    def __init__(self, recipe: Recipe, identity: dict[str, Any]) -> None:
        self.recipe, self.identity = recipe, identity
        self.lazy: LazyEncoder | None = None

    def opened(self) -> LazyEncoder:
        """UserError where this node would compute other vectors than the driver expects."""
        if self.lazy is not None:
            return self.lazy
        lazy = RecipeEncoder.here(self.recipe, Share())
        differing = [key for key, value in self.identity.items() if lazy.identity[key] != value]
        if differing:
            raise UserError(
                f"a node of the cluster has another encoder than the driver ({', '.join(differing)} differ); install "
                "the same packages and use one copy of the weights, and set encode.device and encode.dtype"
            )
        self.lazy, self.budget = lazy, lazy.budget()
        return lazy

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode the texts of each Parquet file, unless the shard beside it is there; `error` is a user's, or empty."""
        return {"error": np.array([self.error_of(Path(path)) for path in batch["path"].tolist()], dtype=object)}

    def error_of(self, path: Path) -> str:
        try:
            lazy = self.opened()
            texts = pyarrow.parquet.read_table(path)[TEXT].to_pylist()
            with releasing() as held:
                claim = claimed(path.with_suffix(".safetensors"), texts, wait=True)
                if claim is not None:
                    held.append(claim)
                    finish(claim, lazy, self.budget)
        except UserError as error:
            return str(error)
        return ""


class RayEngine:
    """The engine `ray`: on the cluster of RAY_ADDRESS, or without that variable on this machine alone."""

    def __init__(self, recipe: Recipe, actor: type[ShardEncoder] = ShardEncoder) -> None:
        self.recipe, self.actor = recipe, actor

    def __call__(self, plan: Plan, lazy: LazyEncoder) -> None:
        """Returns when all shards are there; UserError where Ray is missing or has no room for an actor."""
        if not (pending := plan.pending()):
            return
        ray = _ray()
        if not ray.is_initialized():
            ray.init(runtime_env={"env_vars": {"PYTHONPATH": _import_path()}}, log_to_driver=False)
        gpu = lazy.identity["device"] == "cuda"
        kind = "GPU" if gpu else "CPU"
        most = int(ray.cluster_resources().get(kind, 0))
        cpus = [count for node in ray.nodes() if node["Alive"] and (count := int(node["Resources"].get("CPU", 0)))]
        actors = self.recipe.settings.actors or (most if gpu else len(cpus))
        if not 0 < actors <= most:
            raise UserError(f"params.yaml: encode.actors: {actors}, but the cluster has {most} {kind}s")
        threads = 1 if gpu else max(1, min([*cpus, most // actors]))
        files = [{"path": str(_write_texts(plan, number))} for number in pending]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = sys.stderr.isatty()
        work = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
            self.actor,
            fn_constructor_kwargs={"recipe": self.recipe, "identity": lazy.identity},
            batch_size=1,
            concurrency=min(actors, len(pending)),
            num_cpus=threads,
            num_gpus=1 if gpu else 0,
        )
        try:
            errors = [row["error"] for row in work.take_all() if row["error"]]
        finally:
            for file in files:
                Path(file["path"]).unlink(missing_ok=True)
        if errors:
            raise UserError(errors[0])


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        raise UserError("encode.engine: ray is not installed; `pip install -e '.[cluster]'`, or set local") from None
    return ray


def _import_path() -> str:
    here = str(Path(iadsr.__file__).parents[1])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))


def _write_texts(plan: Plan, number: int) -> Path:
    path = plan.path(number).with_suffix(".parquet").resolve()
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pa.table({TEXT: plan.texts_of(number)}), temporary)
    return path
