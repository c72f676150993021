"""The pipeline's commands, one a DVC stage: `python -m stages.ingest` and so on; dvc.yaml lists them in order."""
