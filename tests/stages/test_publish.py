"""What is sent to a hub: the files, the card, and that nothing is sent unless it is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from small_project import assert_one_error, change, invoke, succeed

from iadsr import load
from stages import paths
from stages.publish import FOLDER


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    """What reaches the hub."""
    calls: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo, **given: calls.append((repo, given)))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **given: calls.append((given["repo_id"], given)))
    return calls


def test_a_dry_run_writes_and_sends_nothing(copy: Path, sent: list[object]) -> None:
    result = invoke("publish", "--repo", "me/mine")
    assert result.exit_code == 0 and not sent
    assert {path.name for path in FOLDER.iterdir()} == {
        "README.md",
        "config.json",
        "items.parquet",
        "model.safetensors",
    }
    assert "dry run: nothing was sent" in result.stdout and str(FOLDER / "items.parquet") in result.stdout


def test_the_card_is_one_that_a_hub_reads(copy: Path) -> None:
    """Its metadata have the test metrics; its text says what there is and how to load it."""
    invoke("publish", "--repo", "me/mine")
    card = ModelCard.load(FOLDER / "README.md")
    details = json.loads(paths.DETAILS.read_text())
    assert card.data.library_name == "iadsr" and "iadsr" in card.data.tags
    values = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert values["ndcg_10_filtered"] == round(details["test_ndcg_10_filtered"], 4) and len(values) == 4
    assert 'load(snapshot_download("me/mine"))' in card.text and "model.denoise" not in card.text


def test_a_published_model_loads(copy: Path) -> None:
    """Away from the project, where everybody is a stranger."""
    change(denoiser="cloze", train__max_epochs=1)
    succeed("train", "evaluate")
    invoke("publish", "--repo", "me/mine")
    away = FOLDER.rename("away")
    here, there = load(paths.MODEL), load(away)
    items = [each.item for each in here.recommend(known(3), k=3)]
    assert [each.item for each in there.recommend(known(3), k=3)] == items
    assert "model.denoise(frame)" in (away / "README.md").read_text()


def known(count: int) -> list[str]:
    import polars as pl

    return pl.read_parquet(paths.ITEMS)["raw_item"].to_list()[:count]


def test_on_request_it_is_sent(copy: Path, sent: list[tuple[str, dict[str, object]]]) -> None:
    assert "sent to me/mine" in invoke("publish", "--repo", "me/mine", "--push").stdout
    assert [repo for repo, _ in sent] == ["me/mine", "me/mine"] and sent[0][1]["private"] is True


def test_a_refusal_is_one_line(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hub where nobody listens."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "secret")
    result = invoke("publish", "--repo", "me/mine", "--push")
    assert_one_error(result, "models/published is written, so the same command")
    assert "secret" not in result.stderr


@pytest.mark.parametrize("repo", ["mine", "/mine", "me/", "a/b/c"])
def test_a_wrong_name(copy: Path, repo: str) -> None:
    assert_one_error(invoke("publish", "--repo", repo), "expected OWNER/NAME")


def test_a_changed_model_is_not_published(copy: Path) -> None:
    with open(paths.MODEL / "model.safetensors", "ab") as file:
        file.write(b"x")
    assert invoke("publish", "--repo", "me/mine").exit_code == 1
    assert not FOLDER.exists()
