"""`watch` and padding: an answer that hangs on padded steps is seen, whoever filled the rows up, and no other."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.utils.data import DataLoader, Dataset

from echo_torch import watch
from echo_torch.diagnosis.watching.padding import _Declared

WORDS, SIZE, ROWS, LONGEST = 12, 5, 4, 9


class Texts(Dataset):
    """Rows of 3 to 9 symbols above 0, and a label; `ends_with` stands behind each."""

    def __init__(self, ends_with=()):
        draw = torch.Generator().manual_seed(3)
        lengths = torch.randint(3, LONGEST + 1, (32,), generator=draw).tolist()
        lengths[::ROWS] = [LONGEST] * len(lengths[::ROWS])  # so that each batch has a longest row
        rows = [torch.randint(1, WORDS, (length - len(ends_with),), generator=draw).tolist() for length in lengths]
        self.rows = [row + list(ends_with) for row in rows]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index], self.rows[index][0] % 2


# --- how rows become a batch --------------------------------------------------------------------------------------


def with_pad_sequence(rows):
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def with_another_value(rows):
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=WORDS)


def with_pad(rows):
    return torch.stack([F.pad(torch.tensor(row), (0, LONGEST - len(row))) for row in rows])


def with_zeros(rows):
    batch = torch.zeros(len(rows), LONGEST, dtype=torch.long)
    for number, row in enumerate(rows):
        batch[number, : len(row)] = torch.tensor(row)
    return batch


def with_lists(rows):
    return torch.tensor([row + [0] * (LONGEST - len(row)) for row in rows])


def on_the_left(rows):
    return torch.stack([F.pad(torch.tensor(row), (LONGEST - len(row), 0)) for row in rows])


def lists_on_the_left(rows):
    return torch.tensor([[0] * (LONGEST - len(row)) + row for row in rows])


MAKERS = [with_pad_sequence, with_another_value, with_pad, with_zeros, with_lists]


def loader(make, **options):
    def collate(items):
        rows, labels = zip(*items, strict=True)
        return make(rows), torch.tensor([len(row) for row in rows]), torch.tensor(labels)

    return DataLoader(Texts(**options), ROWS, collate_fn=collate)


# --- how an answer is read ----------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self, kind=nn.GRU, padding_idx=None, **options):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(WORDS + 1, SIZE, padding_idx=padding_idx)
        self.core = kind(SIZE, SIZE, **options)
        self.head = nn.Linear(SIZE * (1 + bool(options.get("bidirectional"))), 2)

    def forward(self, loss_of, *batch):
        return loss_of(self, *batch)


def by_step(model, words):
    output, hidden = model.core(model.embedding(words))
    return output, hidden


def last_column(model, words, lengths, labels):
    return F.cross_entropy(model.head(by_step(model, words)[0][:, -1]), labels)


def last_state(model, words, lengths, labels):
    hidden = by_step(model, words)[1]
    hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return F.cross_entropy(model.head(hidden[-1]), labels)


def plain_mean(model, words, lengths, labels):
    return F.cross_entropy(model.head(by_step(model, words)[0].mean(1)), labels)


def cells_to_the_end(model, words, lengths, labels):
    hidden = torch.zeros(len(words), SIZE)
    for vectors in model.embedding(words).unbind(1):
        hidden = model.core(vectors, hidden)
    return F.cross_entropy(model.head(hidden), labels)


def cells_with_a_mask(model, words, lengths, labels):
    hidden = torch.zeros(len(words), SIZE)
    for step, vectors in enumerate(model.embedding(words).unbind(1)):
        hidden = torch.where((step < lengths)[:, None], model.core(vectors, hidden), hidden)
    return F.cross_entropy(model.head(hidden), labels)


def packed(model, words, lengths, labels):
    rows = pack_padded_sequence(model.embedding(words), lengths, batch_first=True, enforce_sorted=False)
    output, hidden = model.core(rows)
    output, _ = pad_packed_sequence(output, batch_first=True)
    return F.cross_entropy(model.head(output.mean(1)), labels) + F.cross_entropy(model.head(hidden[-1]), labels)


def masked_mean(model, words, lengths, labels):
    output = by_step(model, words)[0]
    mask = (torch.arange(words.shape[1]) < lengths[:, None]).float()[..., None]
    return F.cross_entropy(model.head((output * mask).sum(1) / lengths[:, None]), labels)


def at_the_last_word(model, words, lengths, labels):
    output = by_step(model, words)[0]
    return F.cross_entropy(model.head(output[torch.arange(len(words)), lengths - 1]), labels)


def gathered(model, words, lengths, labels):
    output = by_step(model, words)[0]
    index = (lengths - 1)[:, None, None].expand(-1, 1, output.shape[2])
    return F.cross_entropy(model.head(output.gather(1, index)[:, 0]), labels)


def attention(model, words, lengths, labels):
    output = by_step(model, words)[0]
    scores = output.sum(-1).masked_fill(torch.arange(words.shape[1]) >= lengths[:, None], -torch.inf)
    return F.cross_entropy(model.head((scores.softmax(1)[..., None] * output).sum(1)), labels)


def every_step(model, words, lengths, labels):
    """Where the answers end, nothing is asked."""
    output = model.head(by_step(model, words)[0])
    answers = (words % 2).masked_fill(torch.arange(words.shape[1]) >= lengths[:, None], -100)
    return F.cross_entropy(output.flatten(0, 1), answers.flatten(), ignore_index=-100)


def every_step_and_padding(model, words, lengths, labels):
    return F.cross_entropy(model.head(by_step(model, words)[0]).flatten(0, 1), (words % 2).flatten())


def train(model, loss_of, batches):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        for batch in batches:
            optimizer.zero_grad()
            model(loss_of, *batch).backward()
            optimizer.step()


def kinds(seen):
    return [(finding.kind, finding.module) for finding in seen.faults]


READ = [("padding-read", "core")]
NUM_PADDED = 2 * sum(len(row) < LONGEST for row in Texts().rows)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("loss_of", [last_column, last_state, plain_mean, every_step_and_padding])
def test_an_answer_that_hangs_on_padding(make, loss_of):
    model = Model(batch_first=True)
    with watch(model) as seen:
        train(model, loss_of, loader(make))
    assert kinds(seen) == READ
    assert (seen.faults[0].count, seen.faults[0].of) == (NUM_PADDED, NUM_PADDED)


@pytest.mark.parametrize("make", [with_pad_sequence, with_zeros, with_lists], ids=lambda make: make.__name__)
@pytest.mark.parametrize("options", [{"kind": nn.LSTM}, {"num_layers": 2}, {"bidirectional": True}, {"padding_idx": 0}])
def test_models_that_read_padding(make, options):
    model = Model(batch_first=True, **options)
    with watch(model) as seen:
        train(model, last_column, loader(make))
    assert kinds(seen) == READ


@pytest.mark.parametrize("make", [with_pad_sequence, with_lists], ids=lambda make: make.__name__)
def test_cells_that_are_stepped_into_the_padding(make):
    model = Model(nn.GRUCell)
    with watch(model) as seen:
        train(model, cells_to_the_end, loader(make))
    assert kinds(seen) == READ
    assert (seen.faults[0].count, seen.faults[0].of) == (NUM_PADDED, NUM_PADDED)


def without_lengths(loss_of):
    def read(model, words, labels):
        return loss_of(model, words, None, labels)

    return read


def bare(make, **options):
    """Batches with which no lengths come."""
    rows = Texts(**options).rows
    some = [rows[begin : begin + ROWS] for begin in range(0, len(rows), ROWS)]
    return [(make(batch), torch.tensor([row[0] % 2 for row in batch])) for batch in some]


@pytest.mark.parametrize(
    ("make", "padding_idx", "expected"),
    [
        (with_pad_sequence, None, READ),
        (with_another_value, None, READ),
        (with_zeros, None, READ),
        (with_lists, None, READ),  # 0 only ends rows, some of each batch
        (with_lists, 0, READ),
        (on_the_left, None, []),
        (lists_on_the_left, 0, []),
    ],
)
def test_what_tells_padding_without_lengths(make, padding_idx, expected):
    model = Model(batch_first=True, padding_idx=padding_idx)
    with watch(model) as seen:
        batches = bare(make)
        train(model, without_lengths(last_column), batches)
    assert kinds(seen) == expected


@pytest.mark.parametrize("make", [*MAKERS, on_the_left], ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "loss_of", [packed, masked_mean, at_the_last_word, gathered, attention, every_step], ids=lambda loss: loss.__name__
)
def test_padding_that_no_answer_hangs_on(make, loss_of):
    if make is on_the_left and loss_of is packed:
        make = with_pad_sequence
    model = Model(batch_first=True, padding_idx=0)
    with watch(model) as seen:
        train(model, loss_of, loader(make))
    assert seen.faults == []


@pytest.mark.parametrize("make", [with_pad_sequence, on_the_left], ids=lambda make: make.__name__)
def test_cells_under_a_mask_or_with_padding_on_the_left(make):
    model = Model(nn.GRUCell, padding_idx=0)
    with watch(model) as seen:
        train(model, cells_to_the_end if make is on_the_left else cells_with_a_mask, loader(make))
    assert seen.faults == []


def of_one_length(rows):
    return torch.tensor([[*(row * LONGEST)[: LONGEST - 1], 0] for row in rows])


def with_a_step_to_answer_in(rows):
    """All rows alike: the answer is asked in steps of its own."""
    return F.pad(torch.tensor([(row * LONGEST)[:LONGEST] for row in rows]), (0, 2))


def with_delays(rows):
    """Rows of unequal length, and an empty time behind each, in which it is remembered."""
    return torch.tensor([row + [0] * (LONGEST + 3 - len(row)) for row in rows])


def with_zeros_inside(rows):
    """0 is a symbol like any other, which ends some rows twice."""
    return torch.tensor(
        [(row * LONGEST)[: LONGEST - 4] + ([0, 0, 3, 0] if row[0] % 2 else [1, 0, 0, 0]) for row in rows]
    )


@pytest.mark.parametrize("padding_idx", [None, 0])
@pytest.mark.parametrize("make", [of_one_length, with_a_step_to_answer_in], ids=lambda make: make.__name__)
def test_ends_of_rows_that_are_data(make, padding_idx):
    model = Model(batch_first=True, padding_idx=padding_idx)
    with watch(model) as seen:
        train(model, without_lengths(last_column), bare(make))
        train(model, last_column, loader(make))
    assert seen.faults == []


@pytest.mark.parametrize("make", [with_delays, with_zeros_inside], ids=lambda make: make.__name__)
def test_symbols_that_end_rows_and_are_data(make):
    model = Model(batch_first=True)
    with watch(model) as seen:
        train(model, without_lengths(last_column), bare(make))
    assert seen.faults == []


def drawn_with_padding(num_rows, num_steps):
    """Rows of a text that holds 0 as often as any other symbol."""
    return torch.randint(WORDS, (num_rows, num_steps), generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("kind", "loss_of"), [(nn.GRU, every_step_and_padding), (nn.GRUCell, cells_to_the_end)])
def test_what_an_embedding_calls_padding_may_be_data(kind, loss_of):
    """`padding_idx=0` where 0 is a symbol like any other: some rows end in it by chance."""
    model = Model(kind, padding_idx=0, **({"batch_first": True} if kind is nn.GRU else {}))
    with watch(model) as seen:
        words = drawn_with_padding(8 * ROWS, LONGEST)
        assert (words[:, -1] == 0).sum() >= 3
        train(model, loss_of, [(rows, None, rows[:, 0] % 2) for rows in words.split(ROWS)])
    assert seen.faults == []


def with_a_few_inside(rows):
    """0 also stands for a word that is unknown."""
    return with_lists([[0 if step == 1 and row[0] % 5 == 0 else word for step, word in enumerate(row)] for row in rows])


def with_many_inside(rows):
    """Each row has a 0 in it, and a function fills up."""
    return with_pad_sequence([[row[0], 0, *row[2:]] for row in rows])


def filled_up_twice(rows):
    return F.pad(with_lists(rows), (0, 2))


@pytest.mark.parametrize(("kind", "loss_of"), [(nn.GRU, last_column), (nn.GRUCell, cells_to_the_end)])
@pytest.mark.parametrize("make", [with_a_few_inside, with_many_inside, filled_up_twice], ids=lambda make: make.__name__)
def test_padding_is_read_beside_symbols_like_it(make, kind, loss_of):
    model = Model(kind, padding_idx=0, **({"batch_first": True} if kind is nn.GRU else {}))
    with watch(model) as seen:
        train(model, without_lengths(loss_of), bare(make))
    assert kinds(seen) == READ
    of_all = 2 * len(Texts().rows)
    assert (seen.faults[0].count, seen.faults[0].of) == (of_all if make is filled_up_twice else NUM_PADDED,) * 2


def test_a_row_of_padding_alone_does_not_tell_whether_it_is_some():
    declared, mask = _Declared(), np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)
    declared.look(mask, mask)
    assert (declared.num_between, declared.num_behind) == (1, 2)


@pytest.mark.parametrize("is_fixed", [False, True])
def test_rows_of_a_fixed_length(is_fixed):
    """Longer than any row: lengths tell what is padding, and nothing else would."""
    model = Model(batch_first=True)
    with watch(model) as seen:
        batches = list(loader(with_delays))
        train(
            model, last_column if is_fixed else without_lengths(last_column), batches if is_fixed else bare(with_delays)
        )
    assert kinds(seen) == (READ if is_fixed else [])


def test_no_training_reads_no_answer():
    model = Model(batch_first=True)
    with watch(model) as seen, torch.no_grad():
        for batch in loader(with_pad_sequence):
            last_column(model, *batch)
    assert seen.faults == []


def test_frames_with_lengths():
    """Frames need no embedding: they are padded where the lengths end and all is the same."""
    lengths = torch.tensor([5, 3, 2])
    core = nn.GRU(2, 4)
    for fill, expected in ((0.0, ["padding-read"]), (None, [])):
        frames = torch.randn(5, 3, 2)
        for row, length in enumerate(lengths.tolist()):
            frames[length:, row] = frames[length:, row] if fill is None else fill
        with watch(core) as seen:
            for _ in range(3):
                batch = (frames * 1).split(5)[0]

                class Whole(nn.Module):
                    def forward(self, frames, lengths):
                        return core(frames)[1]

                Whole()(batch, lengths).square().mean().backward()
        assert [finding.kind for finding in seen.faults] == expected
