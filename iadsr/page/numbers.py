"""The numbers of a run, as the files in metrics/ have them."""

from __future__ import annotations

from typing import Any, NamedTuple


class Numbers(NamedTuple):
    """Of metrics/ingest.json, dataset_details.json and details.json."""

    ingest: dict[str, Any]
    dataset: dict[str, Any]
    details: dict[str, Any]

    @property
    def removed(self) -> int:
        """Interactions that were ingested, but are neither trained on nor held out."""
        return int(self.ingest["interactions"] - self.dataset["interactions"] + self.dataset["planted_interactions"])
