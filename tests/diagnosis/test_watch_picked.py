"""`watch` where records are dropped by a mask, or put in the order of their times, before a training reads them."""

import numpy as np
import pytest
import torch
from support.loops import Reader, drop, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching import selections as selections_module
from echo_torch.diagnosis.watching.selections import Selections

DRAW = torch.Generator().manual_seed(1)
RAW, ROWS = torch.randn(200, 3, generator=DRAW), torch.randn(200, 4, 3, generator=DRAW)
TIMES, KEPT = torch.rand(200, generator=DRAW), torch.rand(200, generator=DRAW) > 0.3
KEPT[130:], KEPT[:4] = True, torch.tensor([True, False, True, True])
NUMBER = 140


class Stepped(nn.Module):
    """A cell that is stepped."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(3, 5), nn.Linear(5, 1)

    def forward(self, chunk, state=None):
        states = []
        for step in chunk:
            state = self.cell(step, state)
            states.append(state)
        return self.head(torch.stack(states)), state


def in_two_rows(records):
    return records[:NUMBER].view(2, -1, *records.shape[1:]).split(5, 1)


def by_loader(records):
    rows = NUMBER // 10
    order = [row * rows + place for place in range(rows) for row in range(2)]
    return [batch for (batch,) in DataLoader(TensorDataset(records[:NUMBER].view(-1, 5, 3)), 2, sampler=order)]


PICKED = {
    "mask": lambda raw: raw[KEPT],
    "mask of numpy": lambda raw: raw[KEPT.numpy()],
    "nonzero": lambda raw: raw[KEPT.nonzero().squeeze(1)],
    "where": lambda raw: raw[torch.where(KEPT)[0]],
    "argsort": lambda raw: raw[TIMES.argsort()],
    "sort": lambda raw: raw.index_select(0, torch.sort(TIMES)[1]),
    "backwards": lambda raw: raw.index_select(dim=0, index=TIMES.argsort(descending=True).flip(0)),
    "both": lambda raw: raw[TIMES.argsort()][KEPT],
}


@pytest.mark.parametrize("name", PICKED)
def test_records_that_are_read_as_they_were_picked(name):
    with watch(updates=100) as seen:
        train(Reader(batch_first=True), in_two_rows(PICKED[name](RAW)))
        train(Reader(), PICKED[name](ROWS).split(5))
        train(Reader(batch_first=True), by_loader(PICKED[name](RAW)))
    assert (seen.faults, seen.unknown) == ([], [])
    assert all(seen.reach(layer).gap == 0 for layer in seen.layers)


def test_cells_symbols_and_rows_that_are_picked_along_another_axis():
    symbols = torch.randint(9, (300,), generator=torch.Generator().manual_seed(2))
    with watch() as seen:
        train(Stepped(), ROWS[KEPT].split(5))
        train(Reader(batch_first=True, symbols=9), in_two_rows(symbols[symbols != 3]))
        train(Reader(batch_first=True), ROWS.transpose(0, 1)[:, KEPT].split(5, 1))
    assert seen.faults == []


def test_records_of_one_user_after_the_other():
    users, model = torch.arange(200) % 7 % 4, Reader(batch_first=True)
    with watch() as seen:
        for user in range(4):
            train(model, RAW[users == user][None].split(5, 1))
    assert seen.faults == []


def skipping(records):
    return in_two_rows(records)[::2]


def stretches(records):
    return by_loader(records)[::-1]


@pytest.mark.parametrize("name", ["mask", "argsort"])
@pytest.mark.parametrize(
    ("read", "hand_on", "kind", "words"),
    [
        (skipping, lambda state: state.detach(), "rows-skip", "mostly 5 steps on"),
        (stretches, lambda state: state.detach(), "rows-reread", "mostly 10 steps"),
        (in_two_rows, drop, "state-lost", "At 26 of 26 places"),
    ],
)
def test_faults_are_told_in_the_steps_of_what_was_picked(name, read, hand_on, kind, words):
    with watch() as seen:
        train(Reader(batch_first=True), read(PICKED[name](RAW)), hand_on)
    assert [finding.kind for finding in seen.faults] == [kind]
    assert words in seen.faults[0].sentence


def test_a_state_is_lost_where_records_between_two_chunks_were_dropped():
    with watch() as seen:
        train(Reader(batch_first=True), in_two_rows(RAW[torch.arange(200) % 10 < 5]), drop)
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [("state-lost", 18, 18)]


def test_a_permutation_that_is_drawn_is_a_shuffle():
    with watch() as seen:
        train(
            Reader(batch_first=True), in_two_rows(RAW[torch.randperm(200, generator=torch.Generator().manual_seed(3))])
        )
    assert [finding.kind for finding in seen.faults] == ["shuffled"]


def test_what_is_put_in_order_for_something_else_tells_nothing():
    with watch() as seen:
        median = RAW[RAW[:, 0].argsort()][100]
        train(Reader(batch_first=True), in_two_rows(RAW)[::2])
    assert [(finding.kind, "mostly 5 steps" in finding.sentence) for finding in seen.faults] == [("rows-skip", True)]
    assert median.shape == (3,)


def test_rows_that_a_mask_drops_from_each_batch_are_moved():
    data, model, state = torch.randn(6, 60, 3), Reader(batch_first=True), None
    active = torch.ones(6, dtype=torch.bool)
    with watch() as seen:
        for begin in range(0, 60, 5):
            active[begin // 20] = begin % 20 != 15 and bool(active[begin // 20])
            chunk = data[active][:, begin : begin + 5]
            output, state = model(chunk, None if state is None else state[:, : len(chunk)].contiguous().detach())
            output.mean().backward()
    assert [finding.kind for finding in seen.faults] == ["lanes-moved"]


def test_samples_that_are_sorted_by_their_lengths_do_not_go_on():
    data, lengths = torch.randn(24, 6, 3), torch.randperm(24, generator=torch.Generator().manual_seed(4))
    with watch() as seen:
        train(Reader(batch_first=True), [data[some] for some in lengths.argsort().split(4)])
    assert [finding.kind for finding in seen.faults] == ["shuffled"]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(selections_module, "_MOST_VALUES", 8)
    picked = Selections()
    for begin in (0, 10, 20):
        picked.note(torch.tensor([1, 3, 5]) + begin, 0)
    assert [picked.gap(begin + 1, begin + 3) for begin in (0, 10, 20)] == [None, 0, 0]


def test_of_several_orders_any_may_be_read():
    picked = Selections()
    picked.note(torch.tensor([[1, 2], [3, 4], [9, 8]]), 0)
    picked.note(torch.tensor([[1, 9, 3]]), 1)
    assert (picked.gap(1, 3), picked.gap(1, 9), picked.gap(2, 8), picked.gap(1, 4)) == (0, 0, 1, None)
    assert picked.gap(9, 3) == 0
    assert picked.axis("__getitem__", (RAW, np.array([True])), {}) == 0
    assert picked.axis("__getitem__", (RAW, (slice(None), None, KEPT)), {}) == 2
    assert picked.axis("__getitem__", (RAW, (0, KEPT)), {}) == 0
    assert picked.axis("__getitem__", (RAW, (KEPT, KEPT)), {}) is None
    assert picked.axis("__getitem__", (RAW, KEPT[None]), {}) is None
