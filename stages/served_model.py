"""The model that MLflow logs, as models-from-code: histories of item ids in, top-k items with scores out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array

SIGNATURE = ModelSignature(
    inputs=Schema(
        [ColSpec(Array(DataType.string), "history"), ColSpec(Array(DataType.string), "titles", required=False)]
    ),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "items"),
            ColSpec(Array(DataType.string), "titles"),
            ColSpec(Array(DataType.double), "scores"),
        ]
    ),
    params=ParamSchema([ParamSpec("k", DataType.integer, 10), ParamSpec("exclude_seen", DataType.boolean, True)]),
)


class ServedModel(PythonModel):
    """`predict` takes a frame with a column `history` (raw item ids, oldest first) and, if wanted, `titles`."""

    def load_context(self, context: Any) -> None:
        from iadsr.encode.encoders.interface import KINDS
        from iadsr.serving import Server

        folder = Path(context.artifacts["recommender"])
        described = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        encoder = KINDS[described["kind"]].model_validate(described) if described else None
        self.server = Server(folder, folder / "items.parquet", encoder, folder / "items.npy")

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        params = params or {}
        titles = list(model_input["titles"]) if "titles" in model_input else None
        lists = self.server.recommend(
            [list(row) for row in model_input["history"]],
            params.get("k", 10),
            params.get("exclude_seen", True),
            [None if row is None else list(row) for row in titles] if titles else None,
        )
        return pd.DataFrame(
            {
                "items": [[entry.item for entry in row] for row in lists],
                "titles": [[entry.title for entry in row] for row in lists],
                "scores": [[entry.score for entry in row] for row in lists],
            }
        )


set_model(ServedModel())
