import numpy as np
import torch

from echo_torch.diagnosis.auditing.borders import border_of, ends_after, faults_of, one_column
from echo_torch.diagnosis.auditing.gaps import GapCounts
from echo_torch.diagnosis.auditing.snapshots import Snapshot, equal_lanes, filled_lanes, lane_axis
from echo_torch.diagnosis.stamps import Stamps

STEP = np.array([[-1, 4, 5, 6], [7, 8, 0, 1], [3, 4, -1, -1], [-1, -1, -1, -1]])


def border(starts, sequence=None, **more):
    sequence = np.zeros(STEP.shape, np.int64) if sequence is None else np.array(sequence)
    return border_of(Stamps(STEP, **more), STEP, sequence, np.array(starts, np.bool_))


def test_resets_at_inside_and_after_a_row():
    """Before or at the first column that is read it is the border's; after the last one the state is nobody's."""
    found = border([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]], [[0] * 4, [1, 1, 2, 2], [3] * 4, [4] * 4])
    assert found.first[:3].tolist() == [4, 7, 3]
    assert found.last[:3].tolist() == [6, 1, 4]
    assert (found.sequence[1], found.last_sequence[1]) == (1, 2)
    assert found.starts.tolist() == [True, False, False, True]
    assert found.is_emptied.tolist() == [False, False, True, False]
    last, sequence, is_known = ends_after(found, None, np.ones(4, np.bool_))
    assert last[:3].tolist() == [6, 1, 4]
    assert sequence[:3].tolist() == [0, 2, 3]
    assert is_known.tolist() == [True, True, False, False]


def test_one_value_a_lane_and_one_a_column_are_the_same():
    starts, sequence = np.array([True, False, False, True]), np.array([1, 2, 3, 4])
    one = border_of(Stamps(STEP), STEP, sequence, starts)
    wide = [np.broadcast_to(values[:, None], STEP.shape) for values in (sequence, starts)]
    two = border_of(Stamps(STEP), STEP, wide[0], wide[1])
    for name in ("first", "last", "sequence", "last_sequence", "starts", "has_read", "restored"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert np.array_equal(one_column(wide[0]), sequence)
    assert one_column(np.array([[1, 2], [3, 3]])) is None


def test_a_state_put_in_from_a_buffer_is_expected_where_it_was_read():
    ends = np.array([99, 99, 99, 99]), np.array([9, 9, 9, 9]), np.ones(4, np.bool_)
    goes_on = np.ones(4, np.bool_)
    found = faults_of(border(np.zeros(4), np.zeros(4, np.int64), restored=np.array([3, 3, -1, -1])), ends, goes_on)
    assert found.gap[:2].tolist() == [0, 3]
    assert found.is_wrong.tolist() == [False, True, True, False]
    assert found.is_other.tolist() == [False, False, True, False]


def test_the_counts_of_ones_own_loop():
    """None is no state; left out, it cannot be seen; an overwritten one is found by value."""
    state, counts = torch.zeros(1, 2, 3), GapCounts("count")
    for number, step in enumerate(([[0, 1], [0, 1]], [[2, 3], [2, 3]], [[0, 1], [0, 1]], [[2, 3], [2, 3]])):
        counts.look(Stamps(step), None if number == 2 else state.clone())
        state = state + 1
        counts.leave(state)
    assert counts.gaps == {0: 4}
    assert counts.num_faults == 0
    state[:, 1] = 7
    counts.look(Stamps([[4, 5], [4, 5]]), state)
    assert counts.num_faults == 1
    blind = GapCounts("count")
    for step in ([[0, 1]], [[4, 5]]):
        blind.look(Stamps(step))
        blind.leave()
    assert blind.gaps == {2: 1}


def test_which_axis_counts_the_lanes():
    assert [lane_axis(torch.zeros(shape), 2) for shape in ((1, 2, 5), (2, 5), (2, 1, 5), (4, 5))] == [1, 0, 0, None]
    assert [lane_axis(torch.zeros(shape), 2) for shape in ((3, 2, 2), (2, 2), (2, 2, 5))] == [1, 0, None]


def test_states_by_value():
    state = (torch.zeros(1, 3, 2), torch.ones(1, 3, 2))
    state[1][:, 1] = 0
    assert filled_lanes(state, 3).tolist() == [True, False, True]
    kept, held = Snapshot(state), Snapshot(state, is_copied=False)
    assert held.is_untouched(state)
    state[0][:, 2] = float("nan")
    assert not held.is_untouched(state)
    assert kept.same_lanes(list(state), 3).tolist() == [True, True, False]
    assert held.same_lanes(list(state), 3).tolist() == [False] * 3  # written over, and no copy tells what it was
    assert equal_lanes(state[0], state[0].clone(), 3, 1).all()  # NaN is NaN
    assert equal_lanes(torch.ones(1, 3, 2), torch.ones(1, 2, 2), 3, 1).tolist() == [True, True, False]
