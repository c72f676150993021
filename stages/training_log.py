"""The log that a model was trained on, with the verdicts by which it was trained; not a DVC stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stages import paths
from stages.command import ParamsFile, alone, new_app, reports_errors

if TYPE_CHECKING:
    from iadsr.ingest.sources import SourceParams
    from iadsr.ingest.whole_rows import WholeRows
    from iadsr.models.config import ModelConfig
    from iadsr.params import Params
    from iadsr.serving.training_log import OnRows

app = new_app()


@app.command(epilog="Example: python -m stages.training_log")
@reports_errors
@alone("training_log")
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Write models/denoised.parquet: your log with noise_probability, keep and reason behind its own columns.

    It has every row that `ingest` accepted, in its order. Verdicts are those of the training, which have seen neither
    validation nor test items. A row that was not judged, as these are not, stays, and its reason says why.
    """
    from iadsr.ingest.sources import chosen_source
    from iadsr.ingest.watched import located
    from iadsr.models.files import load_config
    from iadsr.params import read_params
    from iadsr.provenance import read_note
    from iadsr.serving.judge import Judge, can_judge
    from iadsr.serving.training_log import LogTables, on_rows, write_training_log

    content, config = read_params(params), load_config(paths.MODEL)
    source = located(chosen_source(content), paths.project_root())
    require_one_run(content, source, config)
    name, whole = source_rows(source)
    judge = Judge.opened(paths.MODEL, paths.ITEMS, paths.USERS) if can_judge(config) else None
    noise = read_note(paths.FILTERED, "filter")["params"]["noise"]
    tables = LogTables(paths.RAW_INTERACTIONS, paths.USERS, paths.ITEMS, paths.ROWS, paths.VERDICTS)
    verdicts = on_rows(tables, config, judge, bursts=noise["kind"] == "burst" and noise["ratio"] > 0)
    write_training_log(paths.DENOISED, name, whole, verdicts)
    print("\n".join([*summary(name, verdicts), f"wrote {paths.DENOISED}"]))


def require_one_run(content: Params, source: SourceParams, config: ModelConfig) -> None:
    """UserError unless the log, what was made of it, and the model are of one run."""
    from iadsr.ingest.watched import digests_of_own
    from iadsr.models.files import require_own
    from iadsr.provenance import checked, read_note, require_params, require_same

    note = read_note(paths.RAW, "ingest")
    require_params(paths.RAW, note["params"], content, "ingest")
    own = digests_of_own(source, paths.project_root() / paths.WATCH_WORK)
    require_same(
        paths.RAW, note["inputs"], {f"source/{table}": digest or "" for table, digest in own.items()}, "ingest"
    )
    raw = checked([paths.RAW_INTERACTIONS], "ingest")
    require_same(paths.FILTERED, read_note(paths.FILTERED, "filter")["inputs"], raw, "filter")
    filtered = checked([paths.SEQUENCES, paths.USERS, paths.ITEMS], "filter")
    require_same(paths.MODEL, config.inputs, filtered, "train")
    checked([paths.ROWS], "filter")
    require_own(config, paths.VERDICTS)


def source_rows(source: SourceParams) -> tuple[str, WholeRows]:
    """The user's own table and what it is called, or what `ingest` made of official and generated files."""
    from iadsr.ingest.columns import Wanted
    from iadsr.ingest.own_files import Files, wanted_of
    from iadsr.ingest.whole_rows import whole_rows

    if not isinstance(source, Files):
        return str(paths.RAW_INTERACTIONS), whole_rows(str(paths.RAW_INTERACTIONS), Wanted({}))
    return source.interactions, whole_rows(source.interactions, wanted_of(source), source.separator)


def summary(name: str, verdicts: OnRows) -> Iterator[str]:
    """What a person wants to know."""
    import numpy as np

    from iadsr.serving.log_verdicts import NOT_JUDGED

    rows, judged = int(verdicts.accepted.sum()), int(np.isfinite(verdicts.noise[verdicts.accepted]).sum())
    dropped = int((~verdicts.keep[verdicts.accepted]).sum())
    yield f"{name}: {rows:,} rows, {judged:,} judged, {dropped:,} dropped"
    for reason, count in verdicts.counts().most_common():
        if reason.startswith(NOT_JUDGED):
            yield f"  {count:,} {reason}"


if __name__ == "__main__":
    app()
