"""SSDRec against a literal reading of its specification, example by example."""

from __future__ import annotations

import itertools
import math
from typing import Any
from unittest import mock

import pytest
import torch
from small_models import (
    DIM,
    ITEMS,
    LENGTH,
    USERS,
    batch_of,
    committed,
    random_histories,
    sequences_of,
    small_backbone,
    small_config,
    spread_out,
    train_params,
    with_future,
)
from torch import Tensor
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.jagged import Jagged
from iadsr.layers.sparse import SparseMatrix, SparseRows
from iadsr.models.assembly import build
from iadsr.models.denoisers import masking
from iadsr.models.denoisers.ssdrec.augmentation import Augmenter, Layout, inserted, noise_score, without
from iadsr.models.denoisers.ssdrec.graph_encoder import Fusion, InteractionGraphs
from iadsr.models.denoisers.ssdrec.model import SSDRec, SSDRecParams
from iadsr.models.recommender import LossSettings
from iadsr.params import ParamsError
from iadsr.sequences.prefix_examples import prefixes_with_target
from iadsr.sequences.windows import Batch, Feed, Sequences
from iadsr.train.fit import start

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)
SEQUENCES = sequences_of(*random_histories(USERS, 8))
CPU = torch.device("cpu")


def ssdrec(backbone: str = "gru4rec", seed: int = 0, spread: float | None = 0.5, **changes: Any) -> SSDRec:
    torch.manual_seed(seed)
    params = committed("ssdrec", **changes)
    assert isinstance(params, SSDRecParams)
    graphs = InteractionGraphs(SEQUENCES, 1, 0.2, 0.2)
    generator = torch.Generator().manual_seed(seed)
    model = SSDRec(ITEMS, USERS, DIM, LENGTH, small_backbone(backbone), params, generator, graphs)
    spread_out(model, spread)
    with torch.no_grad():
        model.users.weight[0].zero_()
    return model


def dense(model: SSDRec, name: str, rows: int, columns: int) -> Tensor:
    """A graph as a dense matrix."""
    return all_rows(getattr(model.graphs, name), rows, columns)


def all_rows(graph: SparseMatrix | SparseRows, rows: int, columns: int) -> Tensor:
    if isinstance(graph, SparseMatrix):
        return graph.product(torch.eye(columns))
    return torch.cat([graph.of(torch.tensor([row]), torch.eye(columns)) for row in range(rows)])


# --- stage 1 ---


def literal_fusion(fusion: Fusion, own: Tensor, positive: Tensor, negative: Tensor, across: Tensor) -> Tensor:
    """A 1 x 2 convolution over (self, neighbours), concatenation, a layer each; mean, layer, sigmoid, layer."""
    branches = []
    for near in (positive, negative):
        pairs = torch.stack([own, near], dim=1)[None, None]  # 1, 1, dim, 2
        fused = F.conv2d(pairs, fusion.kernel[None, None], fusion.bias)[0, 0, :, 0]
        branches.append(fusion.joined.weight @ torch.cat([across, fused]))
    mean = torch.stack(branches).mean(0)
    return fusion.outer.weight @ torch.sigmoid(fusion.inner.weight @ mean)


def literal_items(model: SSDRec) -> Tensor:
    table, users = model.items.weight, model.users.weight
    earlier, later, rivals = (
        dense(model, name, ITEMS + 1, ITEMS + 1) for name in ("earlier_items", "later_items", "rival_items")
    )
    found, across = [], dense(model, "users_of_item", ITEMS + 1, USERS + 1) @ users
    for item in range(ITEMS + 1):
        own, before, after = table[item], earlier[item] @ table, later[item] @ table
        scores = [
            sum(F.leaky_relu(layer.weight @ (own * near), 0.2)) / math.sqrt(DIM)
            for layer, near in ((model.encoder.earlier, before), (model.encoder.later, after))
        ]
        share = torch.softmax(torch.stack([torch.as_tensor(score) for score in scores]), dim=0)
        positive = share[0] * before + share[1] * after
        found.append(literal_fusion(model.encoder.of_items, own, positive, rivals[item] @ table, across[item]))
    return torch.stack(found)


def literal_users(model: SSDRec) -> Tensor:
    table, users = model.items.weight, model.users.weight
    like, rivals = (dense(model, name, USERS + 1, USERS + 1) for name in ("like_users", "rival_users"))
    across = dense(model, "items_of_user", USERS + 1, ITEMS + 1) @ table
    found = [
        literal_fusion(model.encoder.of_users, users[user], like[user] @ users, rivals[user] @ users, across[user])
        for user in range(1, USERS + 1)
    ]
    return torch.stack([torch.zeros(DIM), *found])


def test_the_graphs_have_edges_and_normalised_rows() -> None:
    model = ssdrec()
    for name in (
        *("users_of_item", "earlier_items", "later_items", "rival_items"),
        *("items_of_user", "like_users", "rival_users"),
    ):
        graph = getattr(model.graphs, name)
        assert len(graph.values) > 3
        offsets, values = graph.offsets.long(), graph.values.double()
        sums = torch.stack([values[start:end].sum() for start, end in itertools.pairwise(offsets)])
        assert all(min(abs(value), abs(value - 1)) < 1e-6 for value in sums.tolist())
    assert model.graphs is not None and not model.graphs.state_dict()


def test_later_items_are_those_that_stand_later() -> None:
    """1 2 three times: 2 is a later neighbour of 1, and 1 an earlier one of 2."""
    graphs = InteractionGraphs(sequences_of(*[[1, 2, 3, 3]] * 3), 2, 0.0, 0.0)
    later, earlier = (graph.product(torch.eye(4)) for graph in (graphs.later_items, graphs.earlier_items))
    assert later[1].tolist() == earlier[2].roll(1).tolist()
    assert later.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize(("frequent", "in_order"), [(1, ITEMS), (2, 6)])
def test_embeddings_of_the_graphs_equal_the_literal_reading(frequent: int, in_order: int) -> None:
    """Of all items, with and without neighbours in order, of some users, and saved with zeros in row 0."""
    model = ssdrec()
    model.graphs = InteractionGraphs(SEQUENCES, frequent, 0.2, 0.2)
    assert len(model.graphs.in_order) == in_order
    items, users = literal_items(model), literal_users(model)
    torch.testing.assert_close(model.encoder.items(model.graphs, model.users.weight, model.items.weight), items)
    rows = torch.tensor([3, 0, 3, 12])
    found = model.encoder.users(model.graphs, model.users.weight, model.items.weight, rows)
    torch.testing.assert_close(found, users[rows])
    model.end_epoch()
    torch.testing.assert_close(model.graph_items[1:], items[1:])
    torch.testing.assert_close(model.graph_users[1:], users[1:])
    torch.testing.assert_close(model.graph_users[0], users[1:].mean(0))
    assert model.training and model.graph_items[0].abs().sum() == 0


def test_no_edge_is_refused() -> None:
    """Of pairs in the same order at most 3 histories hold one: 2 is fine, 3 is not; nor is no pair at all."""
    sequences = sequences_of(*[[1, 2, 3, 3]] * 3, [2, 1, 3, 3])
    InteractionGraphs(sequences, 2, 0.0, 0.0)
    with pytest.raises(UserError, match=r"ssdrec\.frequent: no two items .* more than 3 times .* at most 3 times"):
        InteractionGraphs(sequences, 3, 0.0, 0.0)
    with pytest.raises(UserError, match="at most 0 times"):
        InteractionGraphs(sequences_of([1, 2, 3]), 0, 0.0, 0.0)


# --- stage 2 ---


def literal_around(augmenter: Augmenter, states: Tensor) -> tuple[Tensor, Tensor]:
    """States of the LSTM at t - 1 from the left and at t + 1 from the right, between a start and an end."""
    framed = torch.cat([augmenter.ends[:1], states, augmenter.ends[1:]])
    left, right = augmenter.reader.lstm(framed[:, None])[0][:, 0].chunk(2, dim=1)
    return left[:-2], right[2:]


def literal_noise(augmenter: Augmenter, states: Tensor) -> Tensor:
    """1 - softmax_t <x_t, fw_(t-1) * bw_(t+1)> softmax_t sum_(j != t) <clamp x_t, clamp x_j>."""
    before, after = literal_around(augmenter, states)
    count = len(states)
    sequence = torch.stack([states[t] @ (before[t] * after[t]) for t in range(count)])
    clamped = states.clamp(-1, 1)
    item = torch.stack(
        [sum((clamped[t] @ clamped[j] for j in range(count) if j != t), torch.zeros(())) for t in range(count)]
    )
    return 1 - torch.softmax(sequence, 0) * torch.softmax(item, 0)


def test_the_noise_score_equals_the_literal_reading() -> None:
    augmenter = spread_noise()
    states = torch.randn(3, 4, DIM, generator=torch.Generator().manual_seed(1))
    valid = torch.arange(4) < torch.tensor([4, 1, 2])[:, None]
    real = Jagged(valid)
    before, after = augmenter.around(states[valid], real)
    found = noise_score(states[valid], before, after, real)
    for row, length in enumerate((4, 1, 2)):
        own = states[row, :length]
        for states_found, expected in zip((before, after), literal_around(augmenter, own), strict=True):
            torch.testing.assert_close(states_found.split([4, 1, 2])[row], expected)
        torch.testing.assert_close(found[row, :length], literal_noise(augmenter, own))


def spread_noise(**more: Any) -> Augmenter:
    torch.manual_seed(0)
    augmenter = Augmenter(DIM, LENGTH, **more)
    with torch.no_grad():
        for weight in augmenter.parameters():
            weight.normal_(std=0.5)
    return augmenter


def test_layouts_by_hand() -> None:
    """Pool numbers 0 1 2 are the history's, 3 goes left and 4 right of the place; then a position goes.

    Place 1 of three: 0 3 1 4 2; place 0 of one: 3 0 4; no room: 0 1 2 as they are.
    """
    place, room = torch.tensor([1, 0, 1]), torch.tensor([True, True, False])
    layout = inserted(torch.tensor([3, 1, 3]), place, room, 3)
    assert laid(layout) == [[0, 3, 1, 4, 2], [3, 0, 4], [0, 1, 2]]
    shorter = without(layout, torch.tensor([3, 0, 1]), room)
    assert laid(shorter) == [[0, 3, 1, 2], [0, 4], [0, 1, 2]]


def laid(layout: Layout) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(layout.source, layout.lengths.tolist(), strict=True)]


def test_padding_is_never_picked() -> None:
    """Though its noise score is the largest; by a quirk it mostly is: of 6 positions 5 are padding."""
    valid = torch.tensor([[True, False, False]]).expand(3000, 3)
    score, generator = torch.zeros(3000, 3), torch.Generator().manual_seed(0)
    assert (spread_noise().picked(score, valid, 0.5, generator).place == 0).all()
    found = spread_noise(quirks=("void_positions",)).picked(score, valid, 0.5, generator).place
    expected = 1 / (1 + (LENGTH - 1) * math.e)
    assert found.max() == LENGTH - 1 and (found == 0).float().mean().item() == pytest.approx(expected, abs=0.02)


def test_positions_are_picked_as_often_as_their_softmax_says() -> None:
    score = torch.tensor([[0.0, 1.0, 0.5]]).expand(20000, 3)
    picked = spread_noise().picked(score, score > -1, 0.5, torch.Generator().manual_seed(0))
    shares = torch.bincount(picked.place) / 20000
    torch.testing.assert_close(shares, torch.softmax(score[0], dim=0), atol=0.01, rtol=0)
    assert (picked.flag == 1).all()


class Draws:
    """The random numbers of an augmentation, in their order."""

    def __init__(self, seed: int, prefixes: int, windows: int, longest: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        shapes = ((prefixes, longest), (windows, ITEMS), (windows, ITEMS), (prefixes, longest + 2))
        self.place, self.left, self.right, self.again = (
            masking.gumbel(torch.Size(shape), generator, CPU) for shape in shapes
        )


def literal_augmentation(
    model: SSDRec, items: list[int], owner: Tensor, draws: Draws, row: int, window: int
) -> tuple[list[int], list[Tensor]]:
    """The augmented items of one history and the graphs' embeddings that the item's signal reads."""
    table, augmenter, count = literal_items(model), model.augmenter, len(items)
    states = table[torch.tensor(items)] + owner / count
    place = int((literal_noise(augmenter, states) + draws.place[row, :count]).argmax())
    seen = list(table[torch.tensor(items)])
    if count > LENGTH - 2:
        return items, seen
    before, after = literal_around(augmenter, states)
    left = int((table[1:] @ before[place] + draws.left[window]).argmax()) + 1
    right = int((table[1:] @ after[place] + draws.right[window]).argmax()) + 1
    longer = [*items[:place], left, items[place], right, *items[place + 1 :]]
    seen = [*seen[:place], table[left], seen[place], table[right], *seen[place + 1 :]]
    looked = torch.cat([states[:place], table[[left]], states[[place]], table[[right]], states[place + 1 :]])
    again = int((literal_noise(augmenter, looked) + draws.again[row, : count + 2]).argmax())
    if place <= again <= place + 2:
        del longer[again], seen[again]
    return longer, seen


@pytest.mark.parametrize("seed", range(5))
def test_the_augmentation_equals_the_literal_reading(seed: int) -> None:
    """Every prefix with its own draws, those of the catalogue being its window's; one has no room."""
    model = ssdrec(seed=seed)
    batch = batch_of([3, 1, 4, 1, 5, 9], [9, 2], [6], [5, 3, 5, 8])
    examples = prefixes_with_target(batch)
    lengths = examples.batch.valid.sum(1).tolist()
    assert model.graphs is not None
    draws, users = Draws(seed, len(lengths), 4, max(lengths)), literal_users(model)
    found = model.view_in_training(batch, examples)
    table = model.encoder.items(model.graphs, model.users.weight, model.items.weight)
    assert found.seen is not None
    read = found.seen.split(found.histories.valid.sum(1).tolist())
    for row, (window, length) in enumerate(zip(examples.window.tolist(), lengths, strict=True)):
        items = examples.batch.items[row, :length].tolist()
        user = users[batch.users[window]]
        expected, seen = literal_augmentation(model, items, user, draws, row, window)
        assert found.histories.items[row].tolist() == expected + [0] * (found.histories.items.shape[1] - len(expected))
        torch.testing.assert_close(read[row], torch.stack(seen), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.query[row], user)
    assert len(table) == ITEMS + 1 and model.end_epoch()["augmented"] == (len(lengths) - 1) / len(lengths)


def test_cut_tails() -> None:
    """By a quirk a history is judged no longer than before the insertion."""
    whole, cut = (ssdrec(quirks=quirks) for quirks in ([], ["cut_tails"]))
    examples = prefixes_with_target(BATCH)
    longer, shorter = (model.view_in_training(BATCH, examples).histories for model in (whole, cut))
    lengths = examples.batch.valid.sum(1)
    assert torch.equal(shorter.valid.sum(1), torch.minimum(longer.valid.sum(1), lengths))
    width = shorter.items.shape[1]
    assert torch.equal(shorter.items, longer.items[:, :width] * shorter.valid)
    assert (longer.valid.sum(1) > lengths).any()


def test_void_positions() -> None:
    """By a quirk few histories are augmented, the fewer the shorter."""
    shares = []
    for quirks in ([], ["void_positions"]):
        model = ssdrec(quirks=quirks)
        for _ in range(30):
            model.view_in_training(BATCH, prefixes_with_target(BATCH))
        shares.append(model.end_epoch()["augmented"])
    assert shares[0] == 1.0 and 0.05 < shares[1] < 0.5


# --- stage 3, and use ---


def test_in_use_the_item_signal_reads_the_saved_embeddings() -> None:
    """And asks the saved one of the user; the other signal reads plain embeddings."""
    model = ssdrec().eval()
    model.end_epoch()
    real = Jagged(BATCH.valid)
    items = real.rows(BATCH.items)
    embedded, seen, query = model.items(items), model.graph_items[items], model.graph_users[BATCH.users]
    found = model.signals_in_use(embedded, real, BATCH)
    torch.testing.assert_close(found.item, model.by_item(seen, real, query))
    torch.testing.assert_close(found.sequence, model.by_sequence(embedded, real)[0])
    assert not torch.equal(found.item, model.by_item(embedded, real, query))


def test_nothing_is_drawn_in_use() -> None:
    model = ssdrec().eval()
    before = model.generator.get_state()
    assert torch.equal(model.states(BATCH), model.states(BATCH))
    model.judge(BATCH)
    assert torch.equal(model.generator.get_state(), before)


@pytest.mark.parametrize("quirks", [(), ("void_positions",)])
@pytest.mark.parametrize("size", [0.05, 1.0])
def test_the_second_pick_is_that_of_all_scores(quirks: tuple[str, ...], size: float) -> None:
    """The LSTM reads fewer histories than there are, and the places are those of scores written out for all."""
    torch.manual_seed(0)
    augmenter = Augmenter(DIM, LENGTH, quirks)
    lengths = torch.randint(1, LENGTH + 1, (200,))
    lengths[0] = LENGTH
    valid = torch.arange(LENGTH) < lengths[:, None]
    states, real = torch.randn(200, LENGTH, DIM)[valid] * size, Jagged(valid)
    with mock.patch.object(augmenter, "around", wraps=augmenter.around) as around:
        found = augmenter.picked_again(states, real, torch.Generator().manual_seed(1))
    read = sum(len(call.args[1].lengths) for call in around.call_args_list)
    score = noise_score(states, *augmenter.around(states, real), real)
    assert torch.equal(found, augmenter.picked(score, valid, 0.5, torch.Generator().manual_seed(1)).place)
    assert 0 < read < 150


def test_targets_are_asked_by_a_quirk() -> None:
    examples = prefixes_with_target(BATCH)
    found = ssdrec(quirks=["target_query"])
    with mock.patch.object(found, "signals", wraps=found.signals) as signals:
        found.loss(BATCH)
    assert torch.equal(signals.call_args.args[2], found.items(examples.targets))


def test_what_comes_later_changes_nothing_in_training() -> None:
    """A prefix's augmented history and state, with the same draws, whatever follows it in the window."""
    lengths = prefixes_with_target(BATCH).batch.valid.sum(1)
    for place in range(4):
        found: list[Tensor] = []
        for batch in (BATCH, with_future(BATCH, place)):
            model = ssdrec(left_out=0.0)
            model.cross_entropy = lambda states, _, found=found: found.append(states) or states.sum()  # type: ignore
            model.loss(batch)
        seen = lengths <= place + 1
        torch.testing.assert_close(found[0][seen], found[1][seen], rtol=0, atol=0)


def test_the_cross_entropy_trains_every_stage() -> None:
    """Through the sampled decisions and choices; the users' plain embeddings too."""
    model = ssdrec(seed=2, spread=0.3, temperature=1.0)
    model.loss(BATCH)["ce"].backward()
    reached = [path for path, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()]
    missed = {path for path, _ in model.named_parameters()} - set(reached)
    assert not missed, missed
    assert model.items.weight.grad is not None and not model.items.weight.grad[0].any()
    assert model.users.weight.grad is not None and not model.users.weight.grad[0].any()


def test_learns_one_batch_by_heart_where_nothing_is_inserted() -> None:
    """Otherwise it cannot: the histories of training are hardly ever those of the batch."""
    model = build(small_config("ssdrec", "gru4rec"), Feed(SEQUENCES)).train()
    assert isinstance(model, SSDRec)
    model.augmenter.max_length = 0  # no room
    batch = batch_of([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(200):
        optimizer.zero_grad()
        torch.stack(list(model.loss(batch).values())).sum().backward()
        optimizer.step()
        if step % 10 == 9:
            model.end_epoch()
    model.eval()
    for length in range(1, 6):
        prefix = Batch(batch.rows[:, :length], batch.items[:, :length], batch.targets[:, :length], batch.users)
        scores = model.states(prefix) @ model.item_table().T
        assert (scores[:, 1:].argmax(1) + 1).tolist() == batch.items[:, length].tolist()


def test_training_and_serving_need_no_more_than_they_should() -> None:
    """The graphs are not saved; the embeddings that use needs are; the sampled loss is refused."""
    model, other = (build(small_config("ssdrec", "gru4rec"), feed) for feed in (Feed(SEQUENCES), None))
    assert set(model.state_dict()) == set(other.state_dict()) >= {"graph_items", "graph_users"}
    with pytest.raises(UserError, match=r"train\.full_catalogue: .* computes with all 12 in each batch"):
        start(model, train_params(full_catalogue=ITEMS - 1), 0)
    start(model, train_params(full_catalogue=ITEMS), 0)


def test_held_out_items_change_no_graph() -> None:
    items = SEQUENCES.items.clone()
    ends = SEQUENCES.offsets[1:]
    held_out = torch.cat([ends - 2, ends - 1])
    items[held_out] = items[held_out] % (ITEMS - 1) + 1
    one, other = (
        dict(InteractionGraphs(sequences, 1, 0.2, 0.2).named_buffers())
        for sequences in (SEQUENCES, Sequences(items, SEQUENCES.offsets))
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "value"),
    [("frequent", -1), ("frequent", 1.5), ("cold_items", 1.1), ("cold_users", -0.1), ("quirks", ["x"])],
)
def test_invalid_parameters_are_named(name: str, value: Any) -> None:
    with pytest.raises(ParamsError, match=rf"ssdrec\.{name}"):
        committed("ssdrec", **{name: value})


def test_no_dropout_in_the_embeddings_for_use() -> None:
    """The encoder's branches are under dropout in training alone."""
    model = ssdrec(embedding_dropout=0.5)
    assert model.graphs is not None
    noisy = model.encoder.items(model.graphs, model.users.weight, model.items.weight)
    model.end_epoch()
    torch.testing.assert_close(model.graph_items[1:], literal_items(model)[1:])
    torch.testing.assert_close(model.graph_users[1:], literal_users(model)[1:])
    assert model.encoder.of_items.dropout.training and not torch.allclose(model.graph_items[1:], noisy[1:])


def test_the_gradient_of_a_pick_is_that_of_the_soft_choice() -> None:
    """At its temperature, among real positions."""
    score = torch.tensor([[0.0, 1.0, 0.5], [0.3, 0.2, 0.9]], requires_grad=True)
    valid = torch.tensor([[True, True, True], [True, True, False]])
    picked = spread_noise().picked(score, valid, 0.3, torch.Generator().manual_seed(0))
    noise = masking.gumbel(score.shape, torch.Generator().manual_seed(0), CPU)
    soft = torch.softmax(((score + noise) / 0.3).masked_fill(~valid, float("-inf")), dim=1)
    grads = [
        torch.autograd.grad(chosen.sum(), score) for chosen in (picked.flag, soft.gather(1, picked.place[:, None]))
    ]
    torch.testing.assert_close(*grads)
    assert grads[0][0].any(1).all()


def test_the_temperature_by_now_is_that_of_the_augmentation() -> None:
    model = ssdrec()
    model.temperature = 0.3
    with mock.patch.object(model.augmenter, "forward", wraps=model.augmenter.forward) as augment:
        model.view_in_training(BATCH, prefixes_with_target(BATCH))
    assert augment.call_args.args[3] == 0.3


def test_the_graphs_are_read_in_float32() -> None:
    """In bfloat16 the embeddings would differ from those of use by more than items differ from one another."""
    model = ssdrec(embedding_dropout=0.0)
    model.prepare(LossSettings(torch.bfloat16))
    assert model.training and model.graphs is not None
    found = model.encoder.items(model.graphs, model.users.weight, model.items.weight)
    torch.testing.assert_close(found[1:], literal_items(model)[1:])


def test_the_item_signal_trains_what_it_reads_and_whom_it_asks() -> None:
    """The encoder has a gradient through the history's own items, through the inserted ones, and through the query."""
    model = ssdrec()
    found = model.view_in_training(BATCH, prefixes_with_target(BATCH))
    assert found.seen is not None
    own = (found.histories.rows >= 0)[found.histories.valid]
    for part, fusion in (
        (found.seen[own], model.encoder.of_items),
        (found.seen[~own], model.encoder.of_items),
        (found.query, model.encoder.of_users),
    ):
        (grad,) = torch.autograd.grad(part.sum(), fusion.outer.weight, retain_graph=True)
        assert grad.any()
