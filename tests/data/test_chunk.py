import itertools

import numpy as np
import pytest
import torch

from echo_torch.data import (
    Chunk,
    EchoStream,
    LaneLayout,
    OwnSeries,
    RandomSymbols,
    SeriesLayout,
    WindowLayout,
    collate_chunk,
    frame_windows,
)
from echo_torch.data.chunk_text import runs_in_words


def make_stream():
    series = OwnSeries([[0.5, 0.75, 1.0], [2.5, 2.0]])
    return EchoStream(SeriesLayout(series.lengths, 2, 2), series, targets=lambda k, step: series(k, step + 1))


def test_a_chunk_as_a_dict():
    chunk = next(iter(EchoStream(LaneLayout(3, 2, 1), RandomSymbols(10), start=7)))
    found = chunk.to_dict()
    assert list(found) == list(Chunk._fields)
    assert all(found[name] is getattr(chunk, name) for name in Chunk._fields if name != "index")
    assert torch.equal(found["index"], torch.tensor([7, 7, 7]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_collates(num_workers):
    """As a trainer makes it that knows no chunks: batches of one example, collated."""
    loader = torch.utils.data.DataLoader(make_stream(), batch_size=1, collate_fn=collate_chunk, num_workers=num_workers)
    for number, (batch, chunk) in enumerate(itertools.islice(zip(loader, make_stream(), strict=True), 5)):
        assert batch.keys() == set(Chunk._fields)
        assert all(isinstance(value, torch.Tensor) and len(value) == 2 for value in batch.values())
        assert batch["index"].tolist() == [number] * 2
        assert torch.equal(batch["symbols"], chunk.symbols)
        assert torch.equal(batch["step"], chunk.step)


@pytest.mark.parametrize("number", [0, 2])
def test_a_chunk_is_a_batch_already(number):
    chunks = list(itertools.islice(make_stream(), number))
    with pytest.raises(
        ValueError, match=f"`chunks` must hold exactly one chunk.*Got {number}; set the batch size to 1"
    ):
        collate_chunk(chunks)


def in_tens(sequence, step):
    """At step 3 of sequence 2 stands 23."""
    return np.where(step < 0, -1, 10 * sequence + step)


def chunks_of(layout, **options):
    return list(itertools.islice(EchoStream(layout, in_tens, **options), 3))


def test_a_chunk_prints_what_its_rows_read_and_are_asked():
    windows = WindowLayout(frame_windows(length=8, window_length=3, lag=1), length=8, batch_size=4)
    first, second, _ = chunks_of(windows)
    assert repr(first).splitlines() == [
        "Chunk 0: 4 rows of 3 steps",
        "  row 0  reset  sequence 0, steps 0 to 2  0 1 2  -> 1",
        "  row 1  reset  sequence 0, steps 1 to 3  1 2 3  -> 2",
        "  row 2  reset  sequence 0, steps 2 to 4  2 3 4  -> 3",
        "  row 3  reset  sequence 0, steps 3 to 5  3 4 5  -> 4",
    ]
    assert str(second).splitlines()[1:] == [
        "  row 0  carried   sequence 0, steps 4 to 6  4 5 6  -> 5",
        "  row 1  carried   sequence 0, steps 5 to 7  5 6 7  -> 6",
        "  row 2  not used",
        "  row 3  not used",
    ]


def test_a_dot_stands_where_nothing_is_read_or_asked():
    lanes = LaneLayout(num_lanes=2, chunk_length=4, lag=1, reset_every=6)
    is_missing = lambda sequence, step: step + 0 * sequence == 1  # noqa: E731
    first, second, _ = chunks_of(lanes, is_missing=is_missing)
    assert repr(first).splitlines()[2] == "  row 1  reset  sequence 1, steps 0 to 3  10  . 12 13  ->  . 10 11 12"
    assert repr(second).splitlines()[2] == "  row 1  carried  sequence 1, steps 4, 5  14 15 + 2 empty  -> 13 14"


def test_a_row_that_jumps_says_so():
    windows = WindowLayout(frame_windows(25, 1, 1, num_dropped=1), length=25, batch_size=6, cut="sequence")
    assert repr(chunks_of(windows)[0]).splitlines()[1] == (
        "  row 0  reset  sequence 0, steps 1, 7, 13, 19    1  7 13 19  ->  0  6 12 18"
    )


def test_readings_are_printed_too():
    first, second, _ = itertools.islice(make_stream(), 3)
    assert repr(first).splitlines()[1:] == [
        "  row 0  reset  sequence 0, steps 0, 1   0.5 0.75  -> 0.75    1",
        "  row 1  reset  sequence 1, steps 0, 1   2.5    2  ->    2    .",
    ]
    assert repr(second).splitlines()[1:] == [
        "  row 0  carried   sequence 0, step 2  1 + 1 empty  -> .",
        "  row 1  not used",
    ]
    wide = torch.arange(8.0).reshape(1, 2, 4)
    vectors = first._replace(symbols=wide, targets=wide[..., :2] / 3, starts=first.starts[:1], step=first.step[:1])
    assert repr(vectors).splitlines()[1].endswith("(0 1 2 ...) (4 5 6 ...)  ->    (0 0.3333) (1.333 1.667)")


def test_a_large_chunk_is_printed_shortly():
    chunk = chunks_of(LaneLayout(num_lanes=500, chunk_length=3000, lag=1))[1]
    lines = repr(chunk).splitlines()
    assert len(lines) == 8
    assert max(map(len, lines)) < 160
    assert lines[1].endswith("3000 3001 3002 3003 ... 5998 5999  -> 2999 3000 3001 3002 ... 5997 5998")
    assert lines[-1] == "  ... 494 more rows"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (range(20), "0 to 19"),
        ([0, 6, 12, 18], "0, 6, 12, 18"),
        ([0, 1], "0, 1"),
        ([0, 1, 5, 6, 7, 9], "0, 1, 5 to 7, 9"),
        ([7], "7"),
        ([], "none"),
        (range(0, 40, 2), "0, 2, 4, 6, 8, ..., 38"),
    ],
)
def test_numbers_that_follow_one_another_are_one(numbers, words):
    assert runs_in_words(list(numbers)) == words


def test_a_chunk_without_rows_prints_too():
    assert repr(Chunk(*(field[:0] for field in chunks_of(LaneLayout(2, 3, 1))[0][:-1]), 4)) == (
        "Chunk 4: 0 rows of 3 steps"
    )


def test_a_chunk_without_numbers_prints_as_a_tuple():
    assert repr(Chunk(*"abcde", 3)) == "('a', 'b', 'c', 'd', 'e', 3)"
    assert repr(chunks_of(LaneLayout(2, 3, 1))[0].to(torch.device("meta"))).startswith("(tensor(..., device='meta'")
