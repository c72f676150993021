"""MLflow: one run an experiment, with live epoch metrics; a server that is down costs a warning, never the run.

The store is the project's own SQLite file unless `MLFLOW_TRACKING_URI` names another. A run is found again by the
digest of all that decides its result and by its DVC experiment, so `train` and `evaluate` write to the same one, and
what is run or resumed a second time logs nothing twice. A stage that DVC restores from its cache does not run, so it
logs nothing: `evaluate` then logs the epochs of `train`, but where `evaluate` itself is restored, MLflow has no run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages import paths

if TYPE_CHECKING:
    from types import TracebackType

    from iadsr.models.config import ModelConfig
    from iadsr.train.fit import EpochReport

EXPERIMENT = "iadsr"
RUN_TAG, DVC_TAG = "iadsr.run", "dvc.experiment"
SQLITE = "sqlite:///"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default waits for minutes on a server that is down
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, a file in it by its whole path; else mlflow.db in the project's root, also for copies."""
    given = os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{paths.project_root() / 'mlflow.db'}"
    return f"{SQLITE}{Path(given.removeprefix(SQLITE)).resolve()}" if given.startswith(SQLITE) else given


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
            reason = " ".join(str(error).split())[:200]
            print(f"warning: MLflow tracking failed, going on without it ({reason})", file=sys.stderr)

    def following(self, reports: Iterable[EpochReport]) -> Iterator[EpochReport]:
        """Log each report as it comes."""
        for report in reports:
            figures = {**report.figures, **({} if report.seconds is None else {"epoch_seconds": report.seconds})}
            self.log_epoch(report.epoch, figures)
            yield report

    def backfill(self, history: list[dict[str, float]]) -> None:
        """Log the epochs that the run lacks, as when `train` came from DVC's cache and never ran."""
        for epoch, figures in enumerate(history):
            self.log_epoch(epoch, figures)

    def log_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Log an epoch, unless the run has it already."""
        self.attempt(lambda: self._log_epoch(figures, epoch))

    def log_final(self, figures: dict[str, float], epochs: int, files: Iterable[Path]) -> None:
        """Final metrics, as a step after all `epochs`, because some have an epoch's names; and files."""

        def log() -> None:
            last = self.client.get_run(self.run_id).data.metrics
            self._log_step({name: value for name, value in figures.items() if last.get(name) != value}, epochs)
            for path in files:
                self.client.log_artifact(self.run_id, str(path))

        self.attempt(log)

    def log_model(self, log: Callable[[], object]) -> None:
        """Call `log` with this run as MLflow's active one."""

        def inside() -> None:
            import mlflow

            with mlflow.start_run(run_id=self.run_id):
                log()

        self.attempt(inside)

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
        """Find or make the run of this configuration."""
        client, experiment = self.open_store()
        name = os.environ.get("DVC_EXP_NAME", "")
        found = client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{config.run}' and tags.`{DVC_TAG}` = '{name}'")
        if found:
            self.run_id = found[0].info.run_id
            client.update_run(self.run_id, status="RUNNING")
        else:
            run_name = name or f"{config.dataset}-{config.backbone}-{config.denoiser}-{config.run[:6]}"
            self.run_id = client.create_run(experiment, tags=_tags(config, name), run_name=run_name).info.run_id
            _log_params(client, self.run_id, content, config)
        self.client = client

    def _log_step(self, figures: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _log_epoch(self, figures: dict[str, float], epoch: int) -> None:
        if self.present is None:
            self.present = {metric.step for metric in self.client.get_metric_history(self.run_id, "loss_ce")}
        if epoch not in self.present:
            self._log_step(figures, epoch)
            self.present.add(epoch)


def _tags(config: ModelConfig, experiment: str) -> dict[str, str]:
    tags = {RUN_TAG: config.run, DVC_TAG: experiment, "dataset": config.dataset}
    tags |= {"backbone": config.backbone, "denoiser": config.denoiser}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if "DVC_EXP_BASELINE_REV" in os.environ:
        tags["dvc.baseline"] = os.environ["DVC_EXP_BASELINE_REV"]
    return tags


def _log_params(client: Any, run_id: str, content: dict[str, Any], config: ModelConfig) -> None:
    """The parameters that this run used: of the tables of params.yaml only the chosen entries."""
    from mlflow.entities import Param

    tables = {"datasets": config.dataset, "backbones": config.backbone, "denoisers": config.denoiser}
    tables["encoders"] = content["encoder"]
    used = {key: value[tables[key]] if key in tables else value for key, value in content.items()}
    client.log_batch(run_id, params=[Param(name, str(value)[:500]) for name, value in _flat(used)])


def _flat(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        if isinstance(entry, dict):
            yield from _flat(entry, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", entry
