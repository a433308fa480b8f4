import itertools

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo_torch import EXPERIMENTS, Chunk, EchoStream, LaneLayout, RandomSymbols, configure
from echo_torch.diagnosis import data_path, following
from echo_torch.diagnosis.data_path import OTHER, explain, reach, reach_lines
from echo_torch.diagnosis.stamps import Stamps
from echo_torch.experiments.configuration import memory_length
from echo_torch.lab.plan import Plan


def brute_force(chunks, lag, vocabulary_size, max_lag=24):
    """The definitions read aloud: a list of all that each lane read since its reset, searched for every target."""
    history, last, gaps, reachable = {}, {}, {}, set()
    asked = hits = in_chunk = 0
    for chunk in chunks:
        for lane in range(len(chunk.symbols)):
            if chunk.starts[lane]:
                history[lane] = []
                last.pop(lane, None)
            seen = history.setdefault(lane, [])
            before = len(seen)
            for column in range(chunk.symbols.shape[1]):
                place = (int(chunk.sequence[lane]), int(chunk.step[lane, column]))
                if place[1] >= 0:  # a step whose symbol is missing is passed all the same
                    if lane in last:
                        gap = place[1] - last[lane][1] - 1 if last[lane][0] == place[0] else OTHER
                        gaps[gap] = gaps.get(gap, 0) + 1
                    last[lane] = place
                if chunk.symbols[lane, column] >= 0:
                    seen.append(place)
                if chunk.targets[lane, column] != -100:
                    asked += 1
                    reachable |= {back for back in range(max_lag + 1) if (place[0], place[1] - back) in seen}
                    answer = (place[0], place[1] - lag)
                    hits += answer in seen
                    in_chunk += answer in seen[before:]
    jumps = set(gaps) - {0, OTHER}
    share = hits / asked if asked else None
    return {
        "gap": 0 if not jumps else jumps.pop() if len(jumps) == 1 else None,
        "gaps": gaps,
        "reachable_lags": sorted(reachable),
        "reachable_share": share,
        "in_horizon_share": in_chunk / asked if asked else None,
        "ceiling": None if share is None else share + (1 - share) / vocabulary_size,
        "targets": asked,
    }


def check(chunks, lag, vocabulary_size=100):
    expected, found = brute_force(chunks, lag, vocabulary_size), reach(chunks, lag, vocabulary_size=vocabulary_size)
    for name, value in expected.items():
        found_value = getattr(found, name)
        assert found_value == (pytest.approx(value) if isinstance(value, float) else value), name
    assert found.chunks == len(chunks)
    return found


def test_the_tutorials_two_experiments():
    stateful, lag = Plan(configure("stateful")).reach(), Plan(configure("lag")).reach()
    assert (stateful.gap, stateful.reachable_lags, stateful.ceiling) == (5, [0, 6, 12, 18], 0.01)
    assert (stateful.reachable_share, stateful.in_horizon_share) == (0, 0)
    assert (stateful.targets, stateful.chunks) == (480, 80)
    assert (lag.gap, lag.ceiling, lag.reachable_share, lag.in_horizon_share) == (0, 1.0, 1.0, 1.0)
    assert lag.reachable_lags == list(range(20))


def test_the_same_batches_reach_lag_6():
    found = Plan(configure("stateful", lag=6)).reach()
    assert (found.reachable_share, found.in_horizon_share) == (18 / 19, 0)  # x(0) is asked for, but no row reads it
    assert found.ceiling == pytest.approx(18 / 19 + 1 / 1900)
    uncut = Plan(configure("stateful", lag=6, cut="sequence")).reach()
    assert (uncut.reachable_share, uncut.in_horizon_share, uncut.gap) == (18 / 19, 18 / 19, 5)


@pytest.mark.parametrize(("batch_size", "gap"), [(4, -1), (5, 0), (10, 5)])
def test_lag_is_aligned_by_accident(batch_size, gap):
    found = Plan(configure("lag", batch_size=batch_size)).reach()
    assert (found.gap, found.ceiling) == (gap, 1.0)


@pytest.mark.parametrize(("chunk", "share"), [(1, 0.0), (2, 0.5), (5, 0.8)])
def test_aligned_lanes(chunk, share):
    found = Plan(configure("aligned", chunk=chunk)).reach()
    assert (found.gap, found.reachable_share) == (0, 1.0)
    assert found.in_horizon_share == pytest.approx(share, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 40), st.integers(1, 6), st.integers(0, 8), st.integers(1, 8),
    st.sampled_from([("keep", "chunk"), ("keep", "sequence"), ("reset", "chunk")]),
)  # fmt: skip
def test_windows_against_the_brute_force(length, window, lag, batch_size, state):
    mode, options = ("stateful", {}) if window == 1 else ("lag", {"window": window})
    try:
        c = configure(mode, length=length, lag=lag, batch_size=batch_size, carry=state[0], cut=state[1], **options)
    except ValueError:
        return
    check(list(itertools.islice(Plan(c).training(), 30)), lag)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 8), st.one_of(st.none(), st.integers(1, 20)), st.booleans(),
    st.sampled_from(["keep", "reset"]),
)  # fmt: skip
def test_lanes_against_the_brute_force(lanes, chunk, lag, reset_every, stagger, carry):
    options = {"reset_every": reset_every, "stagger": stagger, "carry": carry}
    try:
        configuration = configure("aligned", lanes=lanes, chunk=chunk, lag=lag, **options)
    except ValueError:
        return
    check(list(itertools.islice(Plan(configuration).training(), 20)), lag)


@st.composite
def any_chunks(draw):
    """Chunks without rhyme or reason: jumps, overlaps, resets, other sequences, holes, nothing asked."""
    lanes = draw(st.integers(1, 3))
    chunks = []
    for index in range(draw(st.integers(1, 5))):
        steps = draw(st.integers(1, 4))

        def table(low, high, rows=lanes, columns=steps):
            numbers = draw(st.lists(st.integers(low, high), min_size=rows * columns, max_size=rows * columns))
            return torch.tensor(numbers).view(rows, columns)

        targets, step = table(0, 1), table(-1, 6)
        chunks.append(
            Chunk(
                symbols=table(-1, 2).masked_fill(step < 0, -1),
                targets=targets.masked_fill(targets == 0, -100),
                starts=table(0, 1, columns=1)[:, 0].bool(),
                sequence=table(0, 1, columns=1)[:, 0],
                step=step,
                index=index,
            )
        )
    return chunks


@settings(deadline=None, max_examples=300)
@given(any_chunks(), st.integers(0, 30))
def test_any_chunks_against_the_brute_force(chunks, lag):
    check(chunks, lag)


@pytest.fixture
def in_small_parts(monkeypatch):
    """Everything that long chunks meet: parts that are closed, blocks, lags by correlation."""
    monkeypatch.setattr(following, "_COLUMNS_AT_ONCE", 8)
    monkeypatch.setattr(following, "_MANY_LOOKUPS", 1)
    monkeypatch.setattr(data_path, "_COLUMNS_PER_BLOCK", 12)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_chunks(), min_size=1, max_size=2), st.integers(0, 30))
def test_chunks_in_small_parts_against_the_brute_force(in_small_parts, several, lag):
    """Also where the number of lanes changes, at a reset or without one."""
    check([chunk for chunks in several for chunk in chunks], lag)


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_a_stream_by_the_block_is_read_as_its_chunks_are(in_small_parts, mode):
    c = configure(mode, missing=0.3, **({"lanes": 3} if mode == "aligned" else {}))
    stream, lag = Plan(c).training(), c.reading.lag
    expected = check(list(itertools.islice(stream, 11)), lag, c.vocabulary_size)
    assert reach(stream, lag, vocabulary_size=c.vocabulary_size, max_chunks=11) == expected


def test_a_stream_that_makes_chunks_of_its_own_is_asked_for_them():
    class Late(EchoStream):
        def __iter__(self):
            return (chunk._replace(step=chunk.step + 3) for chunk in super().__iter__())

    stream = Late(LaneLayout(2, 3, 1), RandomSymbols(9), num_chunks=4)
    assert reach(stream, 1) == reach(list(stream), 1)


def test_what_was_read_before_a_reset_of_all_lanes_is_not_kept(monkeypatch):
    """A sequence is all that the memory must hold, however many follow."""
    monkeypatch.setattr(following, "_COLUMNS_AT_ONCE", 1000)
    closed = []
    columns_of = following._columns_of
    monkeypatch.setattr(following, "_columns_of", lambda pieces: closed.append(columns_of(pieces)) or closed[-1])
    configuration = configure("lag", length=1000)
    found = Plan(configuration).reach()
    assert found.targets == 20 * 995
    assert max(len(columns.step) for columns in closed) <= 20_000
    assert sum(len(columns.step) for columns in closed) == 5 * found.targets


@pytest.mark.parametrize(
    ("mode", "options", "lags"),
    [
        ("aligned", {"lanes": 1, "chunk": 1, "lag": 10**6}, []),  # nothing is asked
        ("stateful", {"length": 2000, "lag": 1900}, list(range(0, 1901, 6))),
        ("sequence", {"length": 3000, "lag": 2900}, list(range(2901))),
    ],
)
def test_many_lags_are_found_without_a_look_at_each(monkeypatch, mode, options, lags):
    monkeypatch.setattr(following, "_MANY_LOOKUPS", 10**5)
    time_of, calls = following._FirstReads.time_of, []
    monkeypatch.setattr(following._FirstReads, "time_of", lambda *given: calls.append(1) or time_of(*given))
    assert Plan(configure(mode, **options)).reach().reachable_lags == lags
    assert len(calls) <= 100


def test_many_lags_are_not_shown_one_by_one():
    found = Plan(configure("sequence", length=500, lag=400)).reach()
    (line,) = (line for line in reach_lines(found) if line.startswith("reachable lags: "))
    assert line.endswith("18, 19, ..., 400 (401 of them)")


def test_a_users_own_loader():
    """Text cut into windows that the user shuffles: one function makes it readable."""
    data = torch.arange(200).view(2, 100)
    batches = [{"x": data[:, i : i + 10], "at": torch.arange(i, i + 10)} for i in range(0, 100, 10)]

    def stamps(batch):
        return Stamps(step=batch["at"].expand(2, 10))

    assert reach(batches, 1, stamps=stamps).gap == 0
    assert reach(batches, 1, stamps=stamps).ceiling is None
    assert reach(batches[::2], 1, stamps=stamps).gap == 10
    shuffled = [batches[i] for i in (3, 0, 7, 1)]
    assert reach(shuffled, 15, stamps=stamps).gap is None
    assert reach(shuffled, 15, stamps=stamps).reachable_share < 0.5


def test_only_so_many_chunks_are_looked_at():
    stream = Plan(configure("aligned")).training()
    assert reach(stream, 1).chunks == 200
    assert reach(stream, 1, max_chunks=3).chunks == 3


@pytest.mark.parametrize(
    ("stamps", "error", "message"),
    [
        (Stamps(np.zeros(3, int)), ValueError, r"`step` with two axes.*Got shape \(3,\)"),
        (Stamps(np.zeros((0, 3), int)), ValueError, "neither empty"),
        (Stamps(np.zeros((2, 3))), ValueError, "`step` as integers. Got dtype float64"),
        (
            Stamps(np.zeros((2, 3), int), sequence=np.zeros(3, int)),
            ValueError,
            r"`sequence` of shape \(lanes,\) = \(2,\)",
        ),
        (Stamps(np.zeros((2, 3), int), starts=np.zeros(2, int)), ValueError, "`starts` as booleans"),
        (Stamps(np.zeros((2, 3), int), is_read=np.zeros((3, 2), bool)), ValueError, "`is_read`.*Got shape"),
        ((np.zeros((2, 3), int),), ValueError, "must return a Stamps.*Got tuple"),
    ],
)
def test_bad_stamps(stamps, error, message):
    with pytest.raises(error, match=message):
        reach([0], 1, stamps=lambda _: stamps)


def test_bad_numbers():
    with pytest.raises(ValueError, match="`lag` must be at least 0"):
        reach([], -1)
    with pytest.raises(ValueError, match="at least one chunk"):
        reach([], 1)


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_the_sentence_follows_from_the_numbers(mode):
    found = Plan(configure(mode)).reach()
    text = explain(found)
    assert ("never read" in text) == (found.reachable_share == 0)
    assert text.endswith(".")
    assert text.count(". ") == 0
    assert "luck" not in text


NEVER = "has never read it"
ALL_NEAR = "within the same chunk, where the gradient gets to; whether the state has room"
IN_THE_WAY = "whether what is handed over gets in its way"
SHOWN = "this network is shown the last 5 symbols, and the answer is among them"
NOT_SHOWN = "this network is shown the current symbol, and the answer is not among them"
SOME_NEAR = "% of these were read within the same chunk"
FAR = "always read in an earlier chunk, where no gradient gets to: nothing shapes the state for it"
SOME = "Only for "
NOT_ASKED = "Nothing is asked"


@pytest.mark.parametrize(
    ("options", "sentences"),
    [
        ({"mode": "stateful"}, [NEVER]),
        ({"mode": "lag", "lag": 4}, [ALL_NEAR, IN_THE_WAY]),
        ({"mode": "aligned", "chunk": 1, "model": "mlp"}, [SHOWN]),
        ({"mode": "aligned", "model": "memoryless"}, [NOT_SHOWN]),
        ({"mode": "whole"}, [ALL_NEAR]),
        ({"mode": "lag", "lag": 4, "carry": "reset"}, [ALL_NEAR]),
        ({"mode": "aligned"}, [SOME_NEAR]),
        ({"mode": "aligned", "chunk": 1, "vocabulary_size": 10, "learning_rate": 1e-3}, [FAR]),
        ({"mode": "aligned", "lag": 5}, [FAR]),
        ({"mode": "stateful", "lag": 6}, [FAR, SOME]),
    ],
)
def test_each_sentence_stands_where_it_is_true_and_nowhere_else(options, sentences):
    c = configure(**options)
    text = explain(Plan(c).reach(), memory_length=memory_length(c), is_carried=c.reading.carry == "keep")
    parts = (NEVER, ALL_NEAR, IN_THE_WAY, SOME_NEAR, FAR, SOME, SHOWN, NOT_SHOWN, NOT_ASKED)
    assert [part for part in parts if part in text] == sentences
