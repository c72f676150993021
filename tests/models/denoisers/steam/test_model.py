"""STEAM against one history at a time; corrections by hand; what carries a gradient; what may be seen."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_models import ITEMS, LENGTH, at, batch_of, committed, padded, small_config, spread_out
from torch import Tensor
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.attention import Block
from iadsr.models.assembly import build
from iadsr.models.denoisers.steam import model as module
from iadsr.models.denoisers.steam.corruption import DELETE, INSERT, KEEP, Corrupted, Draws, Rates, corrupted
from iadsr.models.denoisers.steam.model import STEAM, decided, margin
from iadsr.sequences.windows import Feed, Sequences, training_windows

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)
MOST, ADDED = 3, 2
SEEDS = (63, 81, 140)  # of models that together keep, delete and insert 0 to MOST items
DRAWS = 16  # of draws that delete and insert
END, MASK = ITEMS + 1, ITEMS + 2


def steam(seed: int = 0, spread: float | None = 0.5, **changes: Any) -> STEAM:
    shape = {"heads": 2, "feed_forward": 10, "most_inserted": MOST, "most_added": ADDED}
    model = spread_out(build(small_config("steam", "none", seed=seed, **{**shape, **changes})), spread)
    assert isinstance(model, STEAM)
    if spread is not None:  # states, and with them operations, are to differ from item to item; insertions are to end
        for part in model.modules():
            if isinstance(part, torch.nn.LayerNorm):
                part.reset_parameters()
        torch.nn.init.zeros_(model.corrector.bias)
        with torch.no_grad():
            model.special[0] *= 1.5
    return model


def drawn(batch: int = len(WINDOWS), seed: int = DRAWS) -> Draws:
    torch.manual_seed(seed)
    return Draws.of(batch, LENGTH + ADDED, torch.device("cpu"))


def disturbed(draws: Draws) -> Corrupted:
    return corrupted(BATCH.items, draws, Rates(0.4, 0.5, 0.1), ITEMS, LENGTH, ADDED, MOST)


# --- one history at a time, in matrices ---


def through(block: Any, states: Tensor, causal: bool) -> Tensor:
    assert isinstance(block, Block)
    time = len(states)
    heads = block.queries_keys_values(states).view(time, 3, block.heads, -1).permute(1, 2, 0, 3)
    logits = heads[0] @ heads[1].mT / math.sqrt(heads.shape[-1])
    if causal:
        logits = logits + torch.full((time, time), float("-inf")).triu(1)
    mixed = (logits.softmax(-1) @ heads[2]).transpose(0, 1).flatten(1)
    states = block.attention_norm(states + block.merge(mixed))
    return block.feed_forward_norm(states + block.narrow(F.gelu(block.widen(states))))


def embedding(model: STEAM, token: int) -> Tensor:
    return model.special[token - END] if token > ITEMS else model.items.weight[token]


def encoder_states(model: STEAM, tokens: list[int]) -> Tensor:
    inputs = torch.stack([embedding(model, token) for token in tokens]) + model.backbone.positions.weight[: len(tokens)]
    return through(model.backbone.blocks[0], model.backbone.norm(inputs), causal=False)


def filled_in(model: STEAM, tokens: list[int]) -> Tensor:
    return through(model.recommender, encoder_states(model, tokens), causal=False)


def inserter_logits(model: STEAM, state: Tensor, before: list[int]) -> Tensor:
    """Of items 1..V and the end, after each of `state` and `before`."""
    inputs = torch.stack([state, *(model.items.weight[item] for item in before)])
    inputs = model.inserter_norm(inputs + model.backbone.positions.weight[: len(inputs)])
    states = through(model.inserter, inputs, causal=True)
    return states @ torch.cat([model.items.weight[1:], model.special[:1]]).T


def literal_corrections(model: STEAM, history: list[int]) -> list[tuple[int, list[int]]]:
    """For each item its operation, and what is inserted before it, oldest first."""
    states, result = encoder_states(model, history), []
    for state in states:
        operation = int(model.corrector(state).argmax())
        inserted: list[int] = []
        while operation == INSERT and len(inserted) < MOST:
            best = int(inserter_logits(model, state, inserted)[-1].argmax()) + 1
            if best == END:
                break
            inserted.append(best)
        result.append((operation, inserted[::-1]))
    return result


def literal_corrected(model: STEAM, history: list[int], most: int) -> list[int]:
    found = literal_corrections(model, history)
    tokens = [x for item, (o, before) in zip(history, found, strict=True) for x in [*before, *[item] * (o != DELETE)]]
    return (tokens or history[-1:])[-most:]


def real(items: Tensor, row: int) -> list[int]:
    return [item for item in items[row].tolist() if item]


# --- corrections ---


@pytest.mark.parametrize("seed", SEEDS)
def test_corrections_equal_the_loops(seed: int) -> None:
    model = steam(seed).eval()
    operations, inserted = model.corrections(BATCH.items)
    corrected = model.corrected(BATCH.items, LENGTH + ADDED)
    assert torch.equal(model.insertions(BATCH), inserted)
    for row, history in enumerate(WINDOWS):
        for time, (operation, before) in enumerate(literal_corrections(model, history)):
            assert operations[row, time] == operation
            assert inserted[row, time].tolist() == before + [0] * (MOST - len(before))
        assert real(corrected, row) == literal_corrected(model, history, LENGTH + ADDED)


def test_the_seeds_see_every_operation() -> None:
    found = [steam(seed).eval().corrections(BATCH.items) for seed in SEEDS]
    operations = torch.cat([one[0][BATCH.valid] for one in found])
    lengths = torch.cat([(one[1][BATCH.valid] > 0).sum(1) for one in found])
    assert set(operations.tolist()) == {KEEP, DELETE, INSERT}
    assert set(lengths[operations == INSERT].tolist()) == {0, 1, 2, MOST}
    given = disturbed(drawn())
    assert set(given.operations[given.items > 0].tolist()) == {KEEP, DELETE, INSERT}


def scripted(
    monkeypatch: pytest.MonkeyPatch, operations: list[list[int]], inserted: dict[tuple[int, int], list[int]]
) -> None:
    """Corrections as given: `inserted` before (row, time), oldest first."""
    found = torch.zeros(len(operations), len(operations[0]), MOST, dtype=torch.long)
    for (row, time), items in inserted.items():
        found[row, time, : len(items)] = torch.tensor(items)
    monkeypatch.setattr(STEAM, "corrections", lambda self, items: (torch.tensor(operations), found))


def test_corrected_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """(1, 2, 3) without 1 and with 8, 9 before 3; (4, 5) all deleted, so its newest stays; (6) with 7 before it.

    The newest three of 2, 8, 9, 3 are 8, 9, 3.
    """
    batch = batch_of([1, 2, 3], [4, 5], [6])
    operations = [[DELETE, KEEP, INSERT], [DELETE, DELETE, KEEP], [INSERT, DELETE, DELETE]]
    scripted(monkeypatch, operations, {(0, 2): [8, 9], (2, 0): [7]})
    model = steam()
    assert model.corrected(batch.items, 9).tolist() == [[2, 8, 9, 3], [5, 0, 0, 0], [7, 6, 0, 0]]
    assert model.corrected(batch.items, 3).tolist() == [[8, 9, 3], [5, 0, 0], [7, 6, 0]]
    assert model.end_epoch() == {"drop_rate": 3 / 6, "insert_rate": 3 / 6}  # counted in training, both times
    model.eval().corrected(batch.items, 9)
    assert model.end_epoch() == {"drop_rate": 0, "insert_rate": 0}


def test_decisions_by_hand() -> None:
    """Of keep, delete, insert: the largest; the margin is the larger of keep and insert less delete; a tie deletes."""
    logits = torch.tensor([[[2.0, 1, 0], [0, 1, 3], [1, 2, 0], [1, 1, 0]]])
    assert decided(logits).tolist() == [[KEEP, INSERT, DELETE, DELETE]]
    assert margin(logits).tolist() == [[1, 2, -1, 0]]


def test_verdicts_equal_the_loops() -> None:
    model = steam(81).eval()
    keep = model.judge(BATCH)
    for row, history in enumerate(WINDOWS):
        logits = model.corrector(encoder_states(model, history))
        share = 1 - logits.softmax(-1)[:, DELETE]
        torch.testing.assert_close(keep.probability[row, : len(history)], share)
        assert keep.kept[row, : len(history)].tolist() == (logits.argmax(-1) != DELETE).tolist()
    assert torch.equal(keep.kept, keep.score > 0)
    assert 0 < keep.kept[BATCH.valid].sum() < BATCH.valid.sum()


def test_correction_is_without_dropout_and_leaves_the_mode() -> None:
    model = steam(81, dropout=0.5).train()
    found = model.corrected(BATCH.items, 9)
    assert all(torch.equal(model.corrected(BATCH.items, 9), found) for _ in range(3))
    assert model.training and model.backbone.training
    assert torch.equal(model.eval().corrected(BATCH.items, 9), found) and not model.training


# --- states ---


@pytest.mark.parametrize("correct", [True, False])
def test_states_equal_the_loops(correct: bool) -> None:
    """The mask's state after the history or what it is corrected to, the newest LENGTH - 1 items of it."""
    model, batch = steam(63, correct_at_test=correct).eval(), batch_of(*WINDOWS, [1, 2, 3, 4, 5, 6])
    states = model.states(batch)
    for row, history in enumerate((*WINDOWS, [2, 3, 4, 5, 6])):
        tokens = literal_corrected(model, history, LENGTH + ADDED - 1) if correct else history
        torch.testing.assert_close(states[row], filled_in(model, [*tokens, MASK])[-1], atol=1e-5, rtol=1e-4)


def test_histories_of_one_item_at_most() -> None:
    """Even then there is room for an item and the mask."""
    model = STEAM(ITEMS, 8, 1, committed("steam", most_added=0)).eval()  # type: ignore[arg-type]
    assert model.states(batch_of([3], [4])).shape == (2, 8)


# --- losses ---


def nll(logits: Tensor, index: int) -> Tensor:
    return -logits.log_softmax(-1)[index]


def literal_masked_loss(model: STEAM, histories: list[list[int]], draws: Tensor) -> float:
    losses = []
    for row, history in enumerate(histories):
        masked = [draws[row, time].item() < 0.5 for time in range(len(history))]
        masked = masked if any(masked) else [time == len(history) - 1 for time in range(len(history))]
        tokens = [MASK if hidden else item for item, hidden in zip(history, masked, strict=True)]
        logits = filled_in(model, tokens) @ model.items.weight[1:].T
        losses += [nll(logits[time], history[time] - 1) for time in range(len(history)) if masked[time]]
    return torch.stack(losses).mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_masked_item_losses_equal_the_loops(seed: int) -> None:
    model, draws = steam(seed), drawn(seed=seed)
    losses = model.losses(BATCH.items, draws)
    mended = [literal_corrected(model, history, LENGTH + ADDED) for history in WINDOWS]
    assert mended != list(WINDOWS)
    expected = literal_masked_loss(model, list(WINDOWS), draws.mask)
    assert losses["ce"].item() == pytest.approx(expected, rel=1e-5)
    expected = literal_masked_loss(model, mended, draws.mask_corrected)
    assert losses["corrected"].item() == pytest.approx(expected, rel=1e-5)


def test_corrector_losses_equal_the_loops() -> None:
    """Operations over all items of the disturbed histories; inserted items and, with room for it, the end."""
    model, draws = steam(81), drawn()
    given = disturbed(draws)
    operations, inserted = [], []
    for row in range(len(WINDOWS)):
        history = real(given.items, row)
        for time, state in enumerate(encoder_states(model, history)):
            wanted = int(given.operations[row, time])
            operations.append(nll(model.corrector(state), wanted))
            missing = [item for item in given.missing[row, time].tolist() if item]
            targets = [*missing, END][:MOST] if wanted == INSERT else []
            for step, target in enumerate(targets):
                inserted.append(nll(inserter_logits(model, state, missing[:step])[-1], target - 1))
    assert len(inserted) > 2
    losses = model.losses(BATCH.items, draws)
    assert losses["operations"].item() == pytest.approx(torch.stack(operations).mean().item(), rel=1e-5)
    assert losses["insertions"].item() == pytest.approx(torch.stack(inserted).mean().item(), rel=1e-5)


def test_the_newest_is_masked_where_chance_masks_nothing() -> None:
    """Draws 0.6, 0.7 mask nothing of (9, 2), so 2 is; 0.1 masks 6; in the first, two are."""
    draws = torch.tensor([[0.4, 0.6, 0.1], [0.6, 0.7, 0.1], [0.1, 0.1, 0.1]])
    found = steam().masked(torch.tensor([[3, 1, 4], [9, 2, 0], [6, 0, 0]]), draws)
    assert found.tolist() == [[True, False, True], [False, True, False], [True, False, False]]


def test_nothing_to_insert_costs_nothing() -> None:
    model = steam(keep=0.9, delete=0.0)
    loss = model.losses(BATCH.items, drawn())["insertions"]
    loss.backward()
    assert loss.item() == 0


def test_each_term_teaches_its_own_parts() -> None:
    """All the encoder and the items; no correction carries a gradient to the corrector that made it."""
    parts = {"ce": {"recommender"}, "corrected": {"recommender"}}
    parts |= {"operations": {"corrector"}, "insertions": {"inserter", "inserter_norm"}}
    for term, own in parts.items():
        model = steam(81)
        model.losses(BATCH.items, drawn())[term].backward()
        for name in ("recommender", "corrector", "inserter", "inserter_norm", "backbone", "items"):
            grads = [weight.grad for weight in getattr(model, name).parameters()]
            learns = any(grad is not None and bool((grad != 0).any()) for grad in grads)
            assert learns == (name in {*own, "backbone", "items"}), (term, name)


def test_logits_of_insertions_are_computed_where_items_are_missing_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, draws = steam(), drawn()
    rows: list[int] = []
    given = disturbed(draws)
    original = module.catalogue_cross_entropy

    def note(states: Tensor, *rest: Any) -> Tensor:
        rows.append(len(states))
        return original(states, *rest)

    monkeypatch.setattr(module, "catalogue_cross_entropy", note)
    model.corrector_losses(BATCH.items, draws)
    counts = (given.missing > 0).sum(-1)
    assert rows == [int((counts + 1).clamp(max=MOST)[counts > 0].sum())]


def test_likeliest_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, states = steam(), torch.randn(7, 8)
    expected = (states @ model.output_table()[1:].T).argmax(1) + 1
    monkeypatch.setattr(module, "LOGITS", 3 * (ITEMS + 1))
    assert torch.equal(model.likeliest(states), expected)


def test_learns_one_batch_by_heart() -> None:
    """The same places masked and disturbed again and again: every term comes below a tenth of what it was.

    At times only, for corrected histories: what is to be learnt by heart of them changes with the model.
    """
    batch, draws = batch_of([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]), drawn(2)
    model = steam(spread=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    history = []
    for _ in range(55):
        losses = model.losses(batch.items, draws)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    assert history[0]["ce"] == pytest.approx(math.log(ITEMS), rel=0.1) and history[0]["insertions"] > 2
    for name, first in history[0].items():
        assert min(losses[name] for losses in history) < 0.1 * first
    assert all(history[-1][name] < 0.1 * history[0][name] for name in ("ce", "operations", "insertions"))


# --- what is seen, and what does not matter ---


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_so_many_items_are_masked(share: float) -> None:
    """Of 400 windows of five items; where chance masks none, in (1 - share)^5 of them, it is the newest."""
    model, items = steam(mask_share=share), torch.arange(1, 6).expand(400, 5)
    expected = share + (1 - share) ** 5 / 5
    found = model.masked(items, torch.rand(400, LENGTH, generator=torch.Generator().manual_seed(0)))
    assert found.float().mean().item() == pytest.approx(expected, abs=0.03)


def test_disturbed_histories_may_outgrow_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full window with strangers inserted is longer than max_length, by at most `most_added`."""
    model, longest = steam(keep=0.1, delete=0.0, insert=0.9), []
    encoded = model.encoded

    def note(items: Tensor) -> Tensor:
        longest.append(items.shape[1])
        return encoded(items)

    monkeypatch.setattr(model, "encoded", note)
    items = torch.arange(1, LENGTH + 1).expand(20, LENGTH)
    torch.manual_seed(0)
    model.corrector_losses(items, Draws.of(20, model.longest, items.device))
    assert LENGTH < max(longest) <= LENGTH + ADDED


def test_no_place_for_a_mask() -> None:
    with pytest.raises(UserError, match=r"max_length: steam needs at least 2"):
        build(small_config("steam", "none").model_copy(update={"max_length": 1}))


def test_training_sees_no_item_that_is_held_out() -> None:
    """Other validation and test items leave each batch, and so each loss, as it was."""
    histories = [[1, 2, 3, 4, 5], [6, 7, ITEMS, 8], [9, 1, 2]]
    found = []
    for last in ([4, 5], [1, 1]):
        items = torch.tensor([x for history in histories for x in [*history[:-2], *last]])
        feed = Feed(Sequences(items, torch.tensor([0, 5, 9, 12])))
        windows = training_windows(feed.sequences, LENGTH, torch.Generator().manual_seed(0))
        batch = feed.batch(windows)
        torch.manual_seed(0)
        found.append((batch.items, torch.stack(list(steam().loss(batch).values()))))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_padding_and_order_change_no_loss() -> None:
    model, draws, order = steam(81), drawn(), torch.tensor([2, 0, 3, 1])
    expected = model.losses(BATCH.items, draws)
    wider = model.losses(padded(BATCH, 1).items, draws)
    moved = model.losses(at(BATCH, order).items, Draws(*(values[order] for values in draws)))
    for name, loss in expected.items():
        torch.testing.assert_close(wider[name], loss)
        torch.testing.assert_close(moved[name], loss)
    assert torch.equal(model.insertions(at(BATCH, order)), model.insertions(BATCH)[order])
    assert torch.equal(model.insertions(padded(BATCH, 1))[:, :5], model.insertions(BATCH))


def test_draws_do_not_depend_on_padding() -> None:
    """So the same seed gives the same losses, whatever the batch is padded to."""
    found = []
    for batch in (BATCH, padded(BATCH, 1)):
        torch.manual_seed(0)
        found.append(steam().loss(batch))
    torch.testing.assert_close(*found)


# --- parameters ---


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("heads", 0, "steam.heads: input should be greater than or equal to 1"),
        ("keep", 0.5, "steam: keep, delete and insert must sum to 1"),
        ("keep", 0.0, "steam.keep: input should be greater than 0"),
        ("mask_share", 0.0, "steam.mask_share: input should be greater than 0"),
        ("most_inserted", 0, "steam.most_inserted: input should be greater than or equal to 1"),
        ("most_added", -1, "steam.most_added: input should be greater than or equal to 0"),
        ("correct_at_test", 1, "steam.correct_at_test: input should be a valid boolean"),
        ("surprise", 1, "steam.surprise: unknown parameter"),
    ],
)
def test_wrong_parameters_are_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        committed("steam", **{key: value})


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"params\.yaml: denoisers\.steam\.heads: 3 does not divide train\.dim 8"):
        steam(heads=3)
