"""Encoding by a pool of Ray actors, each with the encoder loaded once; needs the extra `cluster`.

The driver writes the texts of each shard to a Parquet file beside the shards, and a Ray Data pipeline hands the files
out. An actor writes its shard itself, with the code and so the bytes of the engine `local`. If an actor dies, Ray
starts another and gives it the file again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

import iadsr
from iadsr.artifacts import replacing
from iadsr.device import pick_device, pick_dtype, set_threads
from iadsr.encoding import Recipe, Source, Weights, finish, releasing
from iadsr.errors import UserError
from iadsr.vector_store import Plan, claimed

TEXT = "text"


class ShardEncoder:
    """What an actor does: one shard after another."""

    def __init__(self, recipe: Recipe, identity: dict[str, Any]) -> None:
        """UserError where this node would compute other vectors than the driver expects."""
        set_threads(recipe.settings.threads, "encode.threads")
        device = pick_device(recipe.settings.device, "encode.device")
        self.source = Weights(recipe, device, pick_dtype(recipe.settings.dtype, device))
        differing = [key for key, value in identity.items() if self.source.identity[key] != value]
        if differing:
            raise UserError(
                f"a node of the cluster has another encoder than the driver ({', '.join(differing)} differ); install "
                "the same packages and use one copy of the weights, and set encode.device and encode.dtype"
            )
        self.budget = self.source.budget()

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encode the texts of each Parquet file, unless the shard beside it is there already."""
        for path in map(Path, batch["path"].tolist()):
            texts = pyarrow.parquet.read_table(path)[TEXT].to_pylist()
            with releasing() as held:
                claim = claimed(path.with_suffix(".safetensors"), texts, wait=True)
                if claim is not None:
                    held.append(claim)
                    finish(claim, self.source, self.budget)
        return batch


class RayEngine:
    """The engine `ray`: on the cluster of RAY_ADDRESS, without that on this machine alone."""

    def __init__(self, recipe: Recipe, actor: type[ShardEncoder] = ShardEncoder) -> None:
        self.recipe, self.actor = recipe, actor

    def __call__(self, plan: Plan, source: Source) -> None:
        """Returns when all shards are there; UserError where Ray is missing or has no room for an actor."""
        if not (pending := plan.pending()):
            return
        ray = _ray()
        if not ray.is_initialized():
            ray.init(runtime_env={"env_vars": {"PYTHONPATH": _import_path()}}, log_to_driver=False)
        gpu = source.identity["device"] == "cuda"
        total = ray.cluster_resources()
        most = int(total.get("GPU" if gpu else "CPU", 0))
        actors = min(self.recipe.settings.actors or (most if gpu else len(ray.nodes())), len(pending))
        if actors > most:
            raise UserError(
                f"params.yaml: encode.actors: {actors}, but the cluster has {most} {'GPU' if gpu else 'CPU'}s"
            )
        files = [{"path": str(_write_texts(plan, number))} for number in pending]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        done = ray.data.from_items(files, override_num_blocks=len(files)).map_batches(
            self.actor,
            fn_constructor_kwargs={"recipe": self.recipe, "identity": source.identity},
            batch_size=1,
            concurrency=actors,
            num_cpus=1,
            num_gpus=1 if gpu else 0,
        )
        try:
            done.materialize()
        except ray.exceptions.RayError as error:
            if isinstance(cause := getattr(error, "cause", None) or error.__cause__, UserError):
                raise cause from None
            raise
        for file in files:
            Path(file["path"]).unlink(missing_ok=True)


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
