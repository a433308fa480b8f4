"""`reach_of`: one's own loader, run over positions."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset, TensorDataset

from echo_torch import Stamps, reach, reach_of


class Windows(Dataset):
    """Windows of a series, and the value that follows each."""

    def __init__(self, series, steps=10):
        self.series, self.steps = series, steps

    def __len__(self):
        return len(self.series) // self.steps - 1

    def __getitem__(self, number):
        low = number * self.steps
        return self.series[low : low + self.steps], self.series[low + self.steps]


def columns(series, *, rows=4, steps=10):
    """As word language models cut a text."""
    table = series[: len(series) // rows * rows].view(rows, -1)
    return [table[:, low : low + steps] for low in range(0, table.shape[1], steps)]


def test_windows_in_order_and_by_columns():
    found = reach_of(lambda series: DataLoader(Windows(series), batch_size=4), 410)
    assert (found.gap, found.faults) == (30, ("rows-skip",))
    found = reach_of(columns, 400, 3)
    assert (found.gap, found.faults, found.reachable_share) == (0, (), 1 - 4 * 3 / 400)
    found = reach_of(lambda series: DataLoader(Windows(series), batch_size=4, shuffle=True), 4010)
    assert found.faults == ("shuffled",)


def test_it_is_what_stamps_would_say():
    expected = reach(columns(torch.arange(400)), 3, stamps=lambda batch: Stamps(batch))
    assert reach_of(columns, 400, 3) == expected
    assert reach_of(columns, 400, 3, stamps=lambda batch: Stamps(batch)) == expected
    assert reach_of(lambda series: [batch.T for batch in columns(series)], 400, 3, time_major=True) == expected


@pytest.mark.parametrize(
    "of_batch",
    [
        lambda x: (x, x + 1),
        lambda x: [torch.rand(3), x],
        lambda x: {"mask": torch.ones(x.shape, dtype=torch.bool), "x": x},
        lambda x: x.float()[..., None],
        lambda x: x.numpy(),
        lambda x: (("names",), {"deep": [x.to(torch.int32)]}),
    ],
)
def test_batches_of_any_form(of_batch):
    """A mask is no position; whole numbers may come as floats."""
    assert reach_of(lambda series: list(map(of_batch, columns(series))), 400).gaps == {0: 396}


def test_single_steps():
    assert reach_of(lambda series: DataLoader(TensorDataset(series), batch_size=5), 50).gap == 4


def test_several_series_and_the_zeros_of_padding():
    def padded(series):
        return [pad_sequence(series[low : low + 2], batch_first=True) for low in (0, 2)]

    found = reach_of(padded, [5, 3, 4, 6], 1)
    assert found.targets == 18
    assert found.gaps == {0: 4 + 2 + 3 + 5, "other": 2}
    assert reach_of(lambda series: padded([s.flip(0) for s in series]), [5, 3, 4, 6]).gap == -2


@pytest.mark.parametrize("lag", [0, 3])
def test_the_targets_of_an_echo_are_its_answers(lag):
    def echo(series):
        table = series.view(4, -1)
        before = torch.zeros(4, lag, dtype=torch.long)
        targets = torch.cat([before, table[:, : table.shape[1] - lag]], dim=1)
        return [(table[:, low : low + 10], targets[:, low : low + 10]) for low in range(0, 100, 10)]

    found = reach_of(echo, 400, answers=lambda batch: batch[1])
    assert (found.targets, found.reachable_share) == (400 - 4 * lag, 1)
    assert found.in_horizon_share == pytest.approx(1 if lag == 0 else (10 * 10 - 10 * lag) / (100 - lag), abs=0.01)


def test_the_answer_of_a_window_is_asked_at_its_last_step():
    found = reach_of(lambda series: DataLoader(Windows(series), batch_size=1), 410, answers=lambda batch: batch[1])
    assert (found.targets, found.reachable_share) == (40, 0)  # the value that follows is not read yet
    first = reach_of(
        lambda series: [(series[None, low : low + 5], series[low : low + 1]) for low in range(0, 50, 5)],
        50,
        answers=lambda batch: batch[1],
    )
    assert (first.targets, first.reachable_share, first.in_horizon_share) == (10, 1, 1)


def test_answers_in_another_series_were_read_by_nobody():
    def across(series):
        return [(torch.stack(series), torch.stack(series[::-1]))]

    assert reach_of(across, [4, 4], answers=lambda batch: batch[1]).reachable_share == 0


@pytest.mark.parametrize(
    ("make_loader", "length", "options", "message"),
    [
        (columns, 0, {}, "`length` must be a whole number of at least 1"),
        (columns, [], {}, "`length` must be a whole number of at least 1"),
        (columns, "40", {}, r"`length` must be a whole number.* Got \['4', '0'\]"),
        (columns, [7.0, 3.0], {}, r"`length` must be a whole number.* Got \[7.0, 3.0\]"),
        (columns, 40.0, {}, "`length` must be a whole number.* Got 40.0"),
        (columns, None, {}, "`length` must be a whole number.* Got None"),
        (columns, True, {}, "`length` must be a whole number.* Got True"),
        (lambda series: None, 40, {}, "`make_loader` must return the loader.*Got NoneType; return DataLoader"),
        (lambda series: [series[None].bfloat16()], 40, {}, r"Got Tensor of bfloat16 \(1, 40\)"),
        (lambda series: [series[None].half()], 40, {}, r"Got Tensor of float16 \(1, 40\)"),
        (lambda series: [series[None].to(torch.uint8)], 40, {}, r"Got Tensor of uint8 \(1, 40\)"),
        (columns(torch.arange(40)), 40, {}, r"`make_loader` must be a function.*Got list; hand over a function"),
        (
            lambda series: [torch.rand(4, 5)],
            40,
            {},
            r"hands out the numbers of its array.*Got Tensor of float32 \(4, 5\)",
        ),
        (lambda series: [series[None] + 100], 40, {}, r"Got Tensor of int64 \(1, 40\); say with `stamps`"),
        (lambda series: ["text"], 40, {}, "Got str; say with"),
        (
            columns,
            40,
            {"answers": lambda batch: batch[:, :3]},
            r"`answers` must return positions, .*Got Tensor of int64",
        ),
        (columns, 40, {"answers": lambda batch: None}, r"`answers` must return positions, .*Got NoneType"),
        (columns, 40, {"lag": 1, "answers": lambda batch: batch}, "`lag` must be None where"),
    ],
)
def test_what_is_no_loader_of_positions(make_loader, length, options, message):
    with pytest.raises(ValueError, match=message):
        reach_of(make_loader, length, **options)


def test_numpy_series():
    found = reach_of(lambda series: [series.numpy()[None, low : low + 5] for low in range(0, 50, 5)], 50)
    assert found.gaps == {0: 49}
    assert isinstance(found.gaps, dict)
    assert np.sum(list(found.borders.values())) == 9


@pytest.mark.parametrize(
    "of_batch",
    [
        lambda x: {"attention_mask": torch.ones_like(x), "input_ids": x},
        lambda x: (torch.full((len(x),), x.shape[1]), x),  # lengths
        lambda x: (torch.arange(len(x)) + 1, torch.zeros_like(x), x),  # labels, token types
        lambda x: (torch.nn.functional.one_hot(x % 7).float(), x),
        lambda x: Pair(torch.ones(len(x), dtype=torch.long), x),
        lambda x: pack_sequence(list(x)),
    ],
)
def test_other_fields_before_the_positions_are_not_taken_for_them(of_batch):
    assert reach_of(lambda series: list(map(of_batch, columns(series))), 400).gaps == {0: 396}


@dataclass
class Pair:
    label: torch.Tensor
    x: torch.Tensor


def test_packed_rows_are_rows_in_either_order():
    def packed(series):
        return [pack_sequence(series[low : low + 2], enforce_sorted=False) for low in (0, 2)]

    for time_major in (False, True):
        found = reach_of(packed, [5, 3, 4, 6], 1, time_major=time_major)
        assert found.gaps == {0: 4 + 2 + 3 + 5, "other": 2}


@pytest.mark.parametrize("padding", [0, 1, -1, -100, 7])
def test_whatever_is_no_position_is_padding(padding):
    def padded(series):
        rows = [pad_sequence(series[low : low + 2], batch_first=True, padding_value=padding) for low in (0, 2)]
        return [*rows, torch.full_like(rows[0], padding)]  # rows that are not used

    found = reach_of(padded, [5, 3, 4, 6])
    assert (found.gaps, found.chunks) == ({0: 4 + 2 + 3 + 5, "other": 2}, 3)


@pytest.mark.parametrize(
    "length", [np.int64(400), torch.tensor(400), np.array([100, 300]), (each for each in (100, 300))]
)
def test_lengths_of_numpy_and_of_torch(length):
    def make_loader(series):
        return columns(torch.cat(series) if isinstance(series, list) else series, rows=1)

    found = reach_of(make_loader, length)
    assert sum(found.gaps.values()) == 399


def test_what_make_loader_draws_is_not_missed():
    def make_loader(series):
        torch.manual_seed(3)
        return [series.view(40, 10)[torch.randperm(40)]]

    before = torch.get_rng_state()
    reach_of(make_loader, 400)
    assert torch.equal(torch.get_rng_state(), before)
