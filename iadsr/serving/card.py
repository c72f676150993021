"""The model card: what a model is, what it was trained on, how good it is, and what it is not for."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from iadsr.models.config import ModelConfig
from iadsr.models.ranking import headlines

TASK = "sequential-recommendation"
TEXT = """
# {name}

{what} It was trained with the package iadsr, and needs it.

```python
from huggingface_hub import snapshot_download
from iadsr import load

model = load(snapshot_download("{repo}"))
model.recommend(["ITEM", "ITEM"], k=10)   # raw ids, oldest first
{denoise}```

## Data and protocol

Data set `{dataset}`: {users:,} users, {items:,} items, {interactions:,} interactions{planted}; {removed:,} more were
left out, of users or items that are too rare, or repeated. Each user's last item is the test, the one before it
validation, and the rest was trained on. Every item of the catalogue is ranked; unfiltered: also those that the user has
had before.

## Accuracy

| test metric | value |
|---|---|
{metrics}

One training, seed {seed}, best epoch {best} of {epochs} by validation NDCG@10.{noise}

## Intended use and limits

- It ranks items of this catalogue for histories of these items; others it skips.
- Nothing is known of how it treats groups of people. What was seldom bought is seldom recommended.
- Numbers are of held-out items of the past. They say little of what people will do when they see recommendations.
- `items.parquet` holds the ids and titles of the whole catalogue.
{limits}"""
JUDGES = """\
model.denoise(frame)                      # user, item, timestamp -> noise_probability, keep, reason
"""
LIMITS = """\
- What counts as noise is what does not fit the rest of a history. It is not what people dislike, and rare tastes look
  like noise, too.
"""


def model_card(config: ModelConfig, dataset: dict[str, Any], removed: int, details: dict[str, Any], repo: str) -> str:
    """In the hub's format: metadata, which a hub shows and searches, and text."""
    name = name_of(config)
    shown = headlines(details)
    text = TEXT.format(
        name=f"{config.dataset}: {name}",
        what=f"A next-item recommender: {name}.",
        repo=repo,
        denoise=JUDGES if config.denoiser == "cloze" else "",
        dataset=config.dataset,
        users=dataset["users"],
        items=dataset["items"],
        interactions=dataset["interactions"],
        removed=removed,
        planted=f", {dataset['planted_interactions']:,} of them planted noise"
        if dataset["planted_interactions"]
        else "",
        metrics="\n".join(f"| {in_words(each)} | {details[each]:.4f} |" for each in shown),
        seed=config.seed,
        best=config.best_epoch,
        epochs=config.epochs,
        noise=of_noise(details),
        limits=LIMITS if config.denoiser == "cloze" else "",
    )
    return f"---\n{metadata(config, details, shown).to_yaml()}\n---\n{text}"


def name_of(config: ModelConfig) -> str:
    """
    >>> parts = dict(dataset="d", backbone_params={}, denoiser_params={}, user_count=1, item_count=1, dim=1)
    >>> pairs = (("sasrec", "none"), ("sasrec", "cloze"), ("none", "dcrec"))
    >>> [name_of(ModelConfig(backbone=a, denoiser=b, max_length=1, seed=0, **parts)) for a, b in pairs]
    ['sasrec', 'sasrec, denoised by cloze', 'dcrec']
    """
    if "none" in (config.backbone, config.denoiser):
        return config.denoiser if config.backbone == "none" else config.backbone
    return f"{config.backbone}, denoised by {config.denoiser}"


def metadata(config: ModelConfig, details: dict[str, Any], shown: list[str]) -> ModelCardData:
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type=config.dataset,
            dataset_name=config.dataset,
            metric_type=each.removeprefix("test_"),
            metric_name=in_words(each),
            metric_value=round(details[each], 4),
        )
        for each in shown
    ]
    tags = [TASK, "recommendation", "denoising", config.backbone, config.denoiser]
    return ModelCardData(library_name="iadsr", tags=tags, model_name=f"iadsr-{config.dataset}", eval_results=results)


def in_words(metric: str) -> str:
    """
    >>> in_words("test_ndcg_10_unfiltered")
    'NDCG@10, unfiltered'
    """
    name, cutoff, protocol = metric.removeprefix("test_").split("_")
    return f"{name.upper()}@{cutoff}, {protocol}"


def of_noise(details: dict[str, Any]) -> str:
    if "noise_auc" not in details:
        return ""
    return (
        f"\n\n{details['noise_share']:.0%} of the training interactions are known noise, of which training did not "
        f"know: AUC of the scores {details['noise_auc']:.3f}, dropped with precision {details['noise_precision']:.2f} "
        f"at recall {details['noise_recall']:.2f}."
    )
