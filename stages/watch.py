"""Stage `watch`: digests of the user's own files -> data/watched.json, by which DVC notices that they have changed."""

from __future__ import annotations

from stages import paths
from stages.command import ParamsFile, new_app, reports_errors

app = new_app()


@app.command(epilog="Example: python -m stages.watch")
@reports_errors
def main(params: ParamsFile = paths.PARAMS) -> None:
    """Look whether the files of `datasets.<dataset>.source` are still the same; DVC does so before everything else.

    Only `kind: files` has any. They may lie anywhere; a file is read again only when its size or time has changed.
    """
    from iadsr.artifacts import write_json
    from iadsr.ingest.sources import chosen_source
    from iadsr.ingest.watched import digests_of_own, located
    from iadsr.params import read_params

    root = paths.project_root()
    source = located(chosen_source(read_params(params)), root)
    write_json(paths.WATCHED, digests_of_own(source, root / paths.WATCH_WORK))


if __name__ == "__main__":
    app()
