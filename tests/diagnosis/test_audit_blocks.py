"""A block of batches is audited as its batches are, one after the other."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import LaneLayout, WindowLayout, configure, frame_windows
from echo_torch.diagnosis.auditing.gaps import GapCounts, StateError, StateWarning
from echo_torch.diagnosis.stamps import Stamps
from echo_torch.lab.plan import Plan

STATE = (torch.ones(1, 1, 1).expand(1, 100, 1),)  # of lanes that remember something


def block_of(step, sequence, starts):
    return Stamps(np.array(step), np.array(sequence), np.array(starts))


def counted(blocks, policy="count"):
    """What is counted in blocks, each looked at as a whole."""
    counts = GapCounts(policy)
    counts.are_resets_told = True
    for number, block in enumerate(blocks):
        counts.look_at_block(block, STATE if number else None)
        counts.leave(STATE, is_copied=False)
    return counts


def one_by_one(blocks, policy="count"):
    counts = GapCounts(policy)
    counts.are_resets_told = True
    each = [one for block in blocks for one in zip(block.step, block.sequence, block.starts, strict=True)]
    for number, one in enumerate(each):
        counts.look(Stamps(*one), STATE if number else None)
        counts.leave(STATE, is_copied=False)
    return counts


def assert_alike(found, expected):
    assert +found.gaps == +expected.gaps
    assert found.num_faults == expected.num_faults
    assert found.has_carried == expected.has_carried
    for one, other in zip(found._last, expected._last, strict=True):
        is_known = expected._last[2]  # of the others nobody asks where they are
        assert np.array_equal(one[is_known], other[is_known])


@st.composite
def any_blocks(draw):
    """Steps with padding on the right, sequences and resets of every kind, cut into blocks."""
    lanes, steps, number = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(2, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    is_right = draw(st.booleans())
    first = np.arange(number)[:, None] * steps + (0 if is_right else random.integers(0, 3, (number, lanes)))
    step = first[..., None] + np.arange(steps) + np.zeros((number, lanes, 1), np.int64)
    kept = random.integers(0 if draw(st.booleans()) else steps, steps + 1, (number, lanes))
    step[np.arange(steps) >= kept[..., None]] = -1
    sequence = random.integers(0, draw(st.integers(1, 2)), (number, lanes))
    starts = random.random((number, lanes)) < draw(st.sampled_from([0.0, 0.2, 0.8]))
    cuts = sorted({0, number, *draw(st.lists(st.integers(1, number), max_size=3))})
    return [Stamps(step[a:b], sequence[a:b], starts[a:b]) for a, b in itertools.pairwise(cuts)]


@given(any_blocks())
@settings(max_examples=300, deadline=None)
def test_a_block_counts_as_its_batches_do(blocks):
    assert_alike(counted(blocks), one_by_one(blocks))


@pytest.mark.parametrize("mode", ["lag", "stateful", "masked", "aligned", "echo", "sequence", "whole"])
def test_the_modes_count_alike(mode):
    stream = Plan(configure(mode, missing=0.3) if mode != "echo" else configure(mode)).training()
    blocks = [stream.block(np.arange(begin, begin + 10)) for begin in range(0, 60, 10)]
    stamps = [Stamps(block.step, block.sequence, block.starts) for block in blocks]
    found = counted(stamps)
    assert_alike(found, one_by_one(stamps))
    assert (set(found.gaps) - {0} != set()) == (mode == "stateful")


@pytest.mark.parametrize(
    "layout",
    [
        LaneLayout(3, 4, lag=1, reset_every=9, first_steps=[0, 3, 5]),
        WindowLayout(frame_windows(25, 5, lag=1), 25, 4),
        WindowLayout(frame_windows(25, 5, lag=1), 25, 4, carry="reset"),
    ],
)
def test_rows_that_end_early(layout):
    """Unused rows, and lanes that reset at different chunks."""
    places = [layout.places(np.arange(begin, begin + 7)) for begin in range(0, 42, 7)]
    blocks = [Stamps(each.step, each.sequence, each.starts) for each in places]
    assert_alike(counted(blocks), one_by_one(blocks))


def test_a_fault_is_said_once_with_its_lane_and_counted_everywhere():
    right = block_of([[[0, 1]], [[2, 3]]], [[0], [0]], [[True], [False]])
    wrong = [block_of([[[9, 10]], [[20, 21]], [[31, 32]]], [[0]] * 3, [[False]] * 3)] * 2
    with pytest.warns(StateWarning, match=r"Lane 0's .* ends at step 3 .* begins at step 9") as said:
        counts = counted([right, *wrong], "warn")
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StateWarning)
        assert_alike(counts, one_by_one([right, *wrong], "warn"))
    with pytest.raises(StateError, match="begins at step 9"):
        counted([right, *wrong], "raise")


def test_a_good_block_takes_few_operations(monkeypatch):
    """Only its first batch is looked at by itself."""
    looked = []
    look = GapCounts.look
    monkeypatch.setattr(
        GapCounts, "look", lambda counts, *given, **more: looked.append(1) or look(counts, *given, **more)
    )
    stream = Plan(configure("stateful")).training()
    blocks = [stream.block(np.arange(begin, begin + 100)) for begin in range(0, 300, 100)]
    counts = counted([Stamps(block.step, block.sequence, block.starts) for block in blocks])
    assert counts.gaps == {5: 225 * 6}
    assert len(looked) == 3


def test_a_lane_that_has_read_nothing_yet_goes_on_with_an_empty_state():
    """What is counted does not hang on where a block begins: states inside it are not seen."""
    rows = [
        ([[0], [1]], [0, 0], [True, True]),
        ([[6], [7]], [0, 0], [False, False]),
        ([[12], [13]], [0, 0], [False, False]),
    ]
    blocks = [block_of(*(np.array(field)[None] for field in row)) for row in rows]
    counts = GapCounts("count")
    counts.are_resets_told = True
    for block in blocks:
        counts.look_at_block(block, (torch.zeros(1, 2, 1),))
        counts.leave((torch.zeros(1, 2, 1),), is_copied=False)
    assert counts.gaps == {5: 4}
