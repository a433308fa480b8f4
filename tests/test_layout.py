import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_torch import WindowLayout, frame_windows


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
