import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import frame_windows
from echo_torch.data.framing import frame_masked, frame_prefixes, frame_sequence


def test_the_docstrings_example():
    frames = frame_windows(5, window_length=3, lag=1)
    assert frames.steps.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert frames.answers.tolist() == [[-1, -1, 1], [-1, -1, 2], [-1, -1, 3]]


def test_the_tutorials_sizes():
    assert frame_windows(25, 1, 0).steps.shape == (25, 1)
    assert frame_windows(25, 1, 1, num_dropped=1).steps.ravel().tolist() == list(range(1, 25))
    lag = frame_windows(25, 5, 1, num_dropped=1)
    assert lag.steps[:, -1].tolist() == list(range(5, 25))
    assert lag.answers[:, -1].tolist() == list(range(4, 24))


def test_stateful_with_another_lag_keeps_its_rows():
    one, six = frame_windows(25, 1, 1, num_dropped=1), frame_windows(25, 1, 6, num_dropped=1)
    assert np.array_equal(one.steps, six.steps)
    assert six.answers.ravel().tolist() == [-1] * 5 + list(range(19))


@given(st.integers(2, 100), st.integers(1, 12), st.integers(0, 110), st.integers(0, 2))
def test_every_answer_lies_lag_steps_back(length, window_length, lag, num_dropped):
    if length < window_length + num_dropped:
        with pytest.raises(ValueError, match="length"):
            frame_windows(length, window_length, lag, num_dropped=num_dropped)
        return
    steps, answers = frame_windows(length, window_length, lag, num_dropped=num_dropped)
    assert steps.shape == answers.shape == (length - window_length + 1 - num_dropped, window_length)
    assert steps[0, 0] == num_dropped
    assert steps[-1, -1] == length - 1
    for row, asked in zip(steps, answers, strict=True):
        assert (np.diff(row) == 1).all()
        assert (asked[:-1] == -1).all()
        assert asked[-1] == (row[-1] - lag if row[-1] >= lag else -1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((25, 0, 0), "window_length"), ((25, 5, -1), "lag"), ((4, 5, 1), "length"), ((25, 5, 1, -1), "num_dropped")],
)
def test_bad_numbers(arguments, word):
    length, window_length, lag, *dropped = arguments
    with pytest.raises(ValueError, match=rf"`{word}` must be at least .*Got"):
        frame_windows(length, window_length, lag, num_dropped=dropped[0] if dropped else 0)


small = st.integers(1, 12)


@settings(deadline=None, max_examples=50)
@given(small, small, st.integers(0, 6))
def test_frames_by_their_definition(length, window, lag):
    masked, prefixes, whole = (
        frame_masked(length, window, lag),
        frame_prefixes(length, lag),
        frame_sequence(length, lag),
    )
    for row in range(length):
        answer = row - lag if row >= lag else -1
        assert masked.steps[row].tolist() == [step if step >= 0 else -1 for step in range(row - window + 1, row + 1)]
        assert masked.answers[row].tolist() == [-1] * (window - 1) + [answer]
        assert prefixes.steps[row].tolist() == [*range(row + 1), *[-1] * (length - row - 1)]
        assert prefixes.answers[row].tolist() == [answer if column == row else -1 for column in range(length)]
        assert whole.answers[0, row] == answer
    assert whole.steps.tolist() == [list(range(length))]
