"""The commands on a tiny demo, beside a peer that is a script of a few lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from same_process import Here
from small_models import write_means
from typer.testing import CliRunner, Result

from benchmarks import convergence, evaluation, growth, machine, prepared, processes, results, training
from benchmarks.ingest import Cost
from benchmarks.peer import write_log
from iadsr.artifacts import write_json
from iadsr.models.ranking import METRICS, PROTOCOLS, metric_name
from iadsr.sequences.windows import read_sequences
from stages import paths

ROOT = Path(__file__).parents[2]
TINY = ("datasets.demo.source.users=80", "datasets.demo.source.items=60", "backbones.gru4rec.hidden=8")
PEER = """import json, os, sys
os.mkdir("log_tensorboard")
print("loading")
print(json.dumps({"examples_per_second": 0.5, "users_per_second": 4.0, "asked": sys.argv[1:]}))
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests of this file share what the stages have made."""
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, data: Path, one_thread: None) -> None:
    """In this process, with small matrices, away from the repository's cache."""
    for module in (training, evaluation, growth, results):
        monkeypatch.setattr(module, "Child", Here)
    monkeypatch.setattr(machine, "SIZES", {"cpu": 64, "cuda": 64, "mps": 64})
    monkeypatch.setattr(prepared, "CACHE", data)


@pytest.fixture
def peer(tmp_path: Path) -> Path:
    path = tmp_path / "peer.py"
    path.write_text(PEER, encoding="utf-8")
    return path


def run(command: Any, *options: str) -> Result:
    changes = [word for change in TINY for word in ("--set", change)]
    arguments = [*changes, "--dim", "8", "--threads", "1", *options]
    return CliRunner().invoke(command.app, arguments)


def measured(command: Any, *options: str) -> dict[str, Any]:
    result = run(command, "--json", *options)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_training_beside_a_peer(quick: None, peer: Path) -> None:
    """Every field is there, the ratio is ours over the peer's 0.5, and `one_pass` times `the_rest` is the ratio."""
    found = measured(training, "--epochs", "2", "--per-prefix", "--peer", sys.executable, "--peer-script", str(peer))
    assert found["dataset"] == "demo" and found["settings"]["train"]["dim"] == 8 and found["threads"] == 1
    assert found["device"] == "cpu" and found["cpu"] and found["torch"]
    assert [row["epoch"] for row in found["epochs"]] == [0, 1, 2] and found["epochs"][1]["loss_ce"] > 0
    assert found["epoch_seconds"] == min(row["seconds"] for row in found["epochs"][1:])
    assert 0 < found["padding_share"] < 1 and found["peak_memory_bytes"] > 2**24
    assert found["multiply_adds"]["loss"] > 0 and found["matrix_rate"]["float32"] > 0 and found["peak_fraction"] > 0
    assert found["ratio"] == pytest.approx(found["examples_per_second"] / 0.5, rel=1e-2)
    assert found["one_pass"] * found["the_rest"] == pytest.approx(found["ratio"], rel=1e-2)
    asked = found["peer"]["asked"]
    assert not Path("log_tensorboard").exists()
    assert asked[2:8] == ["--dataset", "demo", "--model", "GRU4Rec", "--threads", "1"]


def test_the_log_that_a_peer_reads(tmp_path: Path) -> None:
    """Positions stand for times, so that every framework splits as we do."""
    rows = {"user": [0, 0, 1], "item": [7, 9, 7], "position": [0, 1, 0], "timestamp": [5, 5, 1]}
    pl.DataFrame(rows).write_parquet(tmp_path / "sequences.parquet")
    write_log(tmp_path / "d" / "d.inter", tmp_path / "sequences.parquet")
    written = (tmp_path / "d" / "d.inter").read_text().splitlines()
    assert written == ["user_id:token\titem_id:token\ttimestamp:float", "0\t7\t0", "0\t9\t1", "1\t7\t0"]


def test_iadsr_takes_turns_with_its_backbone(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One ratio an epoch; the texts are encoded by a tiny stand-in, for the encoder is not what is timed."""
    monkeypatch.setattr(prepared, "make", made_with_random_vectors(prepared.make))
    found = measured(training, "--denoiser", "iadsr", "--epochs", "2")
    assert len(found["over_plain_epochs"]) == len(found["plain_epoch_seconds"]) == 2 and found["over_plain"] > 0
    assert found["settings"]["theta"] == -0.9 and "drop_rate" in found["epochs"][1]
    assert set(found["multiply_adds"]) == {"loss", "encoder", "alignment"}


@pytest.mark.parametrize(("denoiser", "backbone"), [("adt", "gru4rec"), ("dcrec", "none")])
def test_work_that_is_not_counted_has_no_peak(denoiser: str, backbone: str, quick: None) -> None:
    """Nor has it a theta; the rest is there, in JSON as in words. A model without backbone is timed beside SASRec."""
    found = measured(training, "--denoiser", denoiser, "--backbone", backbone, "--epochs", "1")
    assert not {"multiply_adds", "matrix_rate", "peak_fraction"} & set(found) and found["examples_per_second"] > 0
    assert found["settings"].keys() == {"train", f"backbones.{backbone}", denoiser}
    assert found["over_plain"] > 0
    words = results.in_words(found, "examples_per_second")
    assert "peak memory" in words and "rate of" not in words


def test_epochs_over_some_users(quick: None) -> None:
    """Of the first ten users there are fewer examples than of all, and all are those of a plain epoch."""
    some, every = (measured(training, "--epochs", "1", *more) for more in (("--users", "10"), ("--users", "10000")))
    assert 10 <= some["examples"] < every["examples"] == measured(training, "--epochs", "1")["examples"]


def made_with_random_vectors(make: Callable[..., None]) -> Callable[..., None]:
    def replacement(folder: Path, content: dict[str, Any], stages: list[str]) -> None:
        make(folder, content, [stage for stage in stages if stage != "encode"])
        write_means(folder / paths.ENCODED, read_sequences(folder / paths.SEQUENCES), 20)

    return replacement


def test_evaluation_beside_a_peer(quick: None, peer: Path) -> None:
    found = measured(evaluation, "--repeats", "2", "--peer", sys.executable, "--peer-script", str(peer))
    assert found["evaluation_seconds"] == min(found["repeats"]) and found["users"] <= 80
    assert found["ratio"] == pytest.approx(found["users_per_second"] / 4, rel=1e-2)
    assert set(found["multiply_adds"]) == {"scores", "encoder"} and found["matrix_dtype"] == "float32"


def test_words_for_a_person(quick: None) -> None:
    result = run(evaluation, "--repeats", "1")
    assert result.exit_code == 0 and "users a second" in result.stdout and "peak memory" in result.stdout


def test_growth_as_a_table_a_file_and_a_picture(quick: None, tmp_path: Path) -> None:
    output, picture = tmp_path / "growth.json", tmp_path / "docs" / "growth.png"
    sizes = ("--users", "40", "--items", "30", "--times", "1,2", "--catalogues", "30,60", "--batch-size", "8")
    result = run(growth, *sizes, "--output", str(output), "--picture", str(picture))
    assert result.exit_code == 0, result.output
    points = json.loads(output.read_text(encoding="utf-8"))["points"]
    assert [(point["users"], point["items"]) for point in points] == [(40, 30), (80, 30), (40, 30), (40, 60)]
    assert all(point["epoch_seconds"] > 0 and point["measured_share"] == 1 for point in points)
    assert len(result.stdout.splitlines()) == 6 and result.stdout.startswith("| grows |")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_data_sets_are_made_once(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same parameters find the folder again; another seed of the demo, or code that changed, does not."""
    content = prepared.parameters({"dataset": "demo", "denoiser": "none"}, list(TINY))
    folder = prepared.prepared(content)
    monkeypatch.setattr(prepared, "make", lambda *_: pytest.fail("made again"))
    assert prepared.prepared(content) == folder
    prepared.change(content, "train.dim", 9)  # no stage of the data reads it
    assert prepared.prepared(content) == folder
    prepared.change(content, "datasets.demo.source.seed", 9)
    assert prepared.key(content, ["ingest", "filter"])[:12] not in folder.name


def test_the_denoiser_decides_whether_prefixes_are_there() -> None:
    """IADSR must not find the vectors of the text rule, whose items another such denoiser may share."""
    content = prepared.parameters({"dataset": "demo", "denoiser": "text_rule"}, [])
    alone, beside, shared = (
        prepared.key({**content, "denoiser": name}, ["filter", "encode"]) for name in ("text_rule", "iadsr", "adt")
    )
    assert alone == shared != beside


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--peer", "/no/such/python"), "--peer /no/such/python: expected the python of an environment"),
        (("--peer", sys.executable, "--peer-script", "/no/script.py"), "--peer-script /no/script.py: no such file"),
        (("--set", "train.dim"), "--set train.dim: expected KEY=VALUE"),
        (("--set", "train.dim={"), "--set train.dim={: not a value in YAML"),
        (("--set", "train.width=3"), "no parameter 'train.width'; train has:"),
        (("--backbone", "gru"), "unknown backbone 'gru'"),
        (("--denoiser", "iadsr", "--per-prefix"), "--per-prefix: measures a plain backbone"),
        (("--dataset", "files"), "--dataset: your own files cannot be measured"),
    ],
)
def test_mistakes_get_one_line(quick: None, options: tuple[str, ...], message: str) -> None:
    result = run(training, *options)
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_peer_that_fails_is_quoted(quick: None, tmp_path: Path) -> None:
    """Before anything of ours is timed."""
    script = tmp_path / "peer.py"
    script.write_text("raise SystemExit('invalid choice: demo')", encoding="utf-8")
    result = run(training, "--peer", sys.executable, "--peer-script", str(script))
    assert result.exit_code == 1 and "peer.py on demo ended with status 1 and said: invalid choice" in result.stderr


def test_a_stage_that_fails_is_named(quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its own message is above; nothing half made is left to be found the next time."""
    monkeypatch.setattr(prepared, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("IADSR_MIRROR", str(tmp_path))
    result = run(evaluation, "--dataset", "ml-100k")
    assert result.exit_code == 1 and "the stage ingest of data set ml-100k failed" in result.stderr
    assert os.listdir(tmp_path / "cache") == []


def test_the_command_in_processes_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is replaced but the cache: the peak of memory is that of the child, torch and all."""
    monkeypatch.setattr(prepared, "CACHE", data)
    monkeypatch.setattr(results, "open_rates", lambda content: Here(small_rates))
    found = measured(evaluation, "--repeats", "1")
    assert found["peak_memory_bytes"] > 2**26 and evaluation.Child is processes.Child


def small_rates() -> Iterator[dict[str, float]]:
    while True:
        yield {"float32": 1e9, "bfloat16": 1e9}


def test_convergence_alone_and_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are run as a user runs them; here they are replaced by what they leave behind."""
    ran: list[tuple[str, ...]] = []

    def run(workspace: Path, *arguments: str) -> Cost:
        ran.append(arguments)
        accuracies = [metric_name(name, 10, protocol, "test") for name in METRICS for protocol in PROTOCOLS]
        metrics = dict.fromkeys(("epochs", "best_epoch", *accuracies), 0.25)
        write_json(workspace / "metrics" / "details.json", metrics)
        (workspace / "models" / "seeds").mkdir(parents=True, exist_ok=True)
        write_json(workspace / "models" / "seeds" / "summary.json", {"mean": metrics, "std": metrics})
        return Cost(3.0, 3.0, 1)

    monkeypatch.setattr(convergence, "command", run)
    monkeypatch.setattr(convergence, "prepared", lambda content: tmp_path)
    result = convergence.measured(prepared.parameters({"dataset": "demo", "denoiser": "none"}, []), [4, 5])
    assert ran == [("stages.train",), ("stages.evaluate",), ("stages.train", "--seeds", "4,5")]
    assert result["alone"]["seed"] == 4 and result["alone"]["seconds"] == 3.0
    assert result["side_by_side"]["test_hr_10_filtered"] == {"mean": 0.25, "std": 0.25}
    assert result["gain"] == 4.0  # two times 3 s and 3 s, in 3 s
