"""`watch` where rows begin without a state: is one lost, or is none meant?"""

import pytest
import torch
from support.loops import Reader, drop, fit, train
from torch import nn

from echo_torch import watch

ROWS = 4
STREAM = torch.randn(ROWS, 80, 3, generator=torch.Generator().manual_seed(1))
PAIRS = torch.randn(40, 20, 3, generator=torch.Generator().manual_seed(2))
BATCHES = torch.randn(10, 4, 20, 3, generator=torch.Generator().manual_seed(4))
STEPS_FIRST = BATCHES.transpose(1, 2).contiguous()
FLAT = STEPS_FIRST.flatten().clone()
SHUFFLED = torch.randperm(40, generator=torch.Generator().manual_seed(3))


class Pairs(nn.Module):
    """Tells of two parts of a sample whether they belong together; each is encoded by itself, from zeros."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(10, 1)


def score(model, parts):
    encode = model.encoder  # called from outside of any module, once for each part
    return model.head(torch.cat([encode(part)[1][0] for part in parts], 1))


def learn(model, samples, cut=lambda sample: sample.split(10, 1)):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for sample in samples:
        optimizer.zero_grad()
        score(model, cut(sample)).square().mean().backward()
        optimizer.step()


def in_batches(order):
    return [PAIRS[some] for some in order.split(8)]


def halves():
    learn(Pairs(), in_batches(SHUFFLED))


def halves_in_order():
    learn(Pairs(), in_batches(torch.arange(40)))


def halves_with_a_validation():
    model = Pairs()
    for _ in range(3):
        learn(model, in_batches(SHUFFLED))
        model.eval()
        with torch.no_grad():
            for sample in in_batches(torch.arange(40)):
                score(model, sample.split(10, 1))
        model.train()


def halves_without_a_training():
    model = Pairs().eval()
    with torch.no_grad():
        for sample in in_batches(torch.arange(40)):
            score(model, sample.split(10, 1))


def sentences_of_documents():
    """Four sentences each, of which the first and the last are kept."""
    learn(Pairs(), in_batches(SHUFFLED), lambda sample: sample.view(-1, 4, 5, 3).unbind(1)[::3])
    learn(Pairs(), in_batches(SHUFFLED), lambda sample: sample.view(-1, 4, 5, 3).unbind(1)[1:3])


def halves_whose_first_state_is_noise():
    class Noisy(nn.GRU):
        def forward(self, part):
            return super().forward(part, torch.randn(1, len(part), 5))

    model = Pairs()
    model.encoder = Noisy(3, 5, batch_first=True)
    learn(model, in_batches(SHUFFLED))


def halves_that_are_stepped():
    """By a cell, from zeros to the end of each half."""

    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(3, 5), nn.Linear(10, 1)

    def encode(model, part):
        state = torch.zeros(len(part), 5)
        for step in part.unbind(1):
            state = model.cell(step, state)
        return state

    model = Stepped()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for sample in in_batches(SHUFFLED):
        optimizer.zero_grad()
        parts = [encode(model, part) for part in sample.split(10, 1)]
        model.head(torch.cat(parts, 1)).square().mean().backward()
        optimizer.step()


def samples_that_lie_in_batches():
    """An array (batches, rows, steps, features): a row of the next batch is another sample."""
    train(Reader(batch_first=True), list(BATCHES), drop)


def samples_that_lie_in_batches_steps_first():
    """An array (batches, steps, rows, features): where one batch ends the next begins, as it would in a series."""
    train(Reader(), list(STEPS_FIRST), drop)


def samples_of_a_flat_array():
    """A table of lines that a view makes batches of: as it is read it is no series."""
    train(Reader(), FLAT.view_as(STEPS_FIRST), drop)


def samples_of_an_array_of_numpy():
    train(Reader(), torch.from_numpy(STEPS_FIRST.numpy().flatten().reshape(STEPS_FIRST.shape)), drop)


def members_of_a_set():
    """A cell reads each by itself, and all that it gives is used."""

    class Members(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 5)

        def forward(self, sample):
            return sum(self.cell(member) for member in sample.unbind(1))

    torch.manual_seed(0)
    fit(Members(), in_batches(SHUFFLED))


HEALTHY = [
    halves, halves_in_order, halves_that_are_stepped, halves_with_a_validation, halves_without_a_training,
    sentences_of_documents, halves_whose_first_state_is_noise, samples_that_lie_in_batches,
    samples_that_lie_in_batches_steps_first, members_of_a_set, samples_of_a_flat_array,
    samples_of_an_array_of_numpy,
]  # fmt: skip


@pytest.mark.parametrize("loop", HEALTHY, ids=lambda loop: loop.__name__)
def test_parts_of_a_sample_that_are_read_each_by_itself(loop):
    """It cannot be known, and is said to be unknown."""
    with watch() as seen:
        loop()
    assert seen.faults == []
    assert sum("parts of a sample" in text for text in seen.unknown) == 1


def a_chunk_an_update():
    train(Reader(batch_first=True), STREAM.split(5, 1), drop)


def accumulated():
    """Two backward passes an update."""
    model = Reader(batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, chunk in enumerate(STREAM.split(5, 1)):
        model(chunk)[0].square().mean().backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()


def two_chunks_a_graph():
    """Half of the states are lost inside a graph, the others between two."""
    model = Reader(batch_first=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for pair in STREAM.split(10, 1):
        optimizer.zero_grad()
        sum(model(chunk)[0].square().mean() for chunk in pair.split(5, 1)).backward()
        optimizer.step()


def steps_of_one_graph():
    """A single step without a state has no use for a recurrent layer."""
    cell = nn.GRUCell(3, 5)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.1)
    for sample in in_batches(torch.arange(40).flip(0)):
        sum(cell(step).mean() for step in sample.unbind(1)).backward()
        optimizer.step()


def steps_inside_of_a_module(number=40):
    """A loop of the model's own that forgets to hand on what its cell gives; samples in any order."""

    class Stepped(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(3, 5), nn.Linear(5, 1)

        def forward(self, sample):
            for step in sample.unbind(1):
                state = self.cell(step)
            return self.head(state[0])

    torch.manual_seed(0)
    fit(Stepped(), [PAIRS[some] for some in SHUFFLED[:number].split(8 if number > 8 else 1)])


def steps_of_one_row_inside_of_a_module():
    steps_inside_of_a_module(6)


def without_a_training():
    model = Reader(batch_first=True).eval()
    with torch.no_grad():
        for chunk in STREAM.split(5, 1):
            model(chunk)


class Tree(nn.Module):
    """A cell reads each leaf from zeros, then goes on upwards with what it left."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell = nn.GRUCell(3, 5)

    def forward(self, sample):
        states = [self.cell(leaf) for leaf in sample.unbind(1)[:8]]
        while len(states) > 1:
            pairs = zip(states[::2], states[1::2], strict=True)
            states = [self.cell(torch.zeros(8, 3), one + other) for one, other in pairs]
        return states[0]


def leaves_of_a_tree():
    fit(Tree(), in_batches(SHUFFLED))


def leaves_of_a_tree_without_a_training():
    model = Tree()
    with torch.no_grad():
        for sample in in_batches(SHUFFLED):
            model(sample)


def triplets_of_single_steps():
    """Three inputs of one step each, that stand one after another in the data, are no loop over time."""

    class Triplets(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.GRUCell(3, 5)

        def forward(self, sample):
            anchor, near, far = (self.cell(sample[:, step]) for step in range(3))
            return (anchor - near).square().sum() - (anchor - far).square().sum()

    torch.manual_seed(0)
    fit(Triplets(), in_batches(SHUFFLED))


def samples_of_a_flat_array_one_by_one():
    samples = FLAT.view(-1, 20, 3)
    train(Reader(batch_first=True), samples.split(1), torch.zeros_like, torch.zeros(1, 1, 5))


def test_what_begins_beside_is_not_lost():
    for loop in (
        leaves_of_a_tree, leaves_of_a_tree_without_a_training, triplets_of_single_steps,
        samples_of_a_flat_array_one_by_one,
    ):  # fmt: skip
        with watch() as seen:
            loop()
        assert seen.faults == []


FAULTY = {
    a_chunk_an_update: 60,
    accumulated: 60,
    two_chunks_a_graph: 60,
    steps_of_one_graph: 5 * 19 * 8,
    steps_inside_of_a_module: 5 * 19 * 8,
    steps_of_one_row_inside_of_a_module: 6 * 19,
    without_a_training: 60,
}


@pytest.mark.parametrize("loop", FAULTY, ids=lambda loop: loop.__name__)
def test_states_that_are_lost(loop):
    with watch() as seen:
        loop()
    found = [(finding.kind, finding.count, finding.of) for finding in seen.faults]
    assert found == [("state-lost", FAULTY[loop], FAULTY[loop])]
    assert seen.unknown == []
