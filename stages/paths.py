"""Where the artifacts of each stage lie, relative to the project's root; dvc.yaml names the same files (tested)."""

from pathlib import Path


def project_root() -> Path:
    """The project's folder, also from within a seed's folder and from DVC's copies for queued experiments."""
    here = Path.cwd().resolve()
    if here.parent.parts[-len(SEEDS.parts) :] == SEEDS.parts:
        here = here.parents[len(SEEDS.parts)]
    copies = [parent for parent in here.parents if parent.name == ".dvc"]
    return copies[-1].parent if copies else here


PARAMS = Path("params.yaml")

WATCHED = Path("data/watched.json")

RAW = Path("data/raw")
RAW_INTERACTIONS = Path("data/raw/interactions.parquet")
RAW_ITEMS = Path("data/raw/items.parquet")
RAW_REJECTS = Path("data/raw/rejects.csv")
INGEST_METRICS = Path("metrics/ingest.json")

FILTERED = Path("data/filtered")
SEQUENCES = Path("data/filtered/sequences.parquet")
ROWS = Path("data/filtered/rows.parquet")
USERS = Path("data/filtered/users.parquet")
ITEMS = Path("data/filtered/items.parquet")
DATASET_METRICS = Path("metrics/dataset.json")
DATASET_DETAILS = Path("metrics/dataset_details.json")

ENCODED = Path("data/encoded")

MODEL = Path("models/model")
HISTORY = Path("models/history.csv")
VERDICTS = Path("models/verdicts.parquet")
DENOISED = Path("models/denoised.parquet")
SEEDS = Path("models/seeds")

METRICS = Path("metrics/metrics.json")
DETAILS = Path("metrics/details.json")
EVALUATED = Path("data/evaluated")
RANKS = Path("data/evaluated/ranks.parquet")
PLOTS = Path("metrics/plots")
PAGE = Path("metrics/report.html")

# Work in progress, outside every stage's outputs: downloads and what an interrupted stage goes on from.
DOWNLOADS = Path(".cache/downloads")  # below project_root()
WATCH_WORK = Path(".cache/watched.json")  # below project_root()
ENCODE_WORK = Path(".cache/encode")
TRAIN_WORK = Path(".cache/train")
DETECTORS = Path(".cache/detectors")  # below project_root(): seeds and experiments share them
