"""`watch` where a training goes on with the state of an evaluation: a leak, or a warm-up?"""

import pytest
import torch
from support.loops import Reader, detached
from torch import nn

from echo_torch import watch

LENGTH, WARM = 10, 4
DATA, OTHERS = (torch.randn(4, 120, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
REPLAYED = torch.randn(30, LENGTH, 3, generator=torch.Generator().manual_seed(2))


def in_order(number):
    """A stretch of the stream, and the whole of it."""
    return DATA[:, number * LENGTH : (number + 1) * LENGTH]


def replayed(number):
    """Four sequences out of a memory."""
    draw = torch.Generator().manual_seed(number)
    return REPLAYED[torch.randint(30, (4,), generator=draw)]


def from_elsewhere(number):
    """Sequences that are made on the way, so that nobody knows where one goes on."""
    return Unfollowed(replayed(number))


class Unfollowed:
    """Cut by something that torch does not see."""

    def __init__(self, whole):
        self.whole = whole.numpy()

    def __getitem__(self, index):
        return torch.tensor((self.whole[index] * 1.0).tolist())


def warm_up(sample, warming=None, *, mode="eval", number=12):
    """The first steps of each sequence are read for a state, the others are trained with it."""
    model = Reader(batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for each in range(number):
        model.train(mode != "eval")
        with torch.no_grad():
            _, state = model((warming or sample)(each)[:, :WARM])
        model.train()
        output, _ = model(sample(each)[:, WARM:], state)
        optimizer.zero_grad()
        output.square().mean().backward()
        optimizer.step()


def others(number):
    return OTHERS[:, number * LENGTH : (number + 1) * LENGTH]


def leaks(seen):
    return [(finding.count, finding.of) for finding in seen.faults if finding.kind == "validation-leak"]


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("sample", [in_order, replayed])
def test_a_state_that_is_warmed_up_is_no_leak(sample, mode):
    with watch() as seen:
        warm_up(sample, mode=mode)
    assert (seen.faults, seen.unknown) == ([], [])


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_leak_comes_from_data_of_their_own(mode):
    with watch() as seen:
        warm_up(in_order, others, mode=mode)
    assert leaks(seen) == [(12, 12)]


def evaluated_between(number, every, evaluate):
    """A training in order that goes on with what each evaluation has left."""
    model, state = Reader(batch_first=True), None
    with watch() as seen:
        for each in range(number):
            output, state = model(in_order(each), state)
            output.square().mean().backward()
            state = detached(state)
            if each % every == every - 1:
                model.eval()
                _, state = evaluate(model, each, state)
                state = detached(state)
                model.train()
    return seen


def test_a_leak_comes_from_elsewhere_in_the_same_data():
    seen = evaluated_between(12, 4, lambda model, each, state: model(in_order(0), state))
    assert leaks(seen) == [(2, 2)]


def test_a_leak_is_not_told_again_as_rows_that_read_elsewhere():
    """The evaluation begins by itself, later in the data: its state has read nothing of what the training reads."""
    seen = evaluated_between(6, 2, lambda model, each, state: model(in_order(9 + each // 2), None))
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [("validation-leak", 2, 2)]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_where_nothing_is_known_of_places_a_warm_up_is_unknown(mode):
    """An evaluation that began with the state of the training is none."""
    with watch() as seen:
        warm_up(from_elsewhere, mode=mode)
    assert leaks(seen) == []
    assert sum("12 of 12 changes from evaluation to training" in text for text in seen.unknown) == 1
    model, state = Reader(batch_first=True), None
    with watch() as seen:
        for number in range(6):
            output, state = model(from_elsewhere(number)[:, :], state)
            output.square().mean().backward()
            model.eval()
            _, state = model(from_elsewhere(number + 6)[:, :], detached(state))
            model.train()
            state = detached(state)
    assert leaks(seen) == [(5, 5)]


def test_behind_the_watched_updates_a_warm_up_is_one_too():
    """There no places are followed."""
    with watch(updates=4) as seen:
        warm_up(in_order)
    assert seen._calls.calls[-1].standing is None
    assert (leaks(seen), [text for text in seen.unknown if "changes" in text and "warm-up" in text]) == ([], [])


def test_a_cell_that_is_warmed_up():
    cell = nn.GRUCell(3, 5)
    with watch() as seen:
        for number in range(10):
            state, loss = None, 0
            for step in range(LENGTH):
                cell.train(step >= WARM)
                with torch.set_grad_enabled(step >= WARM):
                    state = cell(in_order(number)[:, step], state)
                loss = loss + state.mean()
            loss.backward()
    assert seen.faults == []


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_stepped_evaluation_without_gradients_leaves_its_state(mode):
    """A step alone tells of no array, but those of a loop do. What it left is told once."""

    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.cell, self.state = nn.GRUCell(3, 5), None

        def forward(self, chunk):
            outputs = []
            for step in chunk.unbind(1):
                self.state = self.cell(step, self.state)
                outputs.append(self.state)
            self.state = self.state.detach()
            return torch.stack(outputs)

    model = Stepped()
    with watch() as seen:
        for each in range(12):
            model(in_order(each)).square().mean().backward()
            if each % 4 == 3:
                model.train(mode == "train")
                with torch.no_grad():
                    model(others(0))
                    model(others(1))
                model.train()
    assert leaks(seen) == [(2, 2)]
    assert [(one.count, one.of) for one in seen.faults if one.kind == "other-sequence"] == [(12, 60)]


@pytest.mark.parametrize("sample", [replayed, from_elsewhere])
def test_steps_without_gradients_that_read_samples_of_their_own_may_warm_up(sample):
    """A support set before a query set looks so: then no training goes on in its rows behind them."""

    def support(number):
        return torch.randn(4, LENGTH, 3, generator=torch.Generator().manual_seed(number))

    with watch() as seen:
        warm_up(sample, support, mode="train")
    assert leaks(seen) == []
    assert seen.faults == []


def evaluate_now_and_then(where, *, every=3, number=12):
    """Chunks of a series; after some of them another part of it is read with the state of the training."""
    model, state = Reader(batch_first=True), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    series = torch.randn(4, 400, 3, generator=torch.Generator().manual_seed(3))
    with watch(model) as seen:
        for each in range(number):
            output, state = model(series[:, each * LENGTH : (each + 1) * LENGTH], state)
            optimizer.zero_grad()
            output.square().mean().backward()
            optimizer.step()
            state = state.detach()
            if (each + 1) % every == 0:
                begin = where(each)
                model.eval()
                with torch.no_grad():
                    model(series[:, begin : begin + LENGTH], state)
                model.train()
    return [(finding.kind, finding.count, finding.of) for finding in seen.faults]


def test_a_state_goes_from_the_training_into_an_evaluation():
    """Behind the training's data, at one distance, or at as many as there are evaluations: that is something else."""
    assert evaluate_now_and_then(lambda each: (each + 1) * LENGTH) == []
    assert evaluate_now_and_then(lambda each: (each + 1) * LENGTH + 2) == [("rows-skip", 16, 60)]
    assert evaluate_now_and_then(lambda each: 300) == [("other-sequence", 16, 60)]
