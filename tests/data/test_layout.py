import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_torch import LaneLayout, WindowLayout, frame_windows


def stateful_layout(**options):
    return WindowLayout(frame_windows(25, 1, 1, num_dropped=1), 25, 6, **options)


def test_the_tutorials_stateful_batches():
    places = stateful_layout().places(np.arange(5))
    assert places.step[:4, :, 0].tolist() == [[1 + 6 * batch + row for row in range(6)] for batch in range(4)]
    assert places.starts.tolist() == [[True] * 6, [False] * 6, [False] * 6, [False] * 6, [True] * 6]
    assert places.sequence[:, 0].tolist() == [0, 0, 0, 0, 1]


def test_without_the_cut_batches_stand_side_by_side():
    places = stateful_layout(cut="sequence").places(np.arange(2))
    assert places.step.shape == (2, 6, 4)
    assert places.step[0, 0].tolist() == [1, 7, 13, 19]
    assert places.answer[0, 5].tolist() == [5, 11, 17, 23]
    assert places.starts.all()


def test_lag_batches_are_aligned_because_batch_size_equals_window():
    layout = WindowLayout(frame_windows(25, 5, 1, num_dropped=1), 25, 5)
    step = layout.places(np.arange(4)).step
    assert (step[1:, :, 0] - step[:-1, :, -1] == 1).all()


def test_reset_at_every_chunk():
    assert stateful_layout(carry="reset").places(np.arange(4)).starts.all()


@given(
    st.integers(2, 60), st.integers(1, 6), st.integers(1, 8), st.sampled_from(["chunk", "sequence"]), st.integers(1, 4)
)
def test_every_window_stands_exactly_once(length, window_length, batch_size, cut, at_once):
    """Whatever the sizes: all windows, in order, none twice, the rest of a short batch marked as unused."""
    if length < window_length:
        return
    frames = frame_windows(length, window_length, 1)
    layout = WindowLayout(frames, length, batch_size, cut=cut, sequences_at_once=at_once)
    places = layout.places(np.arange(2 * layout.chunks_per_sequence))
    for number in range(2 * at_once):
        rows = []
        is_mine = places.sequence == number
        for chunk, lane in zip(*np.nonzero(is_mine), strict=True):
            windows = places.step[chunk, lane].reshape(-1, window_length)
            rows += [tuple(window) for window in windows if window[0] >= 0]
        assert sorted(rows) == [tuple(row) for row in frames.steps.tolist()]
    is_empty = (places.step == -1).all(axis=2)
    assert (places.answer[is_empty] == -1).all()
    assert np.array_equal(is_empty, places.sequence == -1)
    assert layout.num_lanes == batch_size * at_once


def test_drawn_counts_whole_sequences():
    layout = stateful_layout()
    assert [layout.drawn(chunks) for chunks in (0, 1, 4, 5)] == [(0, 0), (1, 25), (1, 25), (2, 50)]


def follow(layout, num_chunks):
    """For each lane, what it reads: (sequence, step, is_start) in order."""
    places = layout.places(np.arange(num_chunks))
    return [
        [
            (int(places.sequence[chunk, lane]), int(step), bool(places.starts[chunk, lane]) and column == 0)
            for chunk in range(num_chunks)
            for column, step in enumerate(places.step[chunk, lane])
            if step >= 0
        ]
        for lane in range(layout.num_lanes)
    ]


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 6), st.one_of(st.none(), st.integers(1, 12)), st.booleans())
def test_lanes_read_without_a_gap(num_lanes, chunk_length, lag, reset_every, stagger):
    first = [lane * reset_every // num_lanes for lane in range(num_lanes)] if reset_every and stagger else None
    layout = LaneLayout(num_lanes, chunk_length, lag, reset_every=reset_every, first_steps=first)
    seen = set()
    for lane, reads in enumerate(follow(layout, 9)):
        assert reads[0] == (lane, first[lane] if first else 0, True)
        for (sequence, step, _), (later, later_step, starts) in itertools.pairwise(reads):
            if sequence == later:
                assert later_step == step + 1
                assert not starts
            else:
                assert (step, later_step, starts) == (reset_every - 1, 0, True)
        assert not seen & {sequence for sequence, *_ in reads}
        seen |= {sequence for sequence, *_ in reads}
    places = layout.places(np.arange(9))
    asked = places.answer >= 0
    assert (places.answer[asked] == places.step[asked] - lag).all()
    begin = np.zeros(places.sequence.shape, int)
    if first:
        begin = np.where(places.sequence == np.arange(num_lanes), np.array(first), 0)
    assert np.array_equal(asked, places.step >= begin[:, :, None] + lag)
    assert [layout.drawn(n) for n in range(10)] == [
        (len({r[0] for lane in follow(layout, n) for r in lane}), sum(map(len, follow(layout, n)))) if n else (0, 0)
        for n in range(10)
    ]


def test_any_part_of_the_lanes_is_had_alone():
    layout = LaneLayout(3, 4, 1, reset_every=7, first_steps=[0, 3, 6])
    whole = layout.places(np.arange(50))
    for one, two in zip(whole, layout.places(np.arange(41, 50)), strict=True):
        assert np.array_equal(one[41:], two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_lanes": 0}, "`num_lanes` must be at least 1.*Got 0"),
        ({"chunk_length": 0}, "`chunk_length` must be at least 1.*Got 0"),
        ({"lag": -1}, "`lag` must be at least 0.*Got -1"),
        ({"reset_every": 0}, "`reset_every` must be at least 1.*Got 0"),
        ({"first_steps": [0]}, "`first_steps` must hold for each of the 2 lanes"),
        ({"first_steps": [0, -1]}, "`first_steps`"),
        ({"first_steps": [0, 5], "reset_every": 5}, "`first_steps`"),
        ({"carry": "hold"}, "`carry` must be one of"),
    ],
)
def test_bad_lanes(options, message):
    with pytest.raises(ValueError, match=message):
        LaneLayout(**{"num_lanes": 2, "chunk_length": 3, "lag": 1, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"carry": "hold"}, "`carry` must be one of keep, reset"),
        ({"cut": "none"}, "`cut` must be one of chunk, sequence"),
        ({"carry": "reset", "cut": "sequence"}, "`cut` can be 'sequence' only where `carry` is 'keep'"),
        ({"sequences_at_once": 0}, "`sequences_at_once` must be at least 1"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        stateful_layout(**options)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        WindowLayout(frame_windows(25, 1, 1), 25, 0)


@pytest.mark.parametrize(("options", "lag"), [({}, 1), ({"reset_every": 7}, 3), ({"first_steps": [0, 2, 3]}, 0)])
def test_the_chunks_until_enough_is_asked_are_counted_without_looking_at_each(monkeypatch, options, lag):
    if "first_steps" in options:
        options = {**options, "reset_every": 5}
    layout = LaneLayout(3, 2, lag, **options)
    asked = np.cumsum((layout.places(np.arange(2000)).answer != -1).sum(axis=(1, 2)))
    for number in (1, 2, 3, 1000, 5000):
        assert layout.chunks_to_ask(number) == np.searchsorted(asked, number) + 1
    places, calls = LaneLayout.places, []
    monkeypatch.setattr(LaneLayout, "places", lambda layout, index: calls.append(len(index)) or places(layout, index))
    assert LaneLayout(1, 1, 300_000).chunks_to_ask(1000) == 301_000
    assert len(calls) < 50
