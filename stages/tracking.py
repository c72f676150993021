"""MLflow: one run an experiment, with live epoch metrics; a server that is down costs a warning, never the run.

The store is the project's own SQLite file unless `MLFLOW_TRACKING_URI` names another. A run is found again by the
digest of all that decides its result and by its DVC experiment, so `train` and `evaluate` write to the same one, and
what is run or resumed a second time logs nothing twice: no point of a metric, no input, no second model. A stage that
DVC restores from its cache does not run, so it logs nothing: `evaluate` then logs the epochs of `train`, but where
`evaluate` itself is restored, MLflow has no run.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from iadsr.errors import masked
from stages import paths

if TYPE_CHECKING:
    from types import TracebackType

    from iadsr.models.config import ModelConfig
    from iadsr.train.fit import EpochReport

EXPERIMENT = "iadsr"
RUN_TAG, DVC_TAG, CONTENT_TAG, NOTE_TAG = "iadsr.run", "dvc.experiment", "iadsr.content", "mlflow.note.content"
DIGEST_LENGTH = 32  # of a data set; MLflow allows 36
OFFICIAL = {  # as iadsr.ingest.official_files has them, which training must not depend on
    "movielens-100k": {"url": "https://files.grouplens.org/datasets/movielens/ml-100k.zip"},
    "amazon-2014": {
        "url": "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/reviews_{category}_5.json.gz",
        "items_url": "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_{category}.json.gz",
    },
}
GROUPED = re.compile(r"(test|validation|noise|drop|bucket_\d+)_(.+)")
SQLITE = "sqlite:///"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits for minutes on a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # with the password that it may hold
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, a file in it by its whole path; else mlflow.db in the project's root, also for copies."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{paths.project_root() / 'mlflow.db'}"
    return f"{SQLITE}{Path(given.removeprefix(SQLITE)).resolve()}" if given.startswith(SQLITE) else given


def shown_address() -> str:
    """The store's address as people may see it: without user, password and tokens."""
    uri = tracking_uri()
    return masked(uri if uri.startswith(SQLITE) else "".join(uri.split()))  # white space would end an address


def reason(error: Exception) -> str:
    """What a store says of its failure, without secrets; where it quotes a part of one, only the kind of error."""
    said = masked(" ".join(str(error).split()))
    return type(error).__name__ if any(part in said for part in secrets()) else said[:200]


def secrets() -> set[str]:
    """Parts of the password in the store's address, as libraries may take it apart, and those that MLflow reads."""
    given = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    user = tracking_uri().partition("://")[2].rpartition("@")[0]
    given += re.split(r"[/?#@:]", user.partition(":")[2] or user)
    return {part for text in given for part in (text, unquote(text)) if len(part) > 2}


def grouped(name: str) -> str:
    """A metric's name in MLflow, which shows what stands before a / as a group; no two names become one.

    >>> grouped("test_hr_10_unfiltered"), grouped("bucket_1_noise_auc"), grouped("drop_ratio")
    ('test/hr_10_unfiltered', 'bucket_1/noise_auc', 'drop/ratio')
    """
    return GROUPED.sub(r"\1/\2", name) if GROUPED.fullmatch(name) else name


def of_epochs(name: str) -> str:
    """The name of a figure that every epoch has."""
    return f"epoch/{name}"


def open_run(config: ModelConfig, content: dict[str, Any]) -> Run:
    """The run of this configuration, made anew if the store has none."""
    run = Run()
    run.attempt(lambda: run.open(config, content), first=True)
    return run


def prepare_store() -> None:
    """Make the store and the experiment, if there are none, before several processes look for them."""
    run = Run()
    run.attempt(run.open_store, first=True)


class Run:
    """An MLflow run that turns every failure of the store into one warning, and then into silence."""

    def __init__(self) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self.client: Any = None
        self.run_id = ""
        self.experiment = ""
        self.present: set[int] | None = None  # the epochs that the run has, once they are known

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.attempt(lambda: self.client.set_terminated(self.run_id, "FAILED"))

    def attempt(self, action: Callable[[], object], first: bool = False) -> None:
        """Do `action` unless tracking has failed before; on failure warn and track no more."""
        if self.client is None and not first:
            return
        try:
            action()
        except Exception as error:  # whatever a store may raise must not end a run of hours
            self.client = None
            print(f"warning: MLflow tracking failed, going on without it ({reason(error)})", file=sys.stderr)

    def following(self, reports: Iterable[EpochReport]) -> Iterator[EpochReport]:
        """Log each report as it comes."""
        for report in reports:
            figures = {**report.figures, **({} if report.seconds is None else {"seconds": report.seconds})}
            self.log_epoch(report.epoch, figures)
            yield report

    def backfill(self, history: list[dict[str, float]]) -> None:
        """Log the epochs that the run lacks, as when `train` came from DVC's cache and never ran."""
        for epoch, figures in enumerate(history):
            self.log_epoch(epoch, figures)

    def log_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Log an epoch, unless the run has it already."""
        self.attempt(lambda: self._log_epoch(figures, epoch))

    def log_final(self, config: ModelConfig, figures: dict[str, float], files: Iterable[Path]) -> None:
        """Metrics of the model, as of its best epoch, what they say in words, and files."""

        def log() -> None:
            last = self.client.get_run(self.run_id).data
            named = {grouped(name): value for name, value in figures.items()}
            self._log_step(
                {name: value for name, value in named.items() if last.metrics.get(name) != value}, config.best_epoch
            )
            if last.tags.get(NOTE_TAG, "").startswith(in_words(config)):  # not where somebody has written another
                self.client.set_tag(self.run_id, NOTE_TAG, f"{in_words(config)} {result_in_words(figures)}")

        self.attempt(log)
        self.log_files(files)

    def log_files(self, files: Iterable[Path]) -> None:
        def log() -> None:
            for path in files:
                self.client.log_artifact(self.run_id, str(path))

        self.attempt(log)

    def log_model(self, config: ModelConfig, digest: Callable[[], str], log: Callable[[], object]) -> None:
        """Call `log`, with this run's logged model as MLflow's active one, unless it is whole and of this digest."""

        def once() -> None:
            import mlflow

            model_id, content = self._logged_model(config), digest()
            if self.client.get_logged_model(model_id).tags.get(CONTENT_TAG) == content:
                return
            self.client.set_logged_model_tags(model_id, {CONTENT_TAG: ""})  # until all of it is there
            with mlflow.set_active_model(model_id=model_id):
                log()
            self.client.set_logged_model_tags(model_id, {CONTENT_TAG: content})

        self.attempt(once)

    def finish(self) -> None:
        self.attempt(lambda: self.client.set_terminated(self.run_id, "FINISHED"))

    # --- what may fail ---

    def open_store(self) -> tuple[Any, str]:
        """A client, and the number of the experiment."""
        import mlflow

        own = not os.environ.get("MLFLOW_TRACKING_URI")  # set_tracking_uri sets it
        mlflow.set_tracking_uri(tracking_uri())
        client = mlflow.MlflowClient()
        if own:
            # beside mlflow.db: MLflow's own choice is the current folder, which may be a temporary copy of DVC's
            with suppress(mlflow.MlflowException):  # it exists already
                client.create_experiment(EXPERIMENT, (paths.project_root() / "mlruns").as_uri())
        return client, mlflow.set_experiment(EXPERIMENT).experiment_id

    def open(self, config: ModelConfig, content: dict[str, Any]) -> None:
        """Find or make the run of this configuration, and log what it lacks of parameters and data."""
        client, self.experiment = self.open_store()
        name = os.environ.get("DVC_EXP_NAME", "")
        wanted = f"tags.`{RUN_TAG}` = '{config.run}' and tags.`{DVC_TAG}` = '{name}'"
        found = client.search_runs([self.experiment], wanted)
        if found:
            run = found[0]
            client.update_run(run.info.run_id, status="RUNNING")
        else:
            run_name = name or f"{named(config)}-{config.run[:6]}"
            run = client.create_run(self.experiment, tags=_tags(config, name), run_name=run_name)
        self.run_id = run.info.run_id
        if not run.data.params:
            _log_params(client, self.run_id, content, config)
        data = _dataset(config, content)
        inputs = run.inputs.dataset_inputs if run.inputs else []
        if data.digest not in [each.dataset.digest for each in inputs]:
            _log_dataset(client, self.run_id, data)
        self.client = client

    def _logged_model(self, config: ModelConfig) -> str:
        """The id of the run's logged model, which is made, and shown with the metrics of the run, if there is none."""
        from mlflow.entities import LoggedModelOutput, Metric

        client, run = self.client, self.client.get_run(self.run_id)
        found = client.search_logged_models([self.experiment], f"source_run_id = '{self.run_id}'")
        described = {"name": named(config), "source_run_id": self.run_id, "params": run.data.params}
        model = found[0] if found else client.create_logged_model(self.experiment, **described)
        outputs = run.outputs.model_outputs if run.outputs else []
        if model.model_id not in [output.model_id for output in outputs]:
            client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, config.best_epoch)])
        known = {(metric.key, metric.value) for metric in model.metrics or ()}
        finals = {item for item in run.data.metrics.items() if not item[0].startswith(of_epochs(""))} - known
        points = [client.get_metric_history(self.run_id, name)[-1] for name, _ in sorted(finals)]
        as_of = {"run_id": self.run_id, "model_id": model.model_id}
        client.log_batch(
            self.run_id, [Metric(each.key, each.value, each.timestamp, each.step, **as_of) for each in points]
        )
        return str(model.model_id)

    def _log_step(self, figures: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _log_epoch(self, figures: dict[str, float], epoch: int) -> None:
        from iadsr.train.history import STOPPING_METRIC

        if self.present is None:
            history = self.client.get_metric_history(self.run_id, of_epochs(STOPPING_METRIC))
            self.present = {metric.step for metric in history}
        if epoch not in self.present:
            self._log_step({of_epochs(name): value for name, value in figures.items()}, epoch)
            self.present.add(epoch)


def _tags(config: ModelConfig, experiment: str) -> dict[str, str]:
    tags = {RUN_TAG: config.run, DVC_TAG: experiment, "dataset": config.dataset}
    tags |= {"backbone": config.backbone, "denoiser": config.denoiser}
    tags |= {"mlflow.source.name": "stages/train.py", "mlflow.source.type": "LOCAL"}
    tags[NOTE_TAG] = f"{in_words(config)} No results yet."
    head = ["git", "rev-parse", "--verify", "HEAD"]  # which fails where nothing is committed yet
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if "DVC_EXP_BASELINE_REV" in os.environ:
        tags["dvc.baseline"] = os.environ["DVC_EXP_BASELINE_REV"]
    return tags


def named(config: ModelConfig) -> str:
    """What a run and its model are called, of characters that MLflow allows in a model's name."""
    parts = config.dataset, config.backbone, config.denoiser
    return re.sub(r"[^\w-]+", "-", "-".join(parts))


def in_words(config: ModelConfig) -> str:
    """Data and method, in a sentence."""
    method = "no denoiser" if config.denoiser == "none" else config.denoiser
    on = f" on {config.backbone}" if config.backbone != "none" else ""
    size = f"{config.user_count:,} users, {config.item_count:,} items"
    return f"{method}{on}, seed {config.seed}, trained on data set {config.dataset} ({size})."


def result_in_words(figures: dict[str, float]) -> str:
    """Test accuracy by the paper's protocol, and what was dropped, in a sentence."""
    from iadsr.models.ranking import METRICS, cutoffs_of, metric_name

    cutoffs = cutoffs_of(figures)
    k = 10 if 10 in cutoffs else cutoffs[-1]
    accuracy = [f"{name.upper()}@{k} {figures[metric_name(name, k, 'unfiltered', 'test')]:.4f}" for name in METRICS]
    return f"Test, unfiltered: {', '.join(accuracy)}; {figures['drop_ratio_expected']:.2%} of interactions dropped."


def _dataset(config: ModelConfig, content: dict[str, Any]) -> Any:
    """The data set as MLflow knows one: its name, the digest of its sequences, and where it comes from."""
    from mlflow.entities import Dataset

    from iadsr.artifacts import file_digest

    kind, source = described_source(content["datasets"].get(config.dataset, {}).get("source", {}))
    profile = json.dumps({"users": config.user_count, "items": config.item_count})
    digest = file_digest(paths.SEQUENCES)[:DIGEST_LENGTH]
    return Dataset(config.dataset, digest, kind, masked(json.dumps(source)), profile=profile)


def described_source(source: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """MLflow's kind of source, and what it keeps of it: official addresses, the user's files, or the generator."""
    kind = source.get("kind", "")
    if kind in OFFICIAL:
        return "http", {name: url.format_map(source) for name, url in OFFICIAL[kind].items()}
    if kind == "files":
        return "local", {"uri": str(source.get("interactions")), "items_uri": str(source.get("items"))}
    return "code", {"tags": {"mlflow.source.name": f"iadsr/ingest/{kind}.py", **source}}


def _log_dataset(client: Any, run_id: str, data: Any) -> None:
    from mlflow.entities import DatasetInput, InputTag

    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def _log_params(client: Any, run_id: str, content: dict[str, Any], config: ModelConfig) -> None:
    """The parameters that this run used: of the tables of params.yaml only the chosen entries."""
    from mlflow.entities import Param

    tables = {"datasets": config.dataset, "backbones": config.backbone, "denoisers": config.denoiser}
    tables["encoders"] = content["encoder"]
    used = {key: value[tables[key]] if key in tables else value for key, value in content.items()}
    client.log_batch(run_id, params=[Param(name, masked(str(value))[:500]) for name, value in _flat(used)])


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        if isinstance(entry, dict):
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", entry
