"""`watch`: does each row go on where its state stopped? Places are followed through copies, lists and buffers."""

import pytest
import torch
from support.loops import Reader, train
from support.watched_models import Model, kinds
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching.hand_overs import HandOvers


def windows(series, order, *, rows=2, steps=4):
    """Batches of consecutive windows, by a loader."""
    data = TensorDataset(series.view(-1, steps, 3))
    loader = DataLoader(data, batch_size=rows, sampler=order)
    return [batch.transpose(0, 1) for (batch,) in loader]


def by_row(number, rows=2):
    """Row i of each batch goes on where row i of the batch before stopped."""
    return [row * (number // rows) + place for place in range(number // rows) for row in range(rows)]


SERIES = torch.randn(160, 3, generator=torch.Generator().manual_seed(2))
# Stretches in another order: four sizes of gaps, but most hand-overs have none.
BLOCKS = [
    window
    for first, last in ((0, 3), (10, 12), (4, 9), (17, 19), (13, 15), (16, 16))
    for window in by_row(40)[2 * first : 2 * last + 2]
]
SHUFFLED = torch.randperm(40, generator=torch.Generator().manual_seed(3)).tolist()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (by_row(40), []),
        (range(40), [("rows-skip", "core", 38, 38)]),
        (SHUFFLED, [("shuffled", "core", 36, 38)]),
        ([*by_row(40)[:20], *by_row(40)[22:]], [("rows-skip", "core", 2, 36)]),
        (BLOCKS, [("rows-skip", "core", 4, 38), ("rows-reread", "core", 4, 38)]),
        ([*by_row(40)[:20], *by_row(40)[16:]], [("rows-reread", "core", 2, 42)]),
    ],
)
@pytest.mark.parametrize("prepare", [lambda batch: batch, lambda batch: (batch.double() / 2).float()])
def test_where_rows_go_on(order, expected, prepare):
    """The loader makes copies, and a preparation copies them again."""
    model = Model()
    with watch(model) as seen:
        train(model, map(prepare, windows(SERIES, order)))
    assert kinds(seen) == expected
    assert seen.unknown == []
    rows = [window * 4 for window in order]
    gaps = [b - a - 4 for a, b in zip(rows, rows[2:], strict=False)]
    assert sum(gap != 0 for gap in gaps) == sum(count for _, _, count, _ in expected)


@pytest.mark.parametrize("is_reset", [False, True])
def test_sequences_one_after_another(is_reset):
    model, sequences = Model(), [torch.randn(12, 2, 3) for _ in range(5)]

    def read():
        state = None
        for sequence in sequences:
            state = train(model, sequence.split(4), state=None if is_reset else state)

    with watch(model) as seen:
        read()
        read()
    expected = [] if is_reset else [("other-sequence", "core", 2 * 8, 2 * 28)]
    assert kinds(seen)[:1] == expected


def test_batches_made_on_the_way_stand_nowhere():
    """Each is an array of its own, and gone when the next one comes."""
    model = Model()
    with watch(model) as seen:
        train(model, (torch.randn(4, 2, 3) for _ in range(20)))
    assert seen.faults == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (slice(None), []),
        (slice(None, None, 2), [("rows-skip", "core", 4, 4)]),
        ([0, 1, 1, 2], [("rows-reread", "core", 2, 6)]),
    ],
)
def test_an_array_of_chunks(order, expected):
    """Its axes are chunks, rows and steps: a row goes on in the next chunk, though others stand in between."""
    model, data = Model(batch_first=True), torch.randn(6, 2, 4, 3)
    with watch(model) as seen:
        train(model, [data[number] for number in torch.arange(6)[order].tolist()])
    assert kinds(seen) == expected
    assert all("mostly 4 steps" in finding.sentence for finding in seen.faults)


def test_single_steps_of_many_rows():
    """A step of an array (steps, rows, features) is all of its rows."""
    model, frames = Model(), torch.randn(30, 2, 3)
    with watch(model) as seen:
        train(model, frames.split(1))
    assert seen.faults == []
    with watch(model) as seen:
        train(model, frames[::3].split(1))
    assert kinds(seen) == [("rows-skip", "core", 18, 18)]


def test_symbols_through_an_embedding_and_two_layers():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.drop = nn.Embedding(9, 3), nn.Dropout(0.2)
            self.lower, self.core = nn.GRU(3, 3), Model()

        def forward(self, words, state):
            return self.core(self.lower(self.drop(self.embedding(words)))[0], state)

    model, text = Words(), torch.randint(9, (60, 2))
    with watch(model) as seen:
        train(model, text.split(4)[::2])
    assert ("rows-skip", "core.core", 2 * 7, 2 * 7) in kinds(seen)
    assert all(module != "lower" or kind == "state-lost" for kind, module, *_ in kinds(seen))


def test_places_are_followed():
    series, row = torch.arange(24).view(4, 6), torch.arange(6)
    with watch() as seen:
        places = seen._calls.places
        found = {
            "slice": series[1, 2:4],
            "copy": torch.stack([series[2], series[0]])[:, 1],
            "cat": torch.cat([series[:, :1], series[:, 3:4]], dim=1)[1],
            "index": series.t()[torch.tensor([5, 0]), 1],
            "halves": torch.cat([row[3:], row[:3]]),
            "cast": series[3].float().clone()[2:4],
            "T": torch.stack([series[2], series[0]]).T[:, 1],
            "mT": torch.stack([series[2], series[0]]).mT[5],
            "data": torch.stack([series[2], series[0]]).data[1],
            "pad": pad_sequence([series[0, :2], series[1, :1]], batch_first=True)[0],
        }
        stand = {name: (places.of(tensor) % 2**40).tolist() for name, tensor in found.items()}
        made = nn.Linear(6, 2)(series.float())
        assert places.of(made) is None
    assert stand == {name: tensor.long().tolist() for name, tensor in found.items()}
    assert len(places._kept) == 0


def test_nothing_is_kept_alive():
    with watch() as seen:
        places = seen._calls.places
        for _ in range(20):
            batch = torch.stack([torch.randn(5), torch.randn(5)]) / 2
        assert batch is not None
        assert len(places._kept) <= 2
        del batch
        assert len(places._kept) == 0


def test_a_buffer_that_is_filled_anew_stands_nowhere():
    """It is another step each time, though it lies in the same place."""
    model, state, word = Model(batch_first=True), None, torch.randn(2, 1, 3)
    with watch() as seen:
        for number in range(12):
            output, state = model(word.fill_(number) if number else word, state)
            state = tuple(field.detach() for field in state)
            output.mean().backward()
    assert seen.faults == []
    assert seen.unknown


@pytest.mark.parametrize("order", [range(5, -1, -1), [3, 0, 5, 1, 4, 2]], ids=["backwards", "permuted"])
def test_steps_outside_of_a_module_are_no_hand_overs(order):
    """A decoder reads a row in an order of its own, in a loop of the script itself."""
    cell, data = nn.LSTMCell(3, 4), torch.randn(2, 30, 3)
    with watch() as seen:
        for begin in range(0, 30, 6):
            state, loss = None, 0
            for step in order:
                state = cell(data[:, begin + step], state)
                loss = loss + state[0].mean()
            loss.backward()
    assert seen.faults == []


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("step", [9, 20])
def test_lines_that_are_joined_are_one_text(step, first):
    """As those of a file, each a tensor of its own that is kept; the text is cut into rows, which cross the lines."""
    generator = torch.Generator().manual_seed(1)
    lines = [torch.randint(9, (length,), generator=generator) for length in range(20, 60)]
    with watch() as seen:
        text = torch.cat([line[first:] for line in lines])
        rows = text[: len(text) // 4 * 4].view(4, -1).t().contiguous()
        train(Reader(nn.LSTM, symbols=9), rows.split(step))
    assert (seen.faults, seen.unknown) == ([], [])


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_samples_that_carry_nothing_meet_by_chance(seed):
    """Some row goes on in the storage where the row before it ended, but no rule is behind it."""
    torch.manual_seed(seed)
    samples, core = torch.randn(40, 5, 3), nn.GRU(3, 4, batch_first=True)
    with watch() as seen:
        for _ in range(6):
            for batch in samples[torch.randperm(40)].split(8):
                core(batch)[0].mean().backward()
    rows = HandOvers(seen._calls.calls, seen._calls).beginnings
    assert rows.continued >= 3
    assert 2 * rows.continued < rows.number == 29 * 8
    assert (rows.lost, rows.unclear) == (0, 0)
    assert seen.faults == []
    assert "gap:" not in " ".join(seen.lines())


def test_frames_of_a_list_give_no_stride():
    """Each is a tensor of its own; in between a series is read, where one step follows the other."""
    frames, series, core = [torch.randn(2, 3) for _ in range(40)], torch.randn(4, 2, 3), nn.GRU(3, 4)
    with watch() as seen:
        for begin in range(0, 40, 8):
            for first in range(begin, begin + 8, 2):
                core(torch.stack(frames[first : first + 2]))[0].mean().backward()
            _, state = core(series[:2])
            core(series[2:], state.detach())[0].mean().backward()
    assert seen.faults == []


def test_a_model_that_reads_its_own_guesses():
    """Each is a tensor of its own: from one to the next is no step. A sample that is primed goes on in one tensor."""
    torch.manual_seed(0)
    model, prime = Reader(symbols=9), torch.tensor([3, 5, 7])
    with watch() as seen:
        for _ in range(4):
            symbol, state, loss = torch.randint(9, (1, 1)), None, 0
            for _ in range(12):
                output, state = model(symbol, state)
                loss = loss + output.mean()
                symbol = (output.detach().view(1, 1) > 0).long()
            loss.backward()
            state = None
            for symbol in prime:
                _, state = model(symbol.view(1, 1), state)
    assert seen.faults == []


def test_samples_one_by_one_carry_no_state():
    data = torch.randn(20, 6, 3)
    with watch() as seen:
        core = nn.GRU(3, 4, batch_first=True)
        for sample in data.split(1):
            core(sample)[0].mean().backward()
    assert seen.faults == []


def test_streams_read_in_groups_are_other_sequences():
    """Streams 4 to 7 begin with the state of streams 0 to 3."""
    streams, model, state = torch.randn(8, 30, 3), Model(batch_first=True), None
    with watch() as seen:
        for group in streams.split(4):
            for chunk in group.split(6, dim=1):
                output, state = model(chunk, state)
                state = tuple(field.detach() for field in state)
                output.mean().backward()
    assert [finding.kind for finding in seen.faults] == ["other-sequence"]


@pytest.mark.parametrize("hours", [torch.randn(1, 30, 1), torch.randn(4, 6, 1).repeat(1, 5, 1)], ids=["rows", "calls"])
def test_a_feature_that_is_shared_tells_no_place(hours):
    """By rows, or by the calls: the hour of the day."""
    data, model, state = torch.randn(4, 30, 2), Model(batch_first=True), None
    with watch() as seen:
        for begin in range(0, 30, 6):
            part = slice(begin, begin + 6)
            read = torch.cat([hours[:, part].expand(4, -1, -1), data[:, part]], 2)
            output, state = model(read, state)
            state = tuple(field.detach() for field in state)
            output.mean().backward()
    assert seen.faults == []


def test_samples_that_are_stepped_one_by_one_begin_with_zeros():
    """As the encoder of a small translator."""
    data, core = torch.randn(20, 6, 1, 3), nn.GRU(3, 4)
    with watch() as seen:
        for sample in data:
            state, loss = torch.zeros(1, 1, 4), 0
            for step in sample:
                output, state = core(step[None], state)
                loss = loss + output.mean()
            loss.backward()
    assert seen.faults == []


def locked_dropout(batch):
    """One mask for all steps of a row."""
    mask = torch.autograd.Variable(batch.data.new(1, *batch.shape[1:]).bernoulli_(0.7)) / 0.7
    return mask.expand_as(batch) * batch


def with_noise(batch):
    return batch + 0.1 * torch.randn_like(batch)


@pytest.mark.parametrize("prepare", [locked_dropout, with_noise])
@pytest.mark.parametrize(("order", "expected"), [(by_row(40), []), (SHUFFLED, [("shuffled", "core", 36, 38)])])
def test_masks_and_noise_hide_no_data(prepare, order, expected):
    model = Model()
    with watch(model) as seen:
        train(model, map(prepare, windows(SERIES, order)))
    assert (kinds(seen), seen.unknown) == (expected, [])


def test_of_two_tensors_of_data_neither_says_where_the_sum_stands():
    model = Model()
    with watch(model) as seen:
        pairs = zip(windows(SERIES, by_row(40)), windows(SERIES.flip(0), by_row(40)), strict=True)
        train(model, (batch + other for batch, other in pairs))
    assert any("it is not known" in said for said in seen.unknown)


def test_large_numbers_are_written_with_commas():
    data = torch.randn(1500, 5, 2)
    with watch() as seen:
        train(Reader(size=2, batch_first=True), data.split(100))
    said = "At 1,400 of 1,400 hand-overs a row goes on behind the place where its state stopped, mostly 495 steps on. "
    assert seen.faults[0].sentence.startswith(said)


@pytest.mark.parametrize("are_kept", [False, True])
def test_batches_that_are_read_in_parts_are_no_sequences(are_kept):
    """Each is gone when the next has come, however many modules are called while it is there; sequences stay."""
    torch.manual_seed(0)
    layer, head, state = nn.GRU(3, 5), nn.Linear(5, 1), None
    kept = [part.clone() for part in SERIES.split(20)]
    with watch(updates=100) as seen:
        for begin in range(0, 160, 20):
            made = torch.from_numpy(SERIES[begin : begin + 20].numpy() * 1.0)
            for part in (kept[begin // 20] if are_kept else made)[:, None].split(5):
                output, state = layer(part, state)
                head(output).mean().backward()
                state = state.detach()
    found = [(kind, count, of) for kind, _, count, of in kinds(seen)]
    assert found == ([("other-sequence", 7, 31)] if are_kept else [])
    assert sum("at 7 of 31 hand-overs it is not known" in text for text in seen.unknown) == (not are_kept)


def test_a_chunk_that_is_read_twice_goes_on_as_its_steps_do():
    """More rows jump back, inside the model, than there are calls."""
    model, series = Model(), torch.randn(40, 8, 3, generator=torch.Generator().manual_seed(2))

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, chunk, state=None):
            return self.model(chunk, self.model(chunk, state)[1])

    with watch() as seen:
        train(Twice(), series.split(4))
    assert kinds(seen) == []
    assert seen.reach().gaps == {0: 20 * 3 * 8 + 9 * 8, -4: 10 * 8}
