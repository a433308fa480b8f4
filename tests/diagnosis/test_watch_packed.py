"""`watch` and packed rows: each row stands where it stands in the batch, whatever order torch packs it in."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence, pad_sequence

from echo_torch import watch
from echo_torch.diagnosis.watching.arrays import ARRAY, FILLED

SERIES = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(5))
LENGTHS = [(2, 5, 3), (4, 1, 6), (3, 3, 2), (1, 6, 4), (5, 2, 2), (2, 4, 6)]


def packed_in_one(rows):
    return pack_sequence(rows, enforce_sorted=False)


def packed_from_padding(rows):
    lengths = torch.tensor([len(row) for row in rows])
    return pack_padded_sequence(pad_sequence(rows, padding_value=7.0), lengths, enforce_sorted=False)


def packed_and_mapped(rows):
    packed = pack_padded_sequence(
        pad_sequence(rows, batch_first=True), [len(row) for row in rows], batch_first=True, enforce_sorted=False
    )
    return PackedSequence(packed.data * 2, *packed[1:])


WAYS = [packed_in_one, packed_from_padding, packed_and_mapped]


def read_on(model, pack, *, skip=0):
    """Rows of other lengths in every batch; each goes on where it stopped, `skip` steps behind that place."""
    optimizer, state, begins = torch.optim.SGD(model.parameters(), lr=0.1), None, [0, 0, 0]
    for lengths in LENGTHS:
        rows = [
            SERIES[row, begin : begin + length] for row, (begin, length) in enumerate(zip(begins, lengths, strict=True))
        ]
        output, state = model(pack(rows), state)
        optimizer.zero_grad()
        output.data.square().mean().backward()
        optimizer.step()
        state = state.detach()
        begins = [begin + length + skip for begin, length in zip(begins, lengths, strict=True)]


@pytest.mark.parametrize("pack", WAYS, ids=lambda pack: pack.__name__)
def test_rows_go_on(pack):
    model = nn.GRU(2, 4)
    with watch(model) as seen:
        read_on(model, pack)
    assert seen.faults == []
    assert seen.unknown == []
    with watch(model) as seen:
        read_on(model, pack, skip=1)
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [("rows-skip", 15, 15)]
    assert "mostly 1 step" in seen.faults[0].sentence


@pytest.mark.parametrize("is_put_back", [False, True])
def test_rows_that_are_sorted_by_hand(is_put_back):
    """The state comes out in the order of the lengths; whoever sorts the rows must sort the state too, and back."""
    model, state = nn.GRU(2, 4), torch.zeros(1, 3, 4)
    with watch(model) as seen, torch.no_grad():
        begins = torch.zeros(3, dtype=torch.long)
        for lengths in map(torch.tensor, LENGTHS):
            order = lengths.argsort(descending=True)
            rows = [SERIES[row, begins[row] : begins[row] + lengths[row]] for row in order.tolist()]
            _, state = model(pack_sequence(rows), state[:, order] if is_put_back else state)
            state = state[:, order.argsort()] if is_put_back else state
            begins += lengths
    assert bool(seen.faults) != is_put_back


@pytest.mark.parametrize("reads_back", [False, True])
def test_a_layer_that_reads_both_ways_loses_no_state(reads_back):
    """Its state cannot go on in time."""
    model = nn.GRU(2, 4, bidirectional=reads_back)
    with watch(model) as seen:
        for begin in range(0, 40, 4):
            model(pack_sequence([SERIES[0, begin : begin + 4], SERIES[1, begin : begin + 4]]))
    assert [finding.kind for finding in seen.faults] == ([] if reads_back else ["state-lost"])


@pytest.mark.parametrize("pack", WAYS, ids=lambda pack: pack.__name__)
def test_where_packed_rows_stand(pack):
    model = nn.GRU(2, 4)
    with watch(model) as seen:
        model(pack([SERIES[0, 3:5], SERIES[1, 0:4], SERIES[2, 7:10]]))
    standing = seen._calls.calls[0].standing
    begins = [place % ARRAY for place in standing.first]
    assert begins == [3 * 2, 40 * 2, (80 + 7) * 2]
    assert [place % ARRAY for place in standing.last] == [4 * 2, (40 + 3) * 2, (80 + 9) * 2]
    assert (standing.stride, standing.width) == (2, 2)


def test_rows_that_were_filled_up_end_with_their_last_step():
    model = nn.GRU(2, 4)
    with watch(model) as seen:
        model(pad_sequence([SERIES[0, 3:5], SERIES[1, 0:4]], padding_value=1e9))
        filled = seen._calls.places.of(pad_sequence([SERIES[0, 3:5], SERIES[1, 0:4]], padding_value=7.0))
    assert (filled[2:, 0] == FILLED).all()
    standing = seen._calls.calls[0].standing
    assert [place % ARRAY for place in standing.last] == [4 * 2, (40 + 3) * 2]
    assert standing.stride == 2


def last_column(output, lengths):
    return output[:, -1]


def own_last_step(output, lengths):
    return output[torch.arange(len(lengths)), lengths - 1]


def mean_of_steps(output, lengths):
    return output.sum(1) / lengths[:, None]


def each_step(output, lengths):
    return output


def attention_without_a_mask(output, lengths):
    return (output.mean(-1, keepdim=True).softmax(1) * output).sum(1)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("answer", "count"),
    [(last_column, 11), (own_last_step, 0), (mean_of_steps, 0), (each_step, 0), (attention_without_a_mask, 0)],
)
def test_rows_of_which_only_what_was_filled_in_is_read(answer, count, batch_first, bidirectional):
    """A sum over the steps takes no harm by zeros, so they may be read beside the row itself."""
    torch.manual_seed(0)
    model = nn.LSTM(2, 4, batch_first=batch_first, bidirectional=bidirectional)
    with watch(model) as seen:
        for lengths in map(torch.tensor, LENGTHS):
            rows = pad_sequence([SERIES[row, : lengths[row]] for row in range(3)], batch_first)
            packed, _ = model(pack_padded_sequence(rows, lengths, batch_first, enforce_sorted=False))
            output, _ = pad_packed_sequence(packed, batch_first)
            answer(output if batch_first else output.transpose(0, 1), lengths).sigmoid().sum().backward()
    found = [(finding.kind, finding.count, finding.of) for finding in seen.faults]
    assert found == ([("padding-read", count, 11)] if count else [])
    assert all("pad_packed_sequence" in finding.sentence for finding in seen.faults)


def test_rows_of_one_length_are_not_padded_again():
    model = nn.LSTM(2, 4, batch_first=True)
    with watch(model) as seen:
        for begin in range(0, 40, 5):
            packed, _ = model(pack_padded_sequence(SERIES[:, begin : begin + 5], [5, 5, 5], batch_first=True))
            pad_packed_sequence(packed, batch_first=True)[0][:, -1].sum().backward()
    assert [call.padded for call in seen._calls.calls] == [None] * 8


def test_without_a_gradient_no_answer_is_read():
    model = nn.LSTM(2, 4, batch_first=True).requires_grad_(False)
    with watch(model) as seen:
        packed, _ = model(pack_padded_sequence(SERIES[:, :5], [5, 4, 3], batch_first=True))
        assert not pad_packed_sequence(packed, batch_first=True)[0].requires_grad
    assert seen._calls.calls[0].padded is None


def unpacked_rows(model, lengths):
    rows = pad_sequence([SERIES[row, : lengths[row]] for row in range(3)], True)
    packed, _ = model(pack_padded_sequence(rows, lengths, True, enforce_sorted=False))
    return packed


def test_each_backward_pass_of_a_mean_is_a_part_of_it():
    """The columns of a mean, one after another: of each row its own steps are read too."""
    torch.manual_seed(0)
    model = nn.LSTM(2, 4, batch_first=True)
    with watch(model) as seen:
        for lengths in map(torch.tensor, LENGTHS):
            output, _ = pad_packed_sequence(unpacked_rows(model, lengths), True)
            for column in output.unbind(1):
                column.sigmoid().sum().backward(retain_graph=True)
    assert seen.faults == []


def test_rows_whose_own_steps_are_dropped_by_chance():
    torch.manual_seed(0)
    model = nn.LSTM(2, 4, batch_first=True)
    with watch(model) as seen:
        for lengths in map(torch.tensor, 3 * LENGTHS):
            output, _ = pad_packed_sequence(unpacked_rows(model, lengths), True)
            keep = torch.rand(*output.shape[:2], 1) < 0.5
            (output * keep).sigmoid().mean(1).sum().backward()
    assert any(call.padded.read - call.padded.own for call in seen._calls.calls if call.padded)
    assert seen.faults == []


def test_rows_that_are_unpacked_twice():
    torch.manual_seed(0)
    model = nn.LSTM(2, 4, batch_first=True)
    with watch(model) as seen:
        for lengths in map(torch.tensor, LENGTHS):
            packed = unpacked_rows(model, lengths)
            output, _ = pad_packed_sequence(packed, True)
            output[:, -1].sum().backward()
            pad_packed_sequence(packed, True)  # as to look at it
    assert [(finding.kind, finding.count, finding.of) for finding in seen.faults] == [("padding-read", 11, 11)]
