import itertools

import numpy as np
import pytest
import torch

from echo_torch.data import EchoStream, LaneLayout, OwnSeries, RandomSymbols, SeriesLayout, WindowLayout, frame_windows

NAN = float("nan")
NUMBERS = [[0.5, 0.75, 1.0], [2.5, 2.0]]
VECTORS = [np.array([[0.5, 1], [0.75, 2], [1.0, 3]]), np.array([[2.5, 4], [2.0, 5]])]


def same(one, two):
    """Equal to the last bit, NaN to NaN."""
    return all(
        torch.equal(x, y) or (torch.equal(x.isnan(), y.isnan()) and torch.equal(x.nan_to_num(), y.nan_to_num()))
        if isinstance(x, torch.Tensor)
        else x == y
        for x, y in zip(one, two, strict=True)
    )


def make_stream(series, **options):
    """Two lanes, chunks of two steps, asked for the next reading."""
    options = {"targets": lambda sequence, step: series(sequence, step + 1), **options}
    return EchoStream(SeriesLayout(series.lengths, 2, 2, lag=1), series, **options)


def first(number, stream):
    return list(itertools.islice(stream, number))


def equals(tensor, values):
    expected = torch.tensor(values, dtype=tensor.dtype)
    return same([tensor], [expected])


def test_readings_of_places():
    series = OwnSeries(NUMBERS)
    assert series.lengths.tolist() == [3, 2]
    assert series.lengths.dtype == np.int64
    assert series.num_features is None
    found = series(np.array([[0], [1], [2], [-1]]), np.array([-1, 0, 2]))
    assert found.dtype == np.float32
    expected = [[NAN, 0.5, 1.0], [NAN, 2.5, NAN], [NAN, NAN, NAN], [NAN, NAN, NAN]]
    assert np.array_equal(found, np.array(expected, np.float32), equal_nan=True)
    assert series(np.array(1), np.array(1)) == 2.0


def test_vectors_of_places():
    series = OwnSeries(VECTORS)
    assert series.num_features == 2
    found = series(np.array([0, 1, 1]), np.array([2, 1, 2]))
    assert np.array_equal(found, np.array([[1, 3], [2, 5], [NAN, NAN]], np.float32), equal_nan=True)
    assert series(np.array(0), np.array(1)).tolist() == [0.75, 2]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("make", [np.array, torch.tensor, list])
def test_arrays_tensors_and_lists_become_the_type_that_is_asked_for(make, dtype):
    series = OwnSeries([make([1, 2, 3]), make([4.0])], dtype=dtype)
    found = series(np.array([0, 1]), np.array([2, 0]))
    assert found.dtype == dtype
    assert found.tolist() == [3, 4]
    chunk = next(iter(make_stream(series)))
    assert chunk.symbols.numpy().dtype == chunk.targets.numpy().dtype == dtype


def test_tensors_that_numpy_does_not_take():
    parameter = torch.tensor([1.0, 2.0], requires_grad=True)
    series = OwnSeries([parameter, torch.tensor([3.0], dtype=torch.bfloat16)])
    assert series(np.array([0, 1]), np.array([1, 0])).tolist() == [2, 3]


def test_one_series_of_the_type_is_not_copied():
    values = np.arange(5, dtype=np.float32)
    series = OwnSeries([values])
    values[1] = 7
    assert series(np.array(0), np.array(1)) == 7
    series(np.array([0]), np.array([9]))
    assert values[0] == 0


def test_the_next_reading_written_out():
    one, two = first(2, make_stream(OwnSeries(NUMBERS)))
    assert equals(one.symbols, [[0.5, 0.75], [2.5, 2.0]])
    assert equals(one.targets, [[0.75, 1.0], [2.0, NAN]])
    assert equals(one.step, [[0, 1], [0, 1]])
    assert equals(one.starts, [True, True])
    assert equals(two.symbols, [[1.0, 0], [0, 0]])
    assert equals(two.targets, [[NAN, NAN], [NAN, NAN]])
    assert equals(two.step, [[2, -1], [-1, -1]])
    assert equals(two.sequence, [0, -1])
    assert equals(two.starts, [False, True])
    assert (one.symbols.dtype, one.targets.dtype) == (torch.float32, torch.float32)


def test_the_next_vector_written_out():
    one, two = first(2, make_stream(OwnSeries(VECTORS)))
    assert equals(one.symbols, [[[0.5, 1], [0.75, 2]], [[2.5, 4], [2.0, 5]]])
    assert equals(one.targets, [[[0.75, 2], [1.0, 3]], [[2.0, 5], [NAN, NAN]]])
    assert equals(two.symbols, [[[1.0, 3], [0, 0]], [[0, 0], [0, 0]]])
    assert two.targets.isnan().all()
    assert two.step.shape == (2, 2)


def test_the_echo_of_readings():
    chunk = next(iter(make_stream(OwnSeries(NUMBERS), targets=None)))
    assert equals(chunk.targets, [[NAN, 0.5], [NAN, 2.5]])
    chunk = next(iter(make_stream(OwnSeries(VECTORS), targets=None)))
    assert equals(chunk.targets, [[[NAN, NAN], [0.5, 1]], [[NAN, NAN], [2.5, 4]]])


def test_no_echo_is_asked_where_a_series_has_ended_or_its_symbol_is_not_there():
    chunk = next(iter(EchoStream(LaneLayout(1, 4, 1), OwnSeries(NUMBERS[1:]))))
    assert equals(chunk.targets, [[NAN, 2.5, NAN, NAN]])
    stream = EchoStream(LaneLayout(1, 4, 1), lambda sequence, step: np.where((step == 0) | (step == 3), -1, step))
    assert next(iter(stream)).targets.tolist() == [[-100, -100, 1, -100]]


def test_a_missing_reading_is_a_place_that_reads_zeros():
    series = OwnSeries([[1.0, NAN, 3.0]])
    stream = EchoStream(SeriesLayout(series.lengths, 1, 3, lag=1), series)
    chunk = next(iter(stream))
    assert equals(chunk.symbols, [[1, 0, 3]])
    assert equals(chunk.step, [[0, 1, 2]])
    assert equals(chunk.targets, [[NAN, 1, NAN]])
    stream.targets = lambda sequence, step: 10.0 * step
    assert equals(next(iter(stream)).targets, [[0, 10, 20]])


def test_one_missing_feature():
    chunk = next(iter(make_stream(OwnSeries([[[1.0, 2.0], [NAN, 4.0]]]))))
    assert equals(chunk.symbols[0], [[1, 2], [0, 4]])
    assert equals(chunk.targets[0], [[NAN, 4], [NAN, NAN]])


@pytest.mark.parametrize("values", [NUMBERS, VECTORS])
def test_readings_that_are_missing_by_a_function(values):
    stream = make_stream(OwnSeries(values), is_missing=lambda sequence, step: (sequence == 0) & (step == 1))
    whole = next(iter(make_stream(OwnSeries(values))))
    chunk = next(iter(stream))
    assert not chunk.symbols[0, 1].any()
    assert torch.equal(chunk.symbols[1], whole.symbols[1])
    assert same([chunk.targets, chunk.step], [whole.targets, whole.step])


def test_targets_are_asked_of_the_places_that_are_read():
    calls = []

    def targets(sequence, step):
        calls.append((sequence, step))
        return sequence

    series = OwnSeries([np.zeros(5), np.zeros(2), np.zeros(3)])
    first(6, make_stream(series, targets=targets, num_chunks=3))
    assert all(part.dtype == np.int64 and part.ndim == 1 for call in calls for part in call)
    *examples, last = [list(zip(*(part.tolist() for part in call), strict=True)) for call in calls]
    assert sorted(last) == [(number, step) for number, length in enumerate([5, 2, 3]) for step in range(length)]
    assert set(itertools.chain(*examples)) <= set(last)


@pytest.mark.parametrize("make", [LaneLayout, lambda *sizes: WindowLayout(frame_windows(6, 2, 1), 6, 2)])
def test_beyond_the_end_there_is_no_place(make):
    """Layouts of endless or of equal sequences go on where a series has ended."""
    series, asked = OwnSeries([[1.0, NAN, 3.0], [4.0]]), []

    def targets(sequence, step):
        asked.extend(zip(sequence.tolist(), step.tolist(), strict=True))
        return np.ones(len(step))

    chunks = first(12, EchoStream(make(2, 2, 1), series, targets=targets))
    assert set(asked) == {(0, 0), (0, 1), (0, 2), (1, 0)}
    for chunk in chunks:
        is_there = torch.from_numpy(series.exists(chunk.sequence[:, None].numpy(), chunk.step.numpy()))
        assert torch.equal(is_there, chunk.step >= 0)
        assert torch.equal(is_there, ~chunk.targets.isnan())
        assert not chunk.symbols[~is_there].any()


def test_integer_targets_of_readings():
    def targets(sequence, step):
        return np.where(step == 0, -100, 10 * sequence + step).astype(np.int32)

    one, two = first(2, make_stream(OwnSeries(VECTORS), targets=targets))
    assert equals(one.targets, [[-100, 1], [-100, 11]])
    assert equals(two.targets, [[2, -100], [-100, -100]])
    assert one.targets.dtype == torch.int64


def test_float_targets_of_symbols():
    layout = SeriesLayout([3, 2], 2, 2, lag=0)
    source = RandomSymbols(10)
    plain, asked = (
        next(iter(EchoStream(layout, source, targets=targets, start=1)))
        for targets in (None, lambda sequence, step: np.stack([step / 2, sequence - 0.5], axis=1))
    )
    assert torch.equal(plain.symbols, asked.symbols)
    assert torch.equal(plain.step, asked.step)
    assert asked.symbols.dtype == torch.int64
    assert asked.targets.dtype == torch.float32  # what a loss takes, though numpy says float64
    assert equals(asked.targets, [[[1, -0.5], [NAN, NAN]], [[NAN, NAN], [NAN, NAN]]])


def test_integer_targets_of_symbols_where_the_source_has_ended():
    def source(sequence, step):
        return np.where((step >= 0) & (step < 3), step, -1).astype(np.int32)

    stream = EchoStream(LaneLayout(1, 2, 0), source, targets=lambda sequence, step: step + 5)
    one, two = first(2, stream)
    assert (one.targets.tolist(), two.targets.tolist()) == ([[5, 6]], [[7, -100]])
    assert two.symbols.tolist() == [[2, -1]]
    assert two.symbols.dtype == torch.int64


def test_a_users_function_as_a_source_of_readings():
    """Without `exists`, everything that the layout reads is there."""
    stream = EchoStream(LaneLayout(2, 2, 1), lambda sequence, step: sequence + step / 4)
    one, two = first(2, stream)
    assert equals(one.symbols, [[0, 0.25], [1, 1.25]])
    assert equals(one.targets, [[NAN, 0], [NAN, 1]])
    assert equals(two.targets, [[0.25, 0.5], [1.25, 1.5]])
    assert one.symbols.dtype == one.targets.dtype == torch.float64  # as the source has them


def test_what_a_source_returns_stays_as_it_is():
    table = np.full((1, 2, 2), 5.0, np.float32)
    table[0, 0, 0] = NAN
    table.flags.writeable = False
    layout = SeriesLayout([1, 2], 2, 2, lag=0)
    chunk = next(iter(EchoStream(layout, lambda *places: table, num_chunks=1)))
    assert equals(chunk.symbols, [[0, 0], [5, 5]])
    assert np.isnan(table[0, 0, 0])
    symbols = np.full((1, 2, 2), 5)
    symbols.flags.writeable = False
    chunk = next(iter(EchoStream(layout, lambda *places: symbols, num_chunks=1, targets=lambda k, step: step)))
    assert equals(chunk.symbols, [[5, 5], [5, 5]])


@pytest.mark.parametrize("values", [NUMBERS, VECTORS])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_give_the_same_chunks(values, num_workers):
    series = OwnSeries(values)
    expected = first(9, make_stream(series, num_chunks=9))
    found = list(make_stream(series, num_chunks=9).loader(num_workers=num_workers))
    assert all(same(one, two) for one, two in zip(expected, found, strict=True))


def test_wide_vectors_are_made_few_at_a_time():
    series, sizes = OwnSeries([np.zeros((4, 2**12))]), []

    def targets(sequence, step):
        sizes.append(len(step))
        return step

    assert len(first(4, make_stream(series, targets=targets))) == 4
    assert max(sizes) <= 4


@pytest.mark.parametrize("is_integer", [True, False])
def test_a_rank_of_unused_rows_has_targets_of_the_same_type(is_integer):
    """It cannot tell them from the places that it asks for, because there are none."""

    def targets(sequence, step):  # an empty list becomes floats, of no features
        return np.array([step_of if is_integer else [0.5, step_of] for step_of in step.tolist()])

    series = OwnSeries([[1.0, 2.0]])
    used, unused = (next(iter(make_stream(series, targets=targets, rank=rank, num_ranks=2))) for rank in range(2))
    assert used.targets.dtype == unused.targets.dtype
    assert used.targets.shape == unused.targets.shape
    assert equals(unused.targets, [[-100, -100]] if is_integer else [[[NAN] * 2] * 2])


def test_a_source_without_any_place():
    """Nothing is asked, and `targets` says of what type."""
    series = OwnSeries([[1.0, 2.0]])
    stream = EchoStream(SeriesLayout([2], 1, 2), lambda k, step: np.full(step.shape, -1), targets=series)
    assert equals(next(iter(stream)).targets, [[NAN, NAN]])


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ([], "`series` must hold at least one series. Got none"),
        (np.zeros((2, 3)), r"`series` must be a list of arrays.*Got a single array of shape \(2, 3\); write \[array\]"),
        (torch.zeros(3), r"`series` must be a list of arrays.*Got a single array of shape \(3,\)"),
        ([1.0, 2.0], r"Each of `series` must have the shape \(steps,\) or \(steps, features\).*Got shape \(\)"),
        ([np.zeros(3), np.zeros(0)], r"with at least one step. Got shape \(0,\) as series 1"),
        ([np.zeros((3, 0))], r"with at least one step. Got shape \(3, 0\)"),
        ([np.zeros((3, 2, 1))], r"Each of `series`.*Got shape \(3, 2, 1\) as series 0"),
        ([np.zeros(3), np.zeros((3, 1))], r"`series` must all be .*Got shape \(3,\) as series 0 and \(3, 1\) as seri"),
        ([np.zeros((3, 2)), np.zeros((3, 1))], "with as many features, because one network reads them all"),
        ([np.zeros(2), np.zeros(2, complex)], "`series` must hold integers or floats, also as series 1.*complex128"),
        ([np.zeros(2, bool)], "`series` must hold integers or floats.*dtype bool"),
        ([[1.0, None]], r"`series` must hold integers or floats.*Got \[1.0, None\], object"),
        (["12"], "`series` must hold integers or floats.*Got 12"),
        ([[[1.0], [2.0, 3.0]]], "`series` must hold arrays, also as series 0. Got .*inhomogeneous"),
        ([[1.0, 2.0], [3.0, np.inf]], "`series` must hold numbers that are finite as float32. Got an infinite one in "
                                      "series 1 at step 1; give NaN where a reading is missing"),
        ([[[1.0, 2.0], [3.0, -np.inf]]], "in series 0 at step 1"),
        ([[1.0], [1e39]], "finite as float32. Got an infinite one in series 1 at step 0"),
    ],
)  # fmt: skip
def test_bad_series(series, message):
    with pytest.raises(ValueError, match=message):
        OwnSeries(series)


@pytest.mark.parametrize("dtype", [np.int64, bool, complex, object])
def test_bad_types(dtype):
    with pytest.raises(ValueError, match=r"`dtype` must be one of float16, float32, float64\. Got"):
        OwnSeries(NUMBERS, dtype=dtype)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            lambda k, step: np.zeros(4),
            r"`source` must .* so shape \(1, 1, 2\) or \(1, 1, 2, features\). Got shape \(4,",
        ),
        (lambda k, step: k / 2, r"Got shape \(1, 1, 1\)"),
        (lambda k, step: np.zeros((*step.shape, 0)), r"Got shape \(1, 1, 2, 0\)"),
        (lambda k, step: np.zeros((*step.shape, 1, 1)), r"Got shape \(1, 1, 2, 1, 1\)"),
        (lambda k, step: step > 0, "`source` must return integers, or floats of 16, 32 or 64 bits. Got dtype bool"),
        (lambda k, step: step * 1j, "Got dtype complex128; convert them with .astype"),
        (lambda k, step: step.astype(object), "Got dtype object"),
        (lambda k, step: np.zeros((*step.shape, 2), int), "`source` must return vectors as floats. Got dtype int64"),
    ],
)
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        next(iter(EchoStream(SeriesLayout([2], 1, 2), source, num_chunks=1)))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (lambda k, step: np.zeros(7), r"`targets` must return .* so shape \(1,\) or \(1, features\). Got shape \(7,\)"),
        (lambda k, step: 0.5, r"Got shape \(\)"),
        (lambda k, step: np.zeros((len(step), 0)), r"Got shape \(1, 0\)"),
        (lambda k, step: step > 0, "`targets` must return integers, or floats of 16, 32 or 64 bits. Got dtype bool"),
        (lambda k, step: np.array([None] * len(step)), "Got dtype object"),
        (lambda k, step: np.zeros((len(step), 2), int), "`targets` must return vectors as floats"),
        (lambda k, step: step if len(step) == 1 else step / 2,
         "`targets` must return the same type, and as many features, for all places, because one network and one loss "
         "serve them all. Got int64 for one place and float32 for 5 others"),
        (lambda k, step: np.zeros((len(step), 1 + (len(step) > 1))), "Got float32 with 1 features for one place and f"),
    ],
)  # fmt: skip
def test_bad_targets(targets, message):
    with pytest.raises(ValueError, match=message):
        next(iter(make_stream(OwnSeries(NUMBERS), targets=targets, num_chunks=2)))


def test_targets_that_are_no_function():
    with pytest.raises(ValueError, match=r"`targets` must be a function.*Got ndarray; for an array write lambda"):
        make_stream(OwnSeries(NUMBERS), targets=np.zeros((2, 3)))
