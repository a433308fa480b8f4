import dataclasses
import itertools
import os
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from echo_torch import EXPERIMENTS, Chunk, EchoStream, LaneLayout, RandomSymbols, UserError, configure
from echo_torch.diagnosis.data_path import batches, first_reads, following
from echo_torch.diagnosis.data_path.explaining import reach_lines
from echo_torch.diagnosis.data_path.reaching import OTHER, reach
from echo_torch.diagnosis.stamps import Stamps, checked_stamps, stamps_of_chunk
from echo_torch.errors import RuleError
from echo_torch.lab.plan import Plan

EXAMPLES = int(os.environ.get("EXAMPLES", "50"))  # for each brute force; 250 in the full count


def brute_force(batches, lag, max_lag=24):
    """The definitions read aloud: a list of all that each lane read since its reset, searched for every target."""
    seen, last, put_in, first, lives = {}, {}, {}, {}, Counter()
    gaps, borders, reachable = Counter(), Counter(), set()
    asked = hits = in_chunk = before_start = row_changes = rows = 0
    for number, stamps in enumerate(batches):
        checked = checked_stamps(stamps)
        starts, sequences, restored = (of_columns(field, checked, *nothing) for field, nothing in (
            (checked.starts, (False,)), (checked.sequence, ()), (checked.restored, (-1,)),
        ))  # fmt: skip
        is_reset = all(starts[:, 0] | (restored[:, 0] >= 0))
        row_changes += number > 0 and len(checked.step) != rows and not is_reset
        rows = len(checked.step)
        for lane, column in np.ndindex(checked.step.shape):
            step, sequence = int(checked.step[lane, column]), int(sequences[lane, column])
            if column == 0:
                before = len(seen.setdefault(lane, []))
            if starts[lane, column] or restored[lane, column] >= 0:
                seen[lane], before = [], 0
                lives[lane] += 1
                last.pop(lane, None)
                put_in.pop(lane, None)
            if restored[lane, column] >= 0:
                put_in[lane] = sequence, int(restored[lane, column])
                last[lane] = sequence, int(restored[lane, column]), None
                first.setdefault(lane, (lives[lane], sequence, 0))
            if step >= 0:  # a step whose symbol is missing is passed all the same
                if lane in last:
                    gap = step - last[lane][1] - 1 if last[lane][0] == sequence else OTHER
                    gaps[gap] += 1
                    borders[gap] += last[lane][2] != number
                last[lane] = sequence, step, number
            if checked.is_read[lane, column]:
                seen[lane].append((sequence, step))
                first.setdefault(lane, (lives[lane], sequence, step))
            if checked.is_asked[lane, column]:
                its_sequence, its_last = put_in.get(lane, (None, -1))
                known = {answer for its, answer in seen[lane] if its == sequence}
                known |= set(range(its_last + 1)) if its_sequence == sequence else set()
                answers = [step - lag] if lag is not None else checked.answers[lane, column].tolist()
                asked += 1
                begin = first[lane][2] if first.get(lane, ())[:2] == (lives[lane], sequence) else 0
                before_start += any(answer < begin for answer in answers)
                reachable |= {back for back in range(max_lag + 1) if step - back in known}
                hits += known.issuperset(answers)
                in_chunk += all((sequence, answer) in seen[lane][before:] for answer in answers)
    is_known = asked and (lag is not None or checked.answers.shape[2])
    jumps = set(gaps) - {0, OTHER}
    return {
        "gap": 0 if not jumps else jumps.pop() if len(jumps) == 1 else None,
        "gaps": dict(gaps),
        "borders": dict(+borders),
        "reachable_lags": sorted(reachable),
        "reachable_share": hits / asked if is_known else None,
        "in_horizon_share": in_chunk / asked if is_known else None,
        "targets": asked,
        "before_start": before_start,
        "row_changes": row_changes,
    }


def of_columns(field, checked, nothing=None):
    """A field of the lanes, spread over the columns; what happens before the batch stands in the first."""
    if nothing is None or field.shape == checked.step.shape:
        return np.broadcast_to(field, checked.step.shape)
    spread = np.full(checked.step.shape, nothing)
    spread[:, 0] = field[:, 0]
    return spread


def check(chunks, lag, vocabulary_size=100):
    found = check_stamps([stamps_of_chunk(chunk) for chunk in chunks], lag)
    by_chunk = reach(chunks, lag, vocabulary_size=vocabulary_size)
    share = found.reachable_share
    assert by_chunk.ceiling == (None if share is None else pytest.approx(share + (1 - share) / vocabulary_size))
    assert by_chunk == dataclasses.replace(found, ceiling=by_chunk.ceiling)
    return by_chunk


def check_stamps(batches, lag):
    expected, found = brute_force(batches, lag), reach(batches, lag, stamps=lambda stamps: stamps)
    for name, value in expected.items():
        found_value = getattr(found, name)
        assert found_value == (pytest.approx(value) if isinstance(value, float) else value), name
    assert found.chunks == len(batches)
    assert found.is_whole
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


@settings(deadline=None, max_examples=15)
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


@settings(deadline=None, max_examples=15)
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


@settings(deadline=None, max_examples=EXAMPLES)
@given(any_chunks(), st.integers(0, 30))
def test_any_chunks_against_the_brute_force(chunks, lag):
    check(chunks, lag)


@st.composite
def any_stamps(draw):
    """Rows of several sequences, resets inside, states put in from a buffer, several answers, or places alone."""
    num_answers = draw(st.sampled_from([0, 0, 1, 2]))
    by_column = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    batches = []
    for _ in range(draw(st.integers(1, 5))):
        shape = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        numbers = random.Random(draw(st.integers(0, 2**32)))

        def table(low, high, *shape, numbers=numbers):
            return np.array([numbers.randint(low, high) for _ in range(int(np.prod(shape)))]).reshape(shape)

        sequence, starts, restored = (
            table(*numbers, *(shape if is_by_column else shape[:1]))
            for numbers, is_by_column in zip(((0, 1), (-3, 1), (-6, 4)), by_column, strict=True)
        )
        answers = table(-1, 6, *shape, num_answers)
        batches.append(
            Stamps(
                table(-1, 6, *shape),
                sequence,
                starts > 0,
                table(0, 1, *shape) > 0,
                table(0, 1, *shape) > 0,
                answers[..., 0] if num_answers == 1 and numbers.random() < 0.5 else answers if num_answers else None,
                np.maximum(restored, -1) if numbers.random() < 0.5 else None,
            )
        )
    return batches


@settings(deadline=None, max_examples=EXAMPLES)
@given(any_stamps(), st.integers(0, 8))
def test_any_stamps_against_the_brute_force(batches, lag):
    has_answers = batches[0].answers is not None
    check_stamps(batches, None if has_answers or lag == 8 else lag)


@pytest.fixture
def in_small_parts(monkeypatch):
    """Everything that long chunks meet: parts that are closed, blocks, lags by correlation."""
    monkeypatch.setattr(following, "_COLUMNS_AT_ONCE", 8)
    monkeypatch.setattr(first_reads, "_MANY_LOOKUPS", 1)
    monkeypatch.setattr(batches, "_COLUMNS_PER_BLOCK", 12)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_chunks(), min_size=1, max_size=2), st.integers(0, 30))
def test_chunks_in_small_parts_against_the_brute_force(in_small_parts, several, lag):
    """Also where the number of lanes changes, at a reset or without one."""
    check([chunk for chunks in several for chunk in chunks], lag)


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_a_stream_by_the_block_is_read_as_its_chunks_are(in_small_parts, mode):
    c = configure(mode, missing=0.3, **({"lanes": 3} if mode == "aligned" else {}))
    stream, lag = Plan(c).training(), c.reading.lag
    expected = check(list(itertools.islice(stream, 11)), lag, c.vocabulary_size)
    found = reach(stream, lag, vocabulary_size=c.vocabulary_size, max_chunks=11)
    assert found == dataclasses.replace(expected, is_whole=False, seam=None)


@settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_stamps(), st.integers(0, 8))
def test_any_stamps_in_small_parts_against_the_brute_force(in_small_parts, batches, lag):
    check_stamps(batches, None if batches[0].answers is not None else lag)


def test_a_stream_that_makes_chunks_of_its_own_is_asked_for_them():
    class Late(EchoStream):
        def __iter__(self):
            return (chunk._replace(step=chunk.step + 3) for chunk in super().__iter__())

    stream = Late(LaneLayout(2, 3, 1), RandomSymbols(9), num_chunks=4)
    assert reach(stream, 1) == reach(list(stream), 1)


def test_what_was_read_is_kept_in_parts_of_a_size(monkeypatch):
    """However many chunks there are, and though nothing is ever reset: of what was read spans are left."""
    monkeypatch.setattr(following, "_COLUMNS_AT_ONCE", 1000)
    sizes, spans = [], []
    columns_of = following.columns_of

    def noting(pieces, before):
        sizes.append(sum(piece.step.size for piece in pieces))
        spans.append(len(before.low))
        return columns_of(pieces, before)

    monkeypatch.setattr(following, "columns_of", noting)
    position = np.arange(4)[:, None] * 100_000
    batches = [Stamps(position + np.arange(start, start + 10)) for start in range(0, 20_000, 10)]
    found = reach(batches, 15_000, stamps=lambda stamps: stamps)
    assert found.reachable_share == (20_000 - 15_000) / 20_000
    assert found.before_start == 4 * 15_000
    assert max(sizes) <= 2**14 + 1000  # a block, and what is left of the part before
    assert len(sizes) > 3
    assert max(spans) == 4


@pytest.mark.parametrize(
    ("mode", "options", "lags"),
    [
        ("aligned", {"lanes": 1, "chunk": 1, "lag": 10**6}, []),  # nothing is asked
        ("stateful", {"length": 2000, "lag": 1900}, list(range(0, 1901, 6))),
        ("sequence", {"length": 3000, "lag": 2900}, list(range(2901))),
    ],
)
def test_many_lags_are_found_without_a_look_at_each(monkeypatch, mode, options, lags):
    monkeypatch.setattr(first_reads, "_MANY_LOOKUPS", 10**5)
    time_of, calls = first_reads.FirstReads.time_of, []
    monkeypatch.setattr(first_reads.FirstReads, "time_of", lambda *given: calls.append(1) or time_of(*given))
    assert Plan(configure(mode, **options)).reach().reachable_lags == lags
    assert len(calls) <= 100


def test_many_lags_are_not_shown_one_by_one():
    found = Plan(configure("sequence", length=500, lag=400)).reach()
    (line,) = (line for line in reach_lines(found) if line.startswith("reachable lags: "))
    assert line == "reachable lags: 0 to 400"
    found = Plan(configure("stateful", length=1000, lag=600)).reach()
    (line,) = (line for line in reach_lines(found) if line.startswith("reachable lags: "))
    assert line.endswith("108, 114, ..., 600 (101 of them)")


# --- what public loaders have, and this project's have not --------------------------------------------------------


def look(batches, lag=None, **options):
    return reach(batches, lag, stamps=lambda batch: batch if isinstance(batch, Stamps) else Stamps(batch), **options)


def test_padding_is_never_asked():
    found = look([[[0, 1, 2, -1, -1, -1], [0, 1, 2, 3, 4, 5]]], 0)
    assert (found.reachable_share, found.targets) == (1, 9)


def test_the_first_targets_of_a_series_ask_too_early():
    """A row of a long series begins anywhere, and has read nothing before."""
    columns = np.arange(4)[:, None] * 1000
    found = look([columns + np.arange(start, start + 5) for start in range(0, 500, 5)], 4)
    assert (found.reachable_share, found.before_start) == (0.992, 4 * 4)
    again = [Stamps(np.arange(5)[None], starts=[True])] * 3  # but the same at each reset is what the path does
    found = look(again, 2)
    assert (found.reachable_share, found.before_start) == (3 / 5, 3 * 2)
    later = [Stamps(5 + np.arange(5)[None], starts=[True])] * 3
    assert look(later, 2).before_start == 2


def test_all_chunks_of_a_finite_loader_and_the_border_of_a_second_pass():
    batches = [np.arange(start, start + 4)[None].repeat(2, axis=0) for start in range(0, 4000, 4)]
    batches[900] = batches[900] + 3
    found = look(batches)
    assert (found.chunks, found.is_whole) == (1000, True)
    assert found.gaps == {-3: 2, 0: 2 * (3999 - 2), 3: 2}
    assert found.borders == {-3: 2, 0: 2 * (999 - 2), 3: 2}
    assert found.seam == {-4000: 2}
    assert look(batches, max_chunks=10).seam is None
    assert look(batches, is_repeated=False).seam is None
    assert look(iter(batches)).seam is None
    reset_there = [Stamps(batch, starts=[number == 0] * 2) for number, batch in enumerate(batches)]
    assert look(reset_there).seam == {}


def test_batches_that_nobody_can_count_are_read_to_their_end():
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return (torch.arange(start, start + 2)[None] for start in range(0, 1000, 2))

    loader = torch.utils.data.DataLoader(Endless(), batch_size=None)
    found = look(loader)
    assert (found.chunks, found.is_whole, found.seam) == (500, True, {-1000: 1})


def test_a_second_pass_is_begun_once():
    """The iterator of a loader with workers starts processes."""
    begun = []

    class Loader:
        def __iter__(self):
            begun.append(1)
            return iter([np.arange(4)[None]])

        def __len__(self):
            return 1

    assert look(Loader()).seam == {-4: 1}
    assert len(begun) == 2


def test_the_order_is_that_of_the_training():
    """A loader that shuffles draws from the global generator, which is left as it was."""
    data = torch.utils.data.TensorDataset(torch.arange(40).view(8, 5))
    loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
    torch.manual_seed(3)
    found = reach(loader, stamps=lambda batch: Stamps(batch[0]))
    first = [batch[0] for batch in loader]
    assert found.gaps == look(first).gaps


def test_rows_that_change_and_batches_that_are_empty():
    rows = np.arange(40).reshape(4, 10)
    found = look([rows, rows[:2] + 10, np.zeros((0, 10), int), rows[:2] + 20, rows[:, :0], rows + 30])
    assert found.rows == {2: 2, 4: 2}
    assert (found.row_changes, found.first_row_change) == (2, 1)
    assert found.empty_chunks == [2, 4]
    assert "rows-changed" in found.faults
    assert look([rows[:, :0], rows, rows[:0], rows[:2]]).first_row_change == 3
    reset = [Stamps(rows, starts=[True] * 4), Stamps(rows[:2], starts=[True] * 2)]
    assert (look(reset).row_changes, look(reset).faults) == (0, ())


def test_without_a_lag_gaps_alone_are_found():
    found = look([np.arange(5)[None], 5 + np.arange(5)[None]])
    assert (found.lag, found.reachable_share, found.in_horizon_share, found.ceiling) == (None, None, None, None)
    assert (found.gap, found.targets, found.reachable_lags) == (0, 10, list(range(10)))


def test_several_answers_and_many_to_one():
    """x[t] and x[t - 1], asked at the last step alone; the first chunk asks for a step that another row has read."""
    step = np.array([[4, 5, 6], [14, 15, 16]])
    asked = np.array([[False, False, True]] * 2)
    answers = np.stack([step, step - 1], axis=-1)
    answers[1, 2] = 16, 5
    first = Stamps(step, is_asked=asked, answers=answers)
    then = Stamps(step + 3, is_asked=asked, answers=np.stack([step + 3, step], axis=-1))
    found = look([first, then])
    assert (found.targets, found.reachable_share, found.in_horizon_share) == (4, 3 / 4, 1 / 4)


def test_a_reset_and_a_border_inside_a_row():
    documents = Stamps(step=[[7, 8, 0, 1, 2]], sequence=[[3, 3, 4, 4, 4]], starts=[[False, False, True, False, False]])
    assert look([documents]).gaps == {0: 3}
    assert look([documents._replace(starts=None)]).gaps == {0: 3, OTHER: 1}
    found = look([documents, Stamps([[3, 4]], sequence=[4])], 2)
    assert found.gaps == {0: 5}
    assert found.reachable_share == 3 / 7  # of steps 7, 8, 0 and 1 it lies before the row begins


def test_a_state_put_in_from_a_buffer():
    """As in recurrent policies: rows begin anywhere, with the state that was saved there."""
    right = Stamps([[6, 7, 8], [0, 1, 2]], starts=[False, True], restored=[5, -1])
    found = look([right, right], 7)
    assert (found.gaps, found.borders) == ({0: 10}, {0: 2})
    assert (found.reachable_share, found.in_horizon_share, found.before_start) == (4 / 12, 0, 2 * (1 + 3))
    late = right._replace(restored=[4, -1])
    assert look([late, late]).borders == {1: 2}
    inside = Stamps([[6, 7, 20, 21]], restored=[[-1, -1, 19, -1]])
    assert look([inside]).gaps == {0: 3}


class OnADevice:
    """A tensor that numpy cannot read before it is on the CPU."""

    def __init__(self, values):
        self._values = torch.as_tensor(values)

    def detach(self):
        return self

    def cpu(self):
        return self._values

    def __array__(self, *given):
        raise TypeError("can't convert a tensor on a device to numpy")


def test_stamps_on_a_device():
    stamps = Stamps(*map(OnADevice, ([[0, 1]], [3], [True], [[True, True]], [[True, False]])))
    assert look([stamps], 0).targets == 1


@pytest.mark.gpu
def test_stamps_and_chunks_on_a_gpu():
    assert look([torch.arange(6).view(2, 3).cuda()]).gaps == {0: 4}
    chunk = next(iter(Plan(configure("lag")).training())).to(torch.device("cuda"))
    assert reach([chunk], 1).reachable_share == 1


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
        (Stamps(np.zeros((0, 3), int)), ValueError, "at least one chunk that is not empty. Got empty ones alone"),
        (Stamps(np.zeros((2, 3), int), answers=np.zeros((2, 3, 0), int)), ValueError, "`answers` of shape"),
        (Stamps(np.zeros((2, 3), int), answers=np.zeros(2, int)), ValueError, "`answers` of shape"),
        (Stamps(np.zeros((2, 3), int), answers=np.zeros((2, 3), int)), ValueError, "`lag` must be None where `stamps`"),
        (Stamps(np.zeros((2, 3), int), restored=np.zeros(3, int)), ValueError, "`restored` of shape.*in chunk 0"),
        (Stamps(np.zeros((2, 3), int), restored=np.zeros(2)), ValueError, "`restored` as integers"),
        (Stamps(np.zeros((2, 3))), ValueError, "`step` as integers. Got dtype float64"),
        (
            Stamps(np.zeros((2, 3), int), sequence=np.zeros(3, int)),
            ValueError,
            r"`sequence` of shape \(lanes,\) = \(2,\) or \(lanes, steps\) = \(2, 3\)",
        ),
        (Stamps(np.zeros((2, 3), int), starts=np.zeros(2, int)), ValueError, "`starts` as booleans"),
        (Stamps(np.zeros((2, 3), int), is_read=np.zeros((3, 2), bool)), ValueError, "`is_read`.*Got shape"),
        ((np.zeros((2, 3), int),), ValueError, "must return a Stamps.*Got tuple"),
    ],
)
def test_bad_stamps(stamps, error, message):
    with pytest.raises(error, match=message):
        reach([0], 1, stamps=lambda _: stamps)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (5, "`chunks` must be batches that can be iterated. Got int; hand over the loader"),
        (
            [[torch.zeros(2, 3), torch.zeros(2)]],
            r"Got a list of 2 tensors; .*`reach\(loader, stamps=lambda batch: Stamps",
        ),
        ([{"x": 1, "time": 2}], r"Got a dict with x, time; .*stamps=lambda batch: Stamps\(step=batch\[\"time\"\]\)\)`"),
        ([None], r"Got a NoneType; .*write `reach_of\(make_loader, length\)`"),
    ],
)
def test_first_contact(batches, message):
    """Which argument is missing, and the line that would do."""
    with pytest.raises(UserError, match=message):
        reach(batches)


def test_several_answers_must_be_as_many_everywhere():
    places = np.arange(3)[None]
    batches = [Stamps(places, answers=places), Stamps(places)]
    with pytest.raises(ValueError, match=r"`answers` with as many answers for each batch.*Got 1 and 0; repeat"):
        reach(batches, stamps=lambda stamps: stamps)


def test_bad_numbers():
    with pytest.raises(ValueError, match="`lag` must be a whole number of at least 0"):
        reach([], -1)
    with pytest.raises(ValueError, match="at least one chunk"):
        reach([], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lag": "1"}, "`lag` must be a whole number of at least 0. Got '1'"),
        ({"lag": 1.0}, "`lag` must be a whole number"),
        ({"max_lag": None}, "`max_lag` must be a whole number of at least 0. Got None"),
        ({"max_chunks": 2.5}, "`max_chunks` must be a whole number of at least 1. Got 2.5"),
        ({"stamps": None}, "`stamps` must be a function of a batch. Got None; hand over"),
        ({"stamps": lambda batch: Stamps(step=[[1, 2], [3]])}, "rows are of equal length"),
        ({"stamps": lambda batch: Stamps(step=batch.bfloat16())}, "`step` as integers. Got dtype bfloat16"),
    ],
)
def test_arguments_of_wrong_types_are_named(options, message):
    with pytest.raises(RuleError, match=message):
        reach([torch.arange(8).view(2, 4)], **{"stamps": Stamps, **options})


def test_numbers_of_numpy_are_numbers():
    batches = [torch.arange(8).view(2, 4)]
    found = reach(batches, np.int64(1), max_lag=np.int32(3), max_chunks=torch.tensor(1), stamps=Stamps)
    assert found == reach(batches, 1, max_lag=3, max_chunks=1, stamps=Stamps)
    assert type(found.lag) is int


@pytest.mark.parametrize("is_sampler", [False, True])
def test_a_loaders_own_generator_draws_the_same_afterwards(is_sampler):
    data, generator = TensorDataset(torch.arange(100).view(20, 5)), torch.Generator().manual_seed(3)
    sampler = {"sampler": RandomSampler(data, generator=generator)}
    own = sampler if is_sampler else {"shuffle": True, "generator": generator}
    loader, before = DataLoader(data, batch_size=2, **own), generator.get_state()
    reach(loader, stamps=lambda batch: Stamps(batch[0]))
    assert torch.equal(generator.get_state(), before)
