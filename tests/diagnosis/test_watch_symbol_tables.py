"""`watch` and tables of vectors that a script looks symbols up in: what is read stands where the symbols stand."""

import pytest
import torch
from support.loops import Reader, drop, train
from support.watched_models import kinds
from torch import nn
from torch.utils.data import DataLoader, Dataset

from echo_torch import watch

SYMBOLS, ROWS, STEPS, CHUNKS = 12, 4, 5, 24
DRAW = torch.Generator().manual_seed(0)
TEXT = torch.randint(SYMBOLS, (ROWS, STEPS * CHUNKS), generator=DRAW)
EYE, VECTORS = torch.eye(SYMBOLS), torch.randn(SYMBOLS, 3, generator=DRAW)
SERIES = torch.randn(400, 3, generator=DRAW)


def chunks(text, axis=1):
    return text.split(STEPS, axis)


class Chunks(Dataset):
    def __len__(self):
        return CHUNKS

    def __getitem__(self, number):
        return TEXT[:, number * STEPS : (number + 1) * STEPS]


READ = {
    "one-hot rows": lambda: (EYE[part] for part in chunks(TEXT)),
    "vectors": lambda: (VECTORS[part] for part in chunks(TEXT)),
    "in a tuple": lambda: (VECTORS[(part,)] for part in chunks(TEXT)),
    "of a copy": lambda: ((VECTORS / 2)[part.int().long()] for part in chunks(TEXT)),
    "made in the loop": lambda: (torch.eye(SYMBOLS)[part] for part in chunks(TEXT)),
    "index_select": lambda: (EYE.index_select(0, part.flatten()).view(ROWS, STEPS, -1) for part in chunks(TEXT)),
    "by name": lambda: (
        torch.index_select(EYE, dim=0, index=part.flatten()).view(ROWS, STEPS, -1) for part in chunks(TEXT)
    ),
    "a number each": lambda: (VECTORS[:, 0][part][..., None].expand(-1, -1, 3) for part in chunks(TEXT)),
    "of a loader": lambda: (VECTORS[part] for part in DataLoader(Chunks(), None)),
    "of a longer table": lambda: (torch.eye(900)[part][..., :3] for part in chunks(TEXT)),
    "one row": lambda: (VECTORS[part[:1]] for part in chunks(TEXT)),
    "single steps": lambda: (VECTORS[part] for part in chunks(TEXT, 1) for part in part.split(1, 1)),
}


@pytest.mark.parametrize("name", READ)
def test_a_text_is_read_in_order_whatever_its_symbols(name):
    read = list(READ[name]())
    with watch() as seen:
        train(Reader(batch_first=True, size=read[0].shape[-1]), READ[name]())
    assert kinds(seen) == []
    assert set(seen.reach().gaps) == {0}


def test_symbols_that_a_cell_reads_one_by_one():
    model = nn.GRUCell(SYMBOLS, 5)
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    with watch(model) as seen:
        for part in chunks(TEXT):
            for symbols in part.unbind(1):
                state = model(EYE[symbols], state)
            optimizer.zero_grad()
            state.square().mean().backward()
            optimizer.step()
            state = state.detach()
    assert kinds(seen) == []
    assert set(seen.reach().gaps) == {0}


def test_symbols_that_a_layer_reads_one_by_one():
    text = TEXT[0]
    with watch() as seen:
        train(Reader(batch_first=True), (VECTORS[symbol][None, None] for symbol in text))
    assert kinds(seen) == []
    assert set(seen.reach().gaps) == {0}


@pytest.mark.parametrize("table", [EYE, VECTORS])
def test_a_shuffled_text_is_still_one(table):
    """Its chunks are read in another order, or a step is left out between them."""
    order = torch.randperm(CHUNKS, generator=torch.Generator().manual_seed(3)).tolist()
    parts = chunks(TEXT)
    with watch() as seen:
        train(Reader(batch_first=True, size=table.shape[1]), (table[parts[number]] for number in order))
    assert [kind for kind, *_ in kinds(seen)] == ["shuffled"]
    with watch() as seen:
        train(Reader(batch_first=True, size=table.shape[1]), (table[part[:, 1:]] for part in parts))
    assert [kind for kind, *_ in kinds(seen)] == ["rows-skip"]


def test_symbols_of_which_nobody_knows_where_they_stand():
    with watch() as seen:
        train(Reader(batch_first=True), (VECTORS[part % 7 * part % 5] for part in chunks(TEXT)))
    assert kinds(seen) == []
    assert any("it is not known whether a row goes on" in line for line in seen.unknown)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_flat", [True, False])
def test_a_text_that_is_looked_up_whole(is_known, is_flat):
    """Then it stands where the symbols stand; where nobody knows that, in the array that was made."""
    with watch() as seen:
        symbols = TEXT if is_known else TEXT % 7 * TEXT % 5
        whole = VECTORS[symbols.flatten()].view(ROWS, -1, 3) if is_flat else VECTORS[symbols]
        train(Reader(batch_first=True), whole.split(STEPS, 1))
    assert kinds(seen) == []
    assert set(seen.reach().gaps) == {0}


def windows(*, ahead, turned=False):
    """Windows of a series that indices pick; each batch goes on where the one before stopped, or elsewhere."""
    begins = torch.arange(ROWS) * 100
    for number in range(19):
        steps = torch.arange(STEPS) + number * (STEPS + ahead)
        index = begins[:, None] + steps
        yield SERIES[index.T].transpose(0, 1) if turned else SERIES[index]


@pytest.mark.parametrize("turned", [False, True])
def test_windows_that_indices_pick_are_data(turned):
    for ahead, expected in ((0, []), (-1, ["rows-reread"])):
        with watch() as seen:
            train(Reader(batch_first=True), windows(ahead=ahead, turned=turned))
        assert [kind for kind, *_ in kinds(seen)] == expected
        assert ahead in seen.reach().gaps


@pytest.mark.parametrize("is_whole", [False, True])
def test_samples_in_another_order_are_data(is_whole):
    """Each of them once, step by step, or a batch of them as rows of steps."""
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    if is_whole:
        read = (SERIES[part.view(ROWS, STEPS)] for part in order.split(ROWS * STEPS))
    else:
        read = (SERIES[part][:, None] for part in order.split(ROWS))
    with watch() as seen:
        train(Reader(batch_first=True), read)
    assert [kind for kind, *_ in kinds(seen)] == ["shuffled"]


def test_samples_with_steps_are_no_vectors_of_symbols():
    samples = torch.randn(6, STEPS, 3)
    picked = torch.tensor([[0, 3, 3, 1], [2, 0, 5, 4], [3, 3, 1, 2]] * 6)
    with watch() as seen:
        train(Reader(batch_first=True), (samples[index] for index in picked), drop)
        assert not seen._calls.places._tables._numbers


TWICE = torch.tensor([[3, 1, 1], [0, 2, 5]])
PICKS = {
    "symbols": (lambda table: table[TWICE], True),
    "of a view": (lambda table: table[1:][TWICE], True),
    "none twice, and few": (lambda table: table[torch.tensor([[3, 4, 1], [0, 2, 5]])], False),
    "forwards": (lambda table: table[torch.tensor([[0, 3, 4], [1, 4, 7]])], False),
    "backwards": (lambda table: table[torch.tensor([[5, 4, 3], [4, 3, 2]])], False),
    "samples that were drawn": (lambda table: table[torch.tensor([3, 1, 1, 0])], False),
    "many of them": (lambda table: table[torch.tensor([3, 1, 1, 0] * 3)], True),
    "truths": (lambda table: table[torch.tensor([[True, True]] * 8)], False),
    "one symbol of a text": (lambda table: table[torch.tensor([3, 1, 1, 0] * 3)[2]], True),
    "one sample": (lambda table: table[torch.tensor([3, 1, 2, 0])[2]], False),
    "features": (lambda table: table.index_select(1, torch.tensor([1, 0, 1] * 5)), False),
    "an order": (lambda table: table[torch.argsort(table, 0)], False),
    "none": (lambda table: table[torch.zeros(0, 2, dtype=torch.int64)], False),
}


@pytest.mark.parametrize("name", PICKS)
def test_what_tells_symbols_from_positions(name):
    pick, is_symbols = PICKS[name]
    with watch() as seen:
        pick(torch.randn(8, 2))
        assert bool(seen._calls.places._tables._numbers) == is_symbols
    assert seen.fault is None
