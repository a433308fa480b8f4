"""`watch`: where states come from, row by row, and all rows of a call at once."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from support.loops import Reader, detached, train
from support.watched_models import kinds

from echo_torch import watch
from echo_torch.diagnosis.watching.evaluations import evaluating
from echo_torch.diagnosis.watching.hand_overs import HandOvers
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.sources import origins_of, sources_of

SERIES = torch.randn(48, 4, 3, generator=torch.Generator().manual_seed(1))


def moved(state):
    return state.detach().roll(1, dims=1)


def emptied(state):
    return state.detach() * torch.tensor([1.0, 0.0, 1.0, 1.0])[:, None]


def mixed():
    """Each state has one row of the call before last."""
    earlier = []

    def hand_on(state):
        earlier.append(state.detach())
        return torch.cat([earlier[-2 if len(earlier) > 1 else -1][:, :1], earlier[-1][:, 1:]], dim=1)

    return hand_on


def watched(hand_on, *, steps=3):
    with watch() as seen:
        train(Reader(), SERIES.split(steps), hand_on)
    return seen


@pytest.mark.parametrize("hand_on", [detached, moved, emptied, mixed()])
@pytest.mark.parametrize("steps", [1, 3])
def test_rows_at_once_are_as_row_by_row(hand_on, steps):
    calls = watched(hand_on, steps=steps)._calls
    gaps = Counter()
    rows = HandOvers(calls.calls, calls)
    for call in calls.calls:
        one_by_one = {(lane, origin.call, origin.lane) for lane, origin in origins_of(call)}
        at_once = [
            (lane, source.call, left)
            for source in sources_of(call)
            for lane, left in zip(source.lanes.tolist(), source.left.tolist(), strict=True)
        ]
        assert len(at_once) == len(set(at_once))
        assert set(at_once) == one_by_one
        for lane, source, left in at_once:
            last = calls.calls[source].standing.last[left]
            gaps[rows.gap(last, call.standing.first[lane], call.standing.width)] += 1
    assert gaps.total() > 4
    assert gaps[0] == rows.gaps[0]
    assert gaps.total() == rows.number + rows.moved


def test_what_is_said_follows_what_is_seen():
    """It is worked out once, as soon as nothing is added any more, and anew where the watch goes on."""
    model, chunks = Reader(), SERIES.split(3)
    with watch() as seen:
        train(model, chunks[:2])
        assert "is called 2 times" in seen.lines()[0]
        train(model, chunks[2:4])
        assert "is called 4 times" in seen.lines()[0]
        assert "(40 hand-overs)" in seen.lines()[1]
    assert seen._rows_of(0) is seen._rows_of(0)
    assert kinds(seen) == []
    with seen:
        train(model, chunks[4:10:2])
        assert kinds(seen) == [("rows-skip", "core", 8, 16)]
    assert "is called 7 times" in seen.lines()[0]
    assert kinds(seen) == [("rows-skip", "core", 8, 16)]


def reach_of_chunks(chunks):
    with watch() as seen:
        train(Reader(), chunks)
    return seen.reach()


def test_steps_inside_of_a_chunk_that_leaves_out_every_other():
    found = reach_of_chunks([SERIES[:4], SERIES[4:8], SERIES[8:16:2], SERIES[15:19]])
    assert found.gaps == {0: 48, 1: 12}


def test_chunks_that_are_padded_on_both_sides():
    chunks = (F.pad(SERIES[begin : begin + 3], (0, 0, 0, 0, 1, 1)) for begin in (0, 3, 7))
    assert reach_of_chunks(chunks).gaps == {0: 28, 1: 4}


def test_a_state_that_goes_on_twice():
    """Then it is unknown what a row has read: it is one row in one call, and two in the next."""
    model = Reader()
    with watch() as seen:
        output, state = model(SERIES[:4])
        output.sum().backward()
        for _ in range(2):
            output, _ = model(SERIES[4:8], state.detach())
            output.sum().backward()
    assert seen.reach() is None


def test_single_steps_tell_of_no_array_that_is_gone_through():
    others, model = torch.randn(9, 4, 3), Reader()
    with watch() as seen:
        train(model, SERIES.split(3)[:3])
        with torch.no_grad():
            model(others[:1])
            model(others[3:4])
        assert evaluating(seen._calls.calls) == set()
        with torch.no_grad():
            model(others[4:7])
        assert evaluating(seen._calls.calls) == {5}


def test_what_it_takes_to_answer_is_not_followed(monkeypatch):
    """Also while the watch is open: it is no way of data."""
    follow, followed = Places.__torch_function__, []

    def noted(places, func, *given):
        followed.append(func)
        return follow(places, func, *given)

    with watch() as seen:
        train(Reader(), [F.pad(SERIES[begin : begin + 3], (0, 0, 0, 0, 1, 1)) for begin in (0, 3, 6)])
        monkeypatch.setattr(Places, "__torch_function__", noted)
        assert seen.lines()
        assert seen.findings == {"findings": [], "unknown": []}
        assert seen.reach().gaps == {0: 32}
        assert len(seen.tracks()) == 3
        assert not followed
        SERIES.sum()
        assert followed
