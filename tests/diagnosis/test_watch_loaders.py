"""`watch` and loaders: batches from workers, and datasets of numpy, stand where their rows stand."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch._C import _len_torch_function_stack
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from echo_torch import watch
from echo_torch.diagnosis.watching import calls as calls_module
from echo_torch.diagnosis.watching import loaders as loaders_module

STEPS, ROWS, NUMBER = 4, 2, 20
SERIES = torch.randn(STEPS * NUMBER, 3, generator=torch.Generator().manual_seed(1))


class Windows(Dataset):
    """Consecutive windows of a series, cut when they are asked for."""

    def __init__(self, series=SERIES, cut=lambda part: part):
        self.series, self.cut, self.number_read = series, cut, 0

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        self.number_read += 1
        return self.cut(self.series[index * STEPS : (index + 1) * STEPS])


class Noisy(Windows):
    def __getitem__(self, index):
        return super().__getitem__(index) + torch.randn(STEPS, 3)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(SERIES.view(NUMBER, STEPS, 3))


def train(loader, passes=1):
    torch.manual_seed(0)
    core = nn.GRU(3, 4, batch_first=True)
    optimizer = torch.optim.SGD(core.parameters(), lr=0.1)
    for _ in range(passes):
        state = None
        for batch in loader:
            batch = batch[0] if isinstance(batch, (list, tuple)) else batch
            output, state = core(batch, state)
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
            state = state.detach()
    return core


def kinds(seen):
    return [finding.kind for finding in seen.faults]


SHUFFLED = torch.randperm(NUMBER, generator=torch.Generator().manual_seed(2)).tolist()
BY_ROW = [row * (NUMBER // ROWS) + place for place in range(NUMBER // ROWS) for row in range(ROWS)]


@pytest.mark.parametrize(
    ("order", "expected"),
    [(BY_ROW, []), (range(NUMBER), ["rows-skip"]), (SHUFFLED, ["shuffled"])],
)
@pytest.mark.parametrize("options", [{"num_workers": 2}, {"num_workers": 1, "persistent_workers": True}])
def test_workers(order, expected, options):
    loader = DataLoader(Windows(), ROWS, sampler=order, **options)
    with watch() as seen:
        train(loader, passes=2)
    assert kinds(seen) == expected
    assert seen.unknown == []
    assert not seen._calls.places.has_unread
    assert loader.dataset.number_read == 0  # the copy is read


@pytest.mark.parametrize(
    "dataset", [TensorDataset(SERIES.view(NUMBER, STEPS, 3)), SERIES.view(NUMBER, STEPS, 3)], ids=["tensors", "tensor"]
)
def test_other_datasets_with_workers(dataset):
    with watch() as seen:
        train(DataLoader(dataset, ROWS, num_workers=1))
    assert kinds(seen) == ["rows-skip"]


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("cut", [torch.from_numpy, torch.tensor, torch.as_tensor, lambda part: part])
def test_arrays_of_numpy(cut, num_workers):
    dataset = Windows(SERIES.numpy(), cut)
    for order, expected in ((BY_ROW, []), (range(NUMBER), ["rows-skip"])):
        with watch() as seen:
            train(DataLoader(dataset, ROWS, sampler=order, num_workers=num_workers))
        assert kinds(seen) == expected
        assert seen.unknown == []


def test_arrays_of_numpy_in_a_plain_loop():
    series = SERIES.numpy().reshape(ROWS, -1, 3)
    for skip, expected in ((0, []), (1, ["rows-skip"])):
        with watch() as seen:
            train([torch.tensor(series[:, begin : begin + STEPS]) for begin in range(0, 36, STEPS + skip)])
        assert kinds(seen) == expected
        assert seen.unknown == []


@pytest.mark.parametrize("dataset", [Noisy(), Stream()], ids=["random", "iterable"])
def test_what_cannot_be_read_again_is_unknown(dataset):
    with watch() as seen:
        train(DataLoader(dataset, ROWS, num_workers=1))
    assert seen.faults == []
    assert ["it is not known whether a row" in text for text in seen.unknown] == [True]
    assert "or come from workers of a loader and cannot be read a second time" in seen.unknown[0]


@pytest.mark.parametrize(("limit", "value"), [("_MOST_BYTES", 100), ("_MOST_OBJECTS", 1), ("_MOST_SECONDS", -1.0)])
def test_what_is_too_large_or_too_slow_is_unknown(monkeypatch, limit, value):
    monkeypatch.setattr(loaders_module, limit, value)
    with watch() as seen:
        train(DataLoader(Windows(), ROWS, num_workers=1))
    assert seen.faults == []


def test_padding_of_workers():
    rows = [torch.randn(length, 3) for length in (6, 3, 4, 6, 6, 2) * 3]
    core = nn.GRU(3, 4, batch_first=True)
    with watch() as seen:
        for batch in DataLoader(rows, 3, num_workers=1, collate_fn=with_padding):
            core(batch)[0][:, -1].square().mean().backward()
    assert kinds(seen) == ["padding-read"]


def with_padding(rows):
    return pad_sequence(rows, batch_first=True)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_gives_the_same(num_workers):
    def read(is_watched):
        torch.manual_seed(4)
        np.random.seed(4)
        loader = DataLoader(Noisy(), ROWS, shuffle=True, num_workers=num_workers)
        if is_watched:
            with watch():
                core = train(loader, passes=2)
        else:
            core = train(loader, passes=2)
        return [*core.state_dict().values(), torch.get_rng_state(), torch.from_numpy(np.random.get_state()[1])]

    names = [(_BaseDataLoaderIter, "__next__"), *((_MultiProcessingDataLoaderIter, n) for n in ("__init__", "_reset"))]
    before = [getattr(*name) for name in names]
    assert all(map(torch.equal, read(True), read(False)))
    assert [getattr(*name) for name in names] == before
    assert "_next_index" not in vars(_MultiProcessingDataLoaderIter)


# --- where a pass ends and another begins, after the first updates ------------------------------------------------


class Streamed(IterableDataset):
    """The same windows, of which nobody knows how many there are."""

    def __iter__(self):
        return iter(Windows()[number] for number in range(NUMBER))


def passes(loader, *, is_reset=False, number=3, updates=5):
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4)
    optimizer, state = torch.optim.SGD(layer.parameters(), lr=0.1), None
    with watch(updates=updates) as seen:
        for _ in range(number):
            state = None if is_reset else state
            for batch in loader:
                output, state = layer(batch[:, None], state)
                state = tuple(field.detach() for field in state)
                optimizer.zero_grad()
                output.mean().backward()
                optimizer.step()
    return seen


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"num_workers": 1, "persistent_workers": True}], ids=str)
@pytest.mark.parametrize("is_reset", [False, True])
def test_a_state_over_the_end_of_a_pass(is_reset, options):
    """Of twenty batches a pass the first five are watched; the second pass and the third go back to the start."""
    seen = passes(DataLoader(Windows(), batch_size=None, **options), is_reset=is_reset)
    back = [(finding.kind, finding.count) for finding in seen.faults]
    assert back == ([] if is_reset else [("rows-reread", 2)])
    assert [text for text in seen.unknown if "2 new passes of a loader were watched" in text] == seen.unknown
    assert sum(call.is_remembered for call in seen._calls.calls) == 3  # before the last batch of each pass
    assert _len_torch_function_stack() == 0


def test_after_a_fault_of_the_watch_no_border_is_looked_for(monkeypatch, capsys):
    monkeypatch.setattr(calls_module.Calls, "leave_recurrent", lambda *given, **named: 1 / 0)
    before = _BaseDataLoaderIter.__next__
    with watch() as seen:
        assert _BaseDataLoaderIter.__next__ is not before
        nn.GRU(3, 4)(next(iter(DataLoader(Windows()))))
        assert isinstance(seen.fault, ZeroDivisionError)
        assert _BaseDataLoaderIter.__next__ is before
    assert capsys.readouterr().err.count("\n") == 1


def test_a_border_that_nobody_sees_coming():
    seen = passes(DataLoader(Streamed(), batch_size=None))
    assert seen.faults == []
    assert "it is not known what the state does where the data begin anew" in seen.unknown[-1]


def test_very_many_passes_are_not_all_watched():
    seen = passes(DataLoader(Windows(), batch_size=None), number=60)
    assert seen.faults[0].count == calls_module._MOST_PASSES + 1
    assert len(seen._calls.calls) < 150


def test_inside_of_another_mode_a_border_is_not_watched():
    """The mode of the watch would be taken away in the place of that one."""
    loader = DataLoader(Windows(), batch_size=None)
    layer = nn.LSTM(3, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    with watch(updates=5):
        batches = itertools.chain(loader, loader)
        for number in range(2 * NUMBER):
            with torch.device("cpu") if number >= 5 else contextlib.nullcontext():
                batch = next(batches)
            layer(batch[:, None])[0].mean().backward()
            optimizer.step()
            assert _len_torch_function_stack() == (number < 4)
    assert _len_torch_function_stack() == 0
