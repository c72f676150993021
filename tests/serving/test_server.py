"""Top-k lists: what full ranking says, from raw item ids alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from small_models import (
    DIM,
    ITEMS,
    SETTINGS,
    SMALL_MANIFEST,
    USERS,
    WIDTH,
    iadsr_params,
    random_histories,
    sequences_of,
    spread_out,
    write_means,
)

from iadsr.encode.encoders.interface import TransformerEncoderParams
from iadsr.errors import UserError
from iadsr.models.assembly import build
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.files import save_model
from iadsr.models.ranking import rank_targets
from iadsr.provenance import digest_of
from iadsr.schemas import TEST
from iadsr.sequences.windows import Feed
from iadsr.serving import server as module
from iadsr.serving import texts
from iadsr.serving.catalogue import CATALOGUE
from iadsr.serving.screen import Screen
from iadsr.serving.server import Answer, Server
from iadsr.serving.texts import TextVectors, TitleRuns

pytestmark = pytest.mark.usefixtures("one_thread")
LIMIT = 4
IDS = [f"id{number}" for number in range(1, ITEMS + 1)]
TITLES = [f"title {number}" for number in range(1, ITEMS + 1)]
HISTORIES = random_histories(8, 10)
TEMPLATES = {"item_template": "{title}", "prefix_template": "{titles}", "separator": "; "}
Make = Callable[..., Server]
PARAMS: dict[str, dict[str, Any]] = {
    "none": {},
    "iadsr": iadsr_params().model_dump(),
    "text_rule": {"share": 0.3, "mask_at_test": True},
}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A server of a random model; prefixes are means of the item vectors in items.npy unless told otherwise."""

    def server(denoiser: str = "iadsr", backbone: str = "gru4rec", **changes: Any) -> Server:
        sequences = sequences_of(*HISTORIES)
        feed = Feed(sequences, write_means(tmp_path / "encoded", sequences, LIMIT))
        pl.DataFrame({"raw_item": IDS, "title": TITLES}).write_parquet(tmp_path / "items.parquet")
        sums = {"sha256": {"items.npy": digest_of(tmp_path / "encoded" / "items.npy")}}
        encodings = {**SMALL_MANIFEST, "max_length": LIMIT, **TEMPLATES, **sums, **changes.pop("encodings", {})}
        config = ModelConfig.model_validate(
            {
                "dataset": "small",
                "backbone": backbone,
                "backbone_params": SETTINGS[backbone],
                "denoiser": denoiser,
                "denoiser_params": PARAMS[denoiser] | changes.pop("params", {}),
                "user_count": USERS,
                "item_count": ITEMS,
                "dim": DIM,
                "max_length": LIMIT,
                "seed": 1,
                "inputs": {CATALOGUE: digest_of(tmp_path / "items.parquet")},
                "encodings": encodings if DENOISERS[denoiser].traits.reads_texts else None,
            }
        )
        model = spread_out(build(config, feed), 0.5)
        save_model(tmp_path / "model", model, config)
        vectors = changes.pop("item_vectors", tmp_path / "encoded" / "items.npy")
        return Server(tmp_path / "model", tmp_path / "items.parquet", changes.pop("encoder", None), vectors, **changes)

    return server


def lists(answers: list[Answer]) -> list[list[str]]:
    return [[entry.item for entry in answer.items] for answer in answers]


def raw(history: list[int]) -> list[str]:
    return [IDS[item - 1] for item in history]


@pytest.mark.parametrize("backbone", ["gru4rec", "caser", "sasrec"])
@pytest.mark.parametrize("denoiser", PARAMS)
def test_lists_agree_with_full_ranking(denoiser: str, backbone: str, make: Make, tmp_path: Path) -> None:
    """The test target stands in the whole list at its unfiltered rank and, unless seen, at its filtered rank too."""
    server, sequences = make(denoiser, backbone), sequences_of(*HISTORIES)
    vectors = write_means(tmp_path / "encoded", sequences, LIMIT) if denoiser == "iadsr" else None
    ranks = rank_targets(server.model, Feed(sequences, vectors), TEST, LIMIT)
    histories = [raw(history[:-1]) for history in HISTORIES]
    unfiltered = lists(server.recommend(histories, ITEMS, exclude_seen=False))
    filtered = lists(server.recommend(histories, ITEMS, exclude_seen=True))
    for user, history in enumerate(HISTORIES):
        target = IDS[history[-1] - 1]
        assert unfiltered[user].index(target) + 1 == ranks.unfiltered[user]
        assert set(filtered[user]) == set(IDS) - set(histories[user])
        if history[-1] not in history[:-1]:
            assert filtered[user].index(target) + 1 == ranks.filtered[user]


def test_entries_are_sorted_and_named(make: Make) -> None:
    (found, note, unknown), *_ = make().recommend([["id3"]], 5)
    assert (note, unknown) == ("", [])
    assert len(found) == 5
    assert [entry.score for entry in found] == sorted((entry.score for entry in found), reverse=True)
    assert all(entry.title == TITLES[IDS.index(entry.item)] for entry in found)


def test_nothing_to_recommend(make: Make) -> None:
    assert make().recommend([], 3) == []


def test_a_history_of_everything_leaves_nothing_and_says_so(make: Make) -> None:
    note = "nothing left to recommend: every item of the catalogue is in the history"
    assert make().recommend([IDS], 3) == [Answer([], note, [])]
    assert len(make().recommend([IDS], 3, exclude_seen=False)[0].items) == 3


@pytest.mark.parametrize("denoiser", PARAMS)
def test_histories_do_not_influence_each_other(denoiser: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, all at once, and in batches of 3: the same lists."""
    server, histories = make(denoiser), [raw(history) for history in HISTORIES]
    together = server.recommend(histories, 3)
    monkeypatch.setattr(module, "BATCH", 3)
    for answers in (server.recommend(histories, 3), [server.recommend([history], 3)[0] for history in histories]):
        for found, expected in zip(answers, together, strict=True):
            assert [entry.item for entry in found.items] == [entry.item for entry in expected.items]
            scores = [entry.score for entry in expected.items]
            assert [entry.score for entry in found.items] == pytest.approx(scores, abs=1e-5)


def test_only_the_newest_items_matter_but_all_are_seen(make: Make) -> None:
    """Beyond max_length 4, older items change no score of a plain model, and are not recommended again."""
    server, newest = make("none"), ["id1", "id2", "id3", "id4"]
    (short,), (long,) = server.recommend([newest], ITEMS), server.recommend([["id9", "id5", *newest]], ITEMS)
    assert [entry for entry in short.items if entry.item not in ("id9", "id5")] == long.items


class Lengths:
    """A text's vector is made of its number of letters: so that the text matters."""

    dim, dtype, model = WIDTH, "float32", None
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.read: list[str] = []

    def tokenize(self, texts: list[str]) -> list[Any]:
        from iadsr.encode.encoders.interface import Tokens

        self.read += texts
        return [Tokens(np.zeros(len(text), dtype=np.int32), len(text), False) for text in texts]

    def together(self, batch: list[Any]) -> torch.Tensor:
        raise AssertionError("no text has blocks")

    def vectors(self, batch: list[Any]) -> torch.Tensor:
        return torch.stack([torch.sin(torch.arange(1, WIDTH + 1) * len(tokens.ids)) for tokens in batch])


def test_texts_of_prefixes_are_those_of_encode(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five items, four at a time: prefixes of items 1-2, 1-3, 1-4 and 2-5, titles joined by the separator."""
    server, encoder = make(encodings={"prefixes": "joint"}), Lengths()
    monkeypatch.setattr(TextVectors, "opened", lambda self: encoder)
    server.recommend([["id1", "id2", "id3", "id4", "id5"]], 3)
    assert encoder.read == [
        "title 1; title 2",
        "title 1; title 2; title 3",
        "title 1; title 2; title 3; title 4",
        "title 2; title 3; title 4; title 5",
    ]


@pytest.mark.parametrize(("prefixes", "separator"), [("joint", ""), ("shared", "; ")])
def test_the_encoder_computes_prefixes_as_encode_did(
    make: Make, monkeypatch: pytest.MonkeyPatch, prefixes: str, separator: str
) -> None:
    """On a history's own titles, together where that was so in training."""
    encodings = {"prefixes": prefixes, "computed_in": "float32"}
    spec = TransformerEncoderParams(kind="transformer", model="some", max_tokens=8)
    server, asked = make(encodings=encodings, encoder=spec), list[Any]()

    def opened(*arguments: Any) -> Lengths:
        asked.append(arguments)
        return Lengths()

    monkeypatch.setattr(texts, "open_encoder", opened)
    server.recommend([["id1", "id2"]], 3)
    assert asked == [(spec, torch.device("cpu"), torch.float32, separator)]


def test_titles_replace_those_of_the_catalogue(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server, encoder = make(encodings={"prefixes": "joint"}), Lengths()
    monkeypatch.setattr(TextVectors, "opened", lambda self: encoder)
    server.recommend([["id1"], ["id2"]], 3, titles=[["anything"], None])
    assert encoder.read == ["anything", "title 2"]


def test_what_is_refused(make: Make) -> None:
    server, ids = make(), "ids are those of the data set, as id1, id2, id3"
    for histories, k, message in (
        ([["id1", "id99"]], 3, f"history 1: unknown item 'id99'; {ids}"),
        ([["id1"]], 0, "k: expected 1 to 12"),
        ([["id1"]], 13, "k: expected 1 to 12"),
    ):
        with pytest.raises(UserError, match=message):
            server.recommend(histories, k, unknown="fail")
    for titles in ([["one"]], [["one"], ["two"], ["three"]]):
        with pytest.raises(UserError, match=f"titles: {len(titles)} lists for 2 histories"):
            server.recommend([["id1"], ["id2"]], 3, titles=titles)


def test_a_history_is_called_by_its_name(make: Make) -> None:
    with pytest.raises(UserError, match=r"^top\.csv, user 'anna': unknown item 'id99'"):
        make().recommend([["id1"], ["id99"]], 3, unknown="fail", names=["top.csv, user 'otto'", "top.csv, user 'anna'"])


def test_a_bad_history_gets_a_note_and_the_others_their_lists(make: Make) -> None:
    server, good = make(), ["id1", "id2"]
    (alone,) = server.recommend([good], 3)
    for bad in (None, [], float("nan"), "id1", 5, {"id1": 1}, [None], [["id1"]], ["id99"]):
        first, found, last = server.recommend([good, bad, good], 3)
        assert lists([first, last]) == lists([alone, alone])
        assert not found.items and found.note.startswith("history: ")
    first, found = server.recommend([good, good], 3, titles=[None, ["one"]])
    assert lists([first]) == lists([alone])
    assert found == Answer([], "titles: 1 for a history of 2; give one an item, null where unknown", [])


@pytest.mark.parametrize("denoiser", PARAMS)
def test_unknown_items_are_skipped(denoiser: str, make: Make) -> None:
    server = make(denoiser)
    (found,), (expected,) = (server.recommend([each], 3) for each in (["id7", "x", "id1", "y"], ["id7", "id1"]))
    assert found == expected._replace(unknown=["x", "y"])


def test_texts_of_unknown_items_stand_in_prefixes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item's prefix is all up to it, and the newest known item's extends to the end; without a title: left out."""
    server, encoder = make(encodings={"prefixes": "joint"}, others={"gone": "Gone", "id1": "not read"}), Lengths()
    monkeypatch.setattr(TextVectors, "opened", lambda self: encoder)
    history = ["a", "id1", "gone", "x", "id2", "b"]
    (found,) = server.recommend([history], 3, titles=[["A", None, None, None, "own", "B"]])
    assert encoder.read == ["A; title 1", "title 1; Gone; own; B"]  # the newest 4 titles
    assert found.unknown == ["a", "gone", "x", "b"]


def test_the_vector_of_an_unknown_items_title_is_computed_where_prefixes_are_means(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """id1 and Gone: the mean of the vector in items.npy and that of the text, in float16."""
    server, encoder = make(others={"gone": "Gone"}), Lengths()
    assert server.texts is not None and server.texts.items is not None
    monkeypatch.setattr(TextVectors, "opened", lambda self: encoder)
    reading = server.catalogue.read(["id1", "gone"], None, True)
    found = server.texts.of_prefixes([reading], TitleRuns.of([reading.numbers], LIMIT))
    expected = (np.float32(server.texts.items[1]) + encoder.vectors(encoder.tokenize(["Gone"]))[0].half().numpy()) / 2
    assert encoder.read[0] == "Gone"
    torch.testing.assert_close(found[0, 0], torch.from_numpy(expected.astype(np.float16)).float())


def test_texts_seen_before_are_not_encoded_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    server, encoder = make(encodings={"prefixes": "joint"}), Lengths()
    monkeypatch.setattr(TextVectors, "opened", lambda self: encoder)
    first = server.recommend([["id1", "id2"]], 3)
    assert lists(server.recommend([["id1", "id2"], ["id1"]], 3))[0] == lists(first)[0]
    assert encoder.read == ["title 1", "title 1; title 2"]


def test_a_request_has_a_limited_number_of_texts_encoded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With infinite margins every text is asked for: 2 of the first history, of which 1 is left for the second."""
    monkeypatch.setattr(module, "MOST_TEXTS", 3)
    screen = Screen(torch.zeros(LIMIT + 12, 2 * 6), torch.full((3, 8, 2), float("inf")), torch.tensor(float("inf")))
    server, encoder = make(encodings={"prefixes": "joint"}, screen=screen, params={"theta": -1.0}), Lengths()
    monkeypatch.setattr(TextVectors, "opened", lambda self: encoder)
    monkeypatch.setattr(module, "estimates", lambda weights, found: torch.ones(len(found), 2 * 6))
    histories = [["id1", "id2"], ["id3", "id4"]]
    assert [answer.note for answer in server.recommend(histories, 3, exact=False)] == ["", module.ESTIMATED]
    assert len(encoder.read) == 3
    assert [answer.note for answer in server.recommend(histories, 3)] == ["", ""]


@pytest.mark.parametrize("changes", [{"masks": "none"}, {"mask_at_test": False}])
def test_a_model_that_masks_nothing_at_test_needs_no_encoder(changes: dict[str, Any], make: Make) -> None:
    assert len(make(encodings={"prefixes": "joint"}, params=changes).recommend([["id1"]], 3)[0].items) == 3


def test_what_the_model_needs_but_does_not_get(make: Make) -> None:
    with pytest.raises(UserError, match=r"items\.npy"):
        make(item_vectors=None)
    with pytest.raises(UserError, match="need the text encoder"):
        make(encodings={"prefixes": "joint"}).recommend([["id1"]], 3)
    assert len(make("none", item_vectors=None).recommend([["id1"]], 3)[0].items) == 3


def test_a_model_that_carries_its_vectors_needs_none_and_reads_no_titles(make: Make) -> None:
    """Whatever the prefixes were that `encode` wrote beside them."""
    for prefixes in ("mean", "joint", "none"):
        server = make("text_rule", encodings={"prefixes": prefixes}, item_vectors=None)
        (plain,), (titled,) = server.recommend([["id1"]], 3), server.recommend([["id1"]], 3, titles=[["anything"]])
        assert len(plain.items) == 3 and titled == plain


def test_a_catalogue_of_another_data_set(make: Make, tmp_path: Path) -> None:
    make()
    pl.DataFrame({"raw_item": IDS[:5], "title": TITLES[:5]}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(UserError, match=r"items\.parquet: not the catalogue that the model was trained on"):
        Server(tmp_path / "model", tmp_path / "items.parquet", None, None)
    (tmp_path / "items.parquet").unlink()
    with pytest.raises(UserError, match=r"items\.parquet: missing"):
        Server(tmp_path / "model", tmp_path / "items.parquet", None, None)
