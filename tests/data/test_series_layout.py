import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch.data import EchoStream, OwnSeries, SeriesLayout

LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=9)
LANES, CHUNK_LENGTHS = st.integers(1, 5), st.integers(1, 5)


def test_a_small_pass_written_out():
    layout = SeriesLayout([5, 2, 3], num_lanes=2, chunk_length=2, lag=1)
    assert (layout.num_lanes, layout.num_steps, layout.chunks_per_pass) == (2, 2, 3)
    places = layout.places(np.arange(4))
    assert places.sequence.tolist() == [[0, 1], [0, 2], [0, 2], [0, 1]]
    assert places.step.tolist() == [
        [[0, 1], [0, 1]],
        [[2, 3], [0, 1]],
        [[4, -1], [2, -1]],
        [[0, 1], [0, 1]],
    ]
    assert places.answer.tolist() == [
        [[-1, 0], [-1, 0]],
        [[1, 2], [-1, 0]],
        [[3, -1], [1, -1]],
        [[-1, 0], [-1, 0]],
    ]
    assert places.starts.tolist() == [[True, True], [False, True], [False, False], [True, True]]
    assert [layout.drawn(number) for number in range(5)] == [(0, 0), (2, 4), (3, 8), (3, 10), (5, 14)]


def test_lanes_for_which_nothing_is_left():
    places = SeriesLayout([3, 2], num_lanes=3, chunk_length=2).places(np.arange(3))
    assert places.sequence.tolist() == [[0, 1, -1], [0, -1, -1], [0, 1, -1]]
    assert places.step[1].tolist() == [[2, -1], [-1, -1], [-1, -1]]
    assert places.starts.tolist() == [[True, True, True], [False, True, True], [True, True, True]]


def test_the_lane_that_is_free_first_reads_the_next_series():
    places = SeriesLayout([4, 1, 2, 1, 1], num_lanes=2, chunk_length=1).places(np.arange(5))
    assert places.sequence.tolist() == [[0, 1], [0, 2], [0, 2], [0, 3], [4, -1]]


def test_nothing_is_asked_without_a_lag():
    assert (SeriesLayout([3, 4], 2, 2).places(np.arange(3)).answer == -1).all()
    assert SeriesLayout([3, 4], 2, 2, lag=0).places(np.arange(2)).answer.max() == 3


def test_reset_at_every_chunk():
    assert SeriesLayout([9, 2], 2, 2, carry="reset").places(np.arange(9)).starts.all()


@given(LENGTHS, LANES, CHUNK_LENGTHS)
def test_each_place_is_read_once_a_pass_in_order_and_without_a_gap(lengths, num_lanes, chunk_length):
    layout = SeriesLayout(lengths, num_lanes, chunk_length, lag=1)
    for number in range(2):
        places = layout.places(number * layout.chunks_per_pass + np.arange(layout.chunks_per_pass))
        seen = []
        for lane in range(num_lanes):
            before = -1, lengths[-1] - 1  # as if a series had just ended
            for chunk, sequence in enumerate(places.sequence[:, lane].tolist()):
                steps = places.step[chunk, lane].tolist()
                if sequence < 0:  # to the end of the pass
                    assert (places.sequence[chunk:, lane] == -1).all()
                    assert set(steps) == {-1}
                    assert places.starts[chunk, lane]
                    continue
                is_first = sequence != before[0]
                first = 0 if is_first else before[1] + 1
                assert places.starts[chunk, lane] == is_first
                assert not is_first or before[1] == lengths[before[0]] - 1
                count = min(chunk_length, lengths[sequence] - first)
                assert steps == [*range(first, first + count), *[-1] * (chunk_length - count)]
                seen += [(sequence, step) for step in steps[:count]]
                before = sequence, first + count - 1
        assert sorted(seen) == [(series, step) for series, length in enumerate(lengths) for step in range(length)]
        asked = places.answer >= 0
        assert (places.answer[asked] == places.step[asked] - 1).all()
        assert np.array_equal(asked, places.step >= 1)


@given(LENGTHS, LANES, CHUNK_LENGTHS)
def test_series_begin_in_the_given_order(lengths, num_lanes, chunk_length):
    layout = SeriesLayout(lengths, num_lanes, chunk_length)
    places = layout.places(np.arange(layout.chunks_per_pass))
    begins = [(int(chunk), int(lane)) for chunk, lane in np.argwhere(places.starts & (places.sequence >= 0))]
    assert [int(places.sequence[begin]) for begin in begins] == list(range(len(lengths)))
    assert places.sequence[-1].max() >= 0


@given(LENGTHS, LANES, CHUNK_LENGTHS, st.integers(0, 30))
def test_any_chunk_is_had_alone_and_drawn_counts_what_stands_there(lengths, num_lanes, chunk_length, number):
    layout = SeriesLayout(lengths, num_lanes, chunk_length, lag=2)
    whole = layout.places(np.arange(number + 1))
    for one, two in zip(whole, layout.places(np.array([number])), strict=True):
        assert np.array_equal(one[number:], two)
    num_begun = int((whole.starts & (whole.sequence >= 0)).sum())
    assert layout.drawn(number + 1) == (num_begun, int((whole.step >= 0).sum()))


@settings(deadline=None)
@given(LENGTHS, LANES, CHUNK_LENGTHS, st.integers(1, 3), st.integers(0, 20))
def test_streams_that_start_later_and_that_share_the_lanes(lengths, num_lanes, chunk_length, num_ranks, start):
    series = OwnSeries([100 * number + np.arange(length) for number, length in enumerate(lengths)])

    def chunks(first, **options):
        layout = SeriesLayout(series.lengths, num_lanes, chunk_length)
        options = {"start": first, "num_chunks": start + 4, **options}
        stream = EchoStream(layout, series, targets=lambda k, step: series(k, step + 1), **options)
        return list(itertools.islice(stream, start - first, None))

    def same(one, two):
        return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, two, strict=True))

    whole = chunks(0)
    assert len(whole) == 4
    assert all(same(one, two) for one, two in zip(whole, chunks(start), strict=True))
    ranks = [chunks(start, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    for expected, *shares in zip(whole, *ranks, strict=True):
        joined = [np.concatenate(fields)[:num_lanes] for fields in zip(*(share[:5] for share in shares), strict=True)]
        assert same(expected[:5], joined)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": []}, "`lengths` must hold for each series its number of steps.*Got \\[\\]"),
        ({"lengths": [3, 0]}, "`lengths` must hold.*Got \\[3, 0\\]"),
        ({"lengths": [3.0]}, "`lengths` must hold"),
        ({"lengths": [[3]]}, "`lengths` must hold"),
        ({"lengths": 3}, "`lengths` must hold.*Got 3"),
        ({"num_lanes": 0}, "`num_lanes` must be at least 1.*Got 0"),
        ({"chunk_length": 0}, "`chunk_length` must be at least 1.*Got 0"),
        ({"lag": -1}, "`lag` must be at least 0, or None.*Got -1"),
        ({"carry": "hold"}, "`carry` must be one of keep, reset"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SeriesLayout(**{"lengths": [3, 4], "num_lanes": 2, "chunk_length": 3, **options})
