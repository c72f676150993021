"""The model that MLflow logs, as models-from-code: histories of item ids in, the best items or verdicts out."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType, Array

# Any type, and no column required: what MLflow would refuse in words of its own, and with it a whole batch, `predict`
# answers row by row, or in one sentence.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(AnyType(), "history", required=False), ColSpec(AnyType(), "titles", required=False)]),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "items"),
            ColSpec(Array(DataType.string), "titles"),
            ColSpec(Array(DataType.double), "scores"),
            ColSpec(DataType.string, "note"),
        ]
    ),
    params=ParamSchema(
        [
            ParamSpec("k", DataType.long, 10),
            ParamSpec("exclude_seen", DataType.boolean, True),
            ParamSpec("unknown", DataType.string, "skip"),
            ParamSpec("exact", DataType.boolean, False),
            ParamSpec("task", DataType.string, "recommend"),
        ]
    ),
)
EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "k": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "exclude_seen": (lambda value: isinstance(value, bool), "true or false"),
    "exact": (lambda value: isinstance(value, bool), "true or false"),
    "unknown": (lambda value: value in ("skip", "fail"), "'skip' or 'fail'"),
    "task": (lambda value: value in ("recommend", "denoise"), "'recommend' or 'denoise'"),
}


class Refused(MlflowException):
    """A request that cannot be answered: status 400, with our sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, INVALID_PARAMETER_VALUE)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        """The sentence alone; the scoring server puts the whole request before `message`."""
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class ServedModel(PythonModel):
    """`predict` takes a frame with a column `history` (raw item ids, oldest first) and, if wanted, `titles`.

    A row that cannot be answered has empty lists and a `note`. `unknown` tells what becomes of items that the model
    does not know: "skip", or "fail", which refuses the request. Unless `exact`, a request has a limited number of texts
    encoded, and a note says where that left a verdict to an estimate.

    With `task` "denoise" a model that was trained with cloze answers with verdicts on each history's items instead:
    `noise_probability` (null where an item is not judged), `keep` and `reason`; titles and the other parameters then do
    nothing.
    """

    def load_context(self, context: Any) -> None:
        from iadsr.device import fastest_threads, set_threads
        from iadsr.encode.encoders.interface import KINDS
        from iadsr.serving.screen import Screen
        from iadsr.serving.server import Server

        check_params_ourselves()
        set_threads(fastest_threads())
        folder = Path(context.artifacts["recommender"])
        described = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        encoder = KINDS[described["kind"]].model_validate(described) if described else None
        screen = Screen.load(folder / "screen.safetensors") if (folder / "screen.safetensors").exists() else None
        self.folder = folder
        self.server = Server(folder, folder / "items.parquet", encoder, folder / "items.npy", screen)
        self.server.warm_up()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        from iadsr.errors import UserError
        from iadsr.serving.limits import check_limits

        settings = checked(params)
        if "history" not in model_input:
            raise Refused("no column 'history'; give each row a list of item ids, oldest first, under that name")
        histories = list(model_input["history"])
        titles = list(model_input["titles"]) if "titles" in model_input else None
        try:
            check_limits(histories, titles)
            if settings.pop("task") == "denoise":
                return self.denoised(histories).set_axis(model_input.index)
            answers = self.server.recommend(histories, titles=titles, **settings)
        except UserError as error:
            raise Refused(str(error)) from None
        return pd.DataFrame(
            {
                "items": [[entry.item for entry in answer.items] for answer in answers],
                "titles": [[entry.title for entry in answer.items] for answer in answers],
                "scores": [[entry.score for entry in answer.items] for answer in answers],
                "note": [answer.note for answer in answers],
            },
            index=model_input.index,
        )

    def denoised(self, histories: list[Any]) -> pd.DataFrame:
        """A row of verdicts for each history; UserError for a model without a detector."""
        answers = self.judge.histories(histories)
        return pd.DataFrame(
            {
                "noise_probability": [answer.noise for answer in answers],
                "keep": [answer.keep for answer in answers],
                "reason": [answer.reasons for answer in answers],
                "note": [answer.note for answer in answers],
            }
        )

    @functools.cached_property
    def judge(self) -> Any:
        from iadsr.serving.judge import Judge

        return Judge.opened(self.folder, self.folder / "items.parquet", self.folder / "users.parquet")


def checked(params: dict[str, Any] | None) -> dict[str, Any]:
    """The parameters of a request, with defaults; `Refused` for unknown ones and wrong values."""
    given = params or {}
    if not isinstance(given, dict):
        raise Refused(f"params: expected an object, as {{'k': 5}}, found {given!r}")
    found = {spec.name: spec.default for spec in SIGNATURE.params.params}
    for name, value in given.items():
        if name not in EXPECTED:
            raise Refused(f"params: no parameter {name!r}; there are {', '.join(EXPECTED)}")
        fits, expected = EXPECTED[name]
        if value is not None:
            if not fits(value):
                raise Refused(f"params: {name}: expected {expected}, found {value!r:.40}")
            found[name] = value
    return found


def check_params_ourselves() -> None:
    """Have this model's parameters checked by `checked` before MLflow's check, which ignores unknown names.

    MLflow checks them before `predict` is called and offers no way to word that. A version without this function goes
    on as it does: then wrong parameters are refused in its words.
    """
    module: Any = importlib.import_module("mlflow.pyfunc")  # the attribute of mlflow is not the module itself
    theirs = getattr(module, "_enforce_params_schema", None)
    if theirs is None or hasattr(theirs, "of_iadsr"):
        return

    @functools.wraps(theirs)
    def ours(params: Any, schema: Any) -> Any:
        return checked(params) if schema == SIGNATURE.params else theirs(params, schema)

    ours.of_iadsr = True  # type: ignore[attr-defined]  # so that a second model in the process wraps it no more
    module._enforce_params_schema = ours


set_model(ServedModel())
