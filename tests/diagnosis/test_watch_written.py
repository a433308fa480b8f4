"""`watch` and arrays that a script fills: what was written stands where it comes from, as long as that is there."""

import random

import pytest
import torch
from torch import nn

from echo_torch import watch
from echo_torch.diagnosis.watching.arrays import ARRAY, BLANK, Arrays
from echo_torch.diagnosis.watching.regular import written_out

ROWS, HORIZON, FEATURES = 2, 5, 3


def assign(buffer, step, row, frame):
    buffer[step, row] = frame


def copy(buffer, step, row, frame):
    buffer[step][row].copy_(frame)


def rollouts(episodes, write, make=torch.zeros):
    """Yield buffers (steps, rows, features) and the flags of fresh episodes."""
    waiting, left = iter(episodes), [[] for _ in range(ROWS)]
    for _ in range(8):
        buffer, fresh = make((HORIZON, ROWS, FEATURES)), torch.zeros(HORIZON, ROWS, dtype=torch.bool)
        for step in range(HORIZON):
            for row in range(ROWS):
                if not left[row]:
                    fresh[step, row], left[row] = True, list(next(waiting))
                write(buffer, step, row, left[row].pop(0))
        yield buffer, fresh


def play(episodes, write, *, is_reset, make=torch.zeros):
    cell, hidden = nn.GRUCell(FEATURES, 4), torch.zeros(ROWS, 4)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    for buffer, fresh in rollouts(episodes, write, make):
        hidden, outputs = hidden.detach(), []
        for frame, begins in zip(buffer, fresh, strict=True):
            hidden = hidden.masked_fill(begins[:, None], 0.0) if is_reset else hidden
            hidden = cell(frame, hidden)
            outputs.append(hidden)
        optimizer.zero_grad()
        torch.stack(outputs).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("write", [assign, copy])
@pytest.mark.parametrize("make", [torch.zeros, torch.empty, torch.randn])
def test_episodes_that_run_into_each_other(write, make):
    episodes = [torch.randn(4 + number % 3, FEATURES) for number in range(20)]
    with watch() as seen:
        play(episodes, write, is_reset=True, make=make)
    assert seen.faults == []
    with watch() as seen:
        play(episodes, write, is_reset=False, make=make)
    assert [finding.kind for finding in seen.faults] == ["other-sequence"]


def test_frames_that_are_kept_one_by_one_are_no_sequences():
    """A buffer of frames, each an array for itself; its rows are read by themselves, in two passes."""
    frames, buffer = [torch.randn(4, FEATURES) for _ in range(30)], torch.zeros(30, 4, FEATURES)
    cell = nn.GRUCell(FEATURES, 4)
    with watch() as seen, torch.no_grad():
        for step, frame in enumerate(frames):
            buffer[step] = frame
        for rows in ([0, 1], [2, 3], [1, 2]) * 2:
            hidden = None
            for step in buffer[:, rows]:
                hidden = cell(step, hidden)
    assert seen.faults == []


def test_what_was_written_from_what_is_gone_stands_in_the_buffer():
    buffer = torch.zeros(8, 3)
    with watch() as seen:
        places = seen._calls.places
        for step in range(8):
            buffer[step] = torch.randn(3)
        found = places.of(buffer)
    assert len(set((found // ARRAY).flatten().tolist())) == 1
    assert (found % ARRAY).flatten().tolist() == list(range(24))


def test_what_is_overwritten_by_something_unknown():
    source = torch.randn(4, 3)
    with watch() as seen:
        places, buffer = seen._calls.places, torch.zeros(4, 3)
        buffer[1] = source[3]
        buffer[2] = source[2]
        buffer[2] = 5.0
        found, own = places.of(buffer), places.of(source)
    assert torch.equal(found[1], own[3])
    assert (found[0] // ARRAY == 0).all()  # blank
    assert not set((found[2] // ARRAY).tolist()) & set((own // ARRAY).flatten().tolist())


def test_indices_that_make_a_copy_are_not_followed():
    source, buffer = torch.randn(2, 3), torch.zeros(4, 3)
    with watch() as seen:
        buffer[torch.tensor([0, 1])] = source
        assert not seen._calls.places.arrays._written


def one_by_one(values):
    for number in range(len(values)):
        values[number - 1] = number  # the last one first


def at_once(values):
    values[:] = values.numel()


@pytest.mark.parametrize(
    "make", [lambda: torch.zeros(6), lambda: torch.empty(4, 6)[2], lambda: torch.empty(6, 4)[:, 1]]
)
@pytest.mark.parametrize("times", [1, 2])
def test_numbers_set_one_by_one_are_as_a_whole_that_is_set(make, times):
    """Once they make data of a buffer; what is set there again stands nowhere."""
    found = []
    for write in (one_by_one, at_once):
        with watch() as seen:
            values = make()
            for _ in range(times):
                write(values)
            places = seen._calls.places.of(values)
            found.append([place % ARRAY if place > ARRAY else place for place in places.tolist()])
    assert found[0] == found[1]
    assert (found[0] == [BLANK] * 6) == (times == 2)


def rewrite_whole(buffer):
    buffer.copy_(torch.randn(buffer.shape))  # of which nothing is left afterwards


def rewrite_rows(buffer):
    for row in buffer:
        row.copy_(torch.randn(row.shape))


def draw_into(buffer):
    torch.randn(buffer.shape, out=buffer)


@pytest.mark.parametrize(
    "form", [lambda buffer: buffer, lambda buffer: buffer.to("cpu"), lambda buffer: buffer.float()]
)
@pytest.mark.parametrize("rewrite", [rewrite_whole, rewrite_rows, draw_into])
def test_a_buffer_that_is_written_over_and_over_is_not_read_again(rewrite, form):
    """Other numbers stand at the same places; what a function returns without work is no copy of them."""
    buffer, state = torch.zeros(2, HORIZON, FEATURES), None
    gru = nn.GRU(FEATURES, 4, batch_first=True)
    optimizer = torch.optim.SGD(gru.parameters(), lr=0.1)
    with watch(gru) as seen:
        for _ in range(12):
            rewrite(buffer)
            output, state = gru(form(buffer), state)
            state = state.detach()
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
    assert seen.faults == []


def test_a_layer_without_values_is_none_of_its_business():
    with watch() as seen:
        with torch.device("meta"):
            nn.GRU(3, 8)(torch.zeros(4, 5, 3))
        nn.GRU(3, 8)(torch.zeros(4, 5, 3))
    assert seen.fault is None
    assert seen.layers == ["GRU"]


@pytest.mark.parametrize("fill", [lambda out: torch.randint(9, (8,), out=out), lambda out: torch.arange(8, out=out)])
def test_what_makes_numbers_of_nothing_may_write_them_into_an_array(fill):
    """Where a copy stood is no longer where its values stand."""
    data = torch.arange(40)
    with watch() as seen:
        copied = data[torch.tensor([3, 1, 4, 1, 5, 9, 2, 6])]
        before = seen._calls.places.of(copied)
        fill(copied)
        assert not torch.equal(seen._calls.places.of(copied), before)


class _Forgets(set):
    """Holds nothing."""

    def add(self, value):
        pass


def fill_at_random(seed, *, forgets):
    """Where the values of an array stand after each of some writes, and how many of these were looked into."""
    draw = random.Random(seed)
    arrays, whole, data = Arrays(), torch.ones(4, 3), torch.arange(12.0).view(4, 3)
    arrays._blank = _Forgets() if forgets else set()
    found, looked = [], arrays._fill
    counts = [0]
    arrays._fill = lambda *given, **named: counts.append(1) or looked(*given, **named)
    for _ in range(30):
        rows = draw.choice([slice(None), slice(None), slice(1, 3), 2])
        what = draw.choice(["unknown", "unknown", "constant", "data", "number"])
        if what == "number":
            arrays.fill_one(whole.flatten(), draw.randrange(12))
        else:
            sources = arrays.places_of(data[rows]) if what == "data" else None
            arrays.write(whole[rows], sources, is_constant=what == "constant")
        found.append(written_out(arrays.places_of(whole)).tolist())
    return found, sum(counts)


def test_an_array_that_is_filled_again_and_again_is_looked_at_a_few_times():
    """The same is known of it as if each filling had been looked at."""
    for seed in range(60):
        found, number = fill_at_random(seed, forgets=False)
        found_by_all, number_of_all = fill_at_random(seed, forgets=True)
        assert found == found_by_all
        assert number <= number_of_all
    gradient, arrays, looked = torch.ones(5, 4), Arrays(), []
    fill = arrays._fill
    arrays._fill = lambda *given, **named: looked.append(0) or fill(*given, **named)
    for _ in range(9):
        arrays.write(gradient, None)
    assert len(looked) == 2
    assert set(written_out(arrays.places_of(gradient)).flatten().tolist()) == {BLANK}
