"""How much one request may ask of a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from iadsr.errors import UserError
from iadsr.serving.histories import as_list

MOST_HISTORIES = 10_000
MOST_ITEMS = 10_000  # of a history
LONGEST_TITLE = 10_000  # characters


def check_limits(histories: Sequence[Any], titles: Sequence[Any] | None) -> None:
    """UserError for a request beyond the limits; it names the history."""
    if len(histories) > MOST_HISTORIES:
        raise UserError(f"{len(histories):,} histories; at most {MOST_HISTORIES:,} in one request, so send several")
    for place, history in enumerate(histories, 1):
        if (count := len(as_list(history) or [])) > MOST_ITEMS:
            newest = "send the newest ones, since a model reads no more"
            raise UserError(f"history {place}: {count:,} items; at most {MOST_ITEMS:,}: {newest}")
    for place, given in enumerate(titles or [], 1):
        own = as_list(given) or []
        if len(own) > MOST_ITEMS:
            raise UserError(f"history {place}: {len(own):,} titles; at most {MOST_ITEMS:,}, one an item")
        longest = max((len(title) for title in own if isinstance(title, str)), default=0)
        if longest > LONGEST_TITLE:
            raise UserError(f"history {place}: a title of {longest:,} characters; at most {LONGEST_TITLE:,}")
