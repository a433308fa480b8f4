"""`watch` and arrays of numpy: windows that overlap are known by their values, parts of an array by their memory."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from support.loops import Reader, detached, drop, train
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch
from echo_torch.diagnosis.watching import arrays as arrays_module
from echo_torch.diagnosis.watching.arrays import ARRAY, Arrays
from echo_torch.diagnosis.watching.overlaps import overlap_in
from echo_torch.diagnosis.watching.regular import written_out

DRAW = np.random.default_rng(1)
SERIES = DRAW.normal(size=(400, 3)).astype(np.float32)
TEXT = DRAW.integers(9, size=400)
INTO_TORCH = {
    "tensor": torch.tensor,
    "from_numpy": torch.from_numpy,
    "as_tensor": torch.as_tensor,
    "numbers of its own": lambda array: torch.tensor(array.tolist()),
}


def windows(series, num_steps, stride=1):
    found = [series[begin : begin + num_steps] for begin in range(0, len(series) - num_steps + 1, stride)]
    return np.array(found)


def sliced(samples, num_rows):
    return [samples[begin : begin + num_rows] for begin in range(0, len(samples) - num_rows + 1, num_rows)]


def loaded(samples, num_rows):
    return (batch for (batch,) in DataLoader(TensorDataset(samples), num_rows, drop_last=True))


def gaps_of(batches, hand_on=detached, **options):
    """The kinds that were found, the gaps between two batches, and whether something is unknown."""
    with watch(updates=500) as seen:
        train(Reader(batch_first=True, **options), batches(), hand_on)
    found = seen.reach()
    gaps = None if found is None else {gap for gap in found.gaps if gap != 0}
    return [finding.kind for finding in seen.faults], gaps, bool(seen.unknown)


@pytest.mark.parametrize("batches", [sliced, loaded])
@pytest.mark.parametrize("how", INTO_TORCH)
@pytest.mark.parametrize(
    ("num_rows", "num_steps", "stride", "kinds", "gaps"),
    [
        (10, 10, 1, [], set()),
        (3, 9, 3, [], set()),
        (1, 6, 2, ["rows-reread"], {-4}),
        (4, 10, 1, ["rows-reread"], {-6}),
        (32, 10, 1, ["rows-skip"], {22}),
        (5, 4, 3, ["rows-skip"], {11}),
    ],
)
def test_windows_that_overlap(num_rows, num_steps, stride, kinds, gaps, how, batches):
    def read():
        return batches(INTO_TORCH[how](windows(SERIES, num_steps, stride)), num_rows)

    assert gaps_of(read) == (kinds, gaps, False)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.int64])
@pytest.mark.parametrize("num_features", [1, 2])
def test_values_of_any_kind(dtype, num_features):
    series = (100 * SERIES[:, :num_features]).astype(dtype)
    series[50:53] = 0 if np.issubdtype(dtype, np.integer) else np.nan

    def read(num_rows):
        return lambda: (batch.float().nan_to_num() for batch in sliced(torch.tensor(windows(series, 8, 2)), num_rows))

    assert gaps_of(read(4), size=num_features) == ([], set(), False)
    assert gaps_of(read(5), size=num_features) == (["rows-skip"], {2}, False)


def test_symbols_and_a_target_that_stands_behind_each_window():
    def read(num_rows):
        return lambda: (batch[:, :-1] for batch in sliced(torch.from_numpy(windows(TEXT, 9, 2)), num_rows))

    assert gaps_of(read(4), symbols=9) == ([], set(), False)
    assert gaps_of(read(6), symbols=9) == (["rows-skip"], {4}, False)


def test_chunks_that_share_one_symbol_because_a_target_lies_one_step_on():
    chunks = torch.tensor(windows(TEXT, 9, 8))
    assert gaps_of(lambda: (chunk[None, :-1] for chunk in chunks), symbols=9) == ([], set(), False)


@pytest.mark.parametrize(("num_rows", "gap"), [(7, 6), (8, 7)])
@pytest.mark.parametrize(
    "series",
    [
        np.full((400, 3), 2.0, np.float32),
        np.tile(SERIES[:5], (80, 1)),
        np.where(np.arange(400)[:, None] == 7, SERIES, np.float32(0)),
    ],
    ids=["constant", "periodic", "nearly nothing"],
)
def test_where_several_strides_fit_nothing_is_claimed(series, num_rows, gap):
    """Consecutive samples are what they are taken for then, as long as they are there."""
    samples = torch.from_numpy(windows(series, 10).copy())
    assert overlap_in(samples) is None
    assert gaps_of(lambda: sliced(samples, num_rows)) == (["rows-skip"], {10 * gap}, False)


def test_samples_that_all_begin_and_end_alike_do_not_overlap():
    sentences = DRAW.integers(9, size=(60, 7))
    sentences[:, 0] = sentences[:, -1] = 4
    assert overlap_in(sentences) is None
    sentences[1:, 0] = sentences[:-1, -1] = DRAW.integers(9, size=59)
    assert overlap_in(sentences).stride == 6


@pytest.mark.parametrize("samples", [DRAW.integers(2, size=(9, 6)), DRAW.integers(2, size=(300, 40)), SERIES, TEXT])
def test_samples_that_meet_by_chance_do_not_overlap(samples):
    assert overlap_in(samples) is None


def test_few_samples_of_symbols_are_no_evidence():
    assert overlap_in(windows(TEXT[:14], 9)) is None
    assert overlap_in(windows(TEXT[:40], 9)).stride == 1


def test_windows_of_several_series_stand_behind_each_other():
    samples = np.concatenate([windows(part, 6) for part in np.split(SERIES, 4)])
    overlap = overlap_in(samples)
    assert overlap.stride is None
    assert overlap.starts[94:97].tolist() == [94, 100, 101]
    arrays = Arrays()
    tensor = torch.tensor(samples)
    places = written_out(arrays.places_of(tensor[90:97, :, 1:])) % ARRAY
    assert places[:, 0, 0].tolist() == [3 * start + 1 for start in overlap.starts[90:97].tolist()]
    assert (places[:, 1:] - places[:, :-1] == 3).all()


@pytest.mark.parametrize("stride", [1, 3])
def test_places_are_those_in_the_series_however_a_tensor_is_turned(stride):
    samples, arrays = torch.from_numpy(windows(SERIES, 8, stride)), Arrays()
    where = np.arange(1200).reshape(400, 3)
    expected = torch.from_numpy(windows(where, 8, stride))
    cuts = [
        lambda whole: whole[5:9], lambda whole: whole[::4, 2:6], lambda whole: whole[7], lambda whole: whole[3, 4, 1:],
        lambda whole: whole.transpose(0, 1), lambda whole: whole.view(-1, 3)[3:30], lambda whole: whole[6:8].flatten(),
    ]  # fmt: skip
    for cut in cuts:
        places = written_out(arrays.places_of(cut(samples)))
        assert torch.equal(places % ARRAY, cut(expected))


def test_training_on_windows_without_a_state_loses_none():
    """A window may end just before another one of the next batch begins."""
    assert gaps_of(lambda: sliced(torch.tensor(windows(SERIES, 10)), 10), drop) == ([], set(), False)
    series = torch.from_numpy(SERIES)
    assert gaps_of(lambda: sliced(series.unfold(0, 10, 1).transpose(1, 2), 10), drop)[0] == []


def test_chunks_that_are_read_one_by_one_may_be_samples_of_their_own():
    chunks = torch.from_numpy(windows(TEXT, 9, 8))
    assert gaps_of(lambda: (chunk[None, :-1] for chunk in chunks), torch.zeros_like, symbols=9) == ([], set(), False)


def test_a_view_in_odd_strides_stands_in_the_array_that_it_looks_into():
    arrays, series = Arrays(), np.arange(40.0)
    view = np.lib.stride_tricks.sliding_window_view(series[3:], 6)
    arrays.note_numpy(view)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = written_out(arrays.places_of(torch.from_numpy(view[4])))
    assert torch.equal(found, written_out(arrays.places_of(torch.from_numpy(series[7:13]))))
    assert (found % ARRAY).tolist() == list(range(7, 13))


@pytest.mark.parametrize("into_torch", ["tensor", "from_numpy", "as_tensor"])
@pytest.mark.parametrize(
    ("num_rows", "kinds", "gaps"), [(10, [], set()), (4, ["rows-reread"], {-6}), (16, ["rows-skip"], {6})]
)
@pytest.mark.parametrize(
    "cut", [windows, lambda series, size: np.moveaxis(np.lib.stride_tricks.sliding_window_view(series, size, 0), -1, 1)]
)
def test_parts_of_an_array_that_are_made_tensors_in_the_loop(cut, num_rows, kinds, gaps, into_torch):
    samples = cut(SERIES, 10)

    def read():
        return (getattr(torch, into_torch)(batch) for batch in sliced(samples, num_rows))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such views must not be written to
        assert gaps_of(read) == (kinds, gaps, False)


@pytest.mark.parametrize(("order", "kinds"), [(1, []), (-1, ["rows-reread"])])
def test_batches_that_are_cut_out_of_an_array_of_rows(order, kinds):
    rows = TEXT.reshape(4, -1)

    def read():
        for begin in range(0, 100, 10)[::order]:
            yield torch.from_numpy(rows[:, begin : begin + 10])

    assert gaps_of(read, symbols=9)[::2] == (kinds, False)


def test_a_buffer_that_is_filled_anew_is_another_one():
    for into_torch in ("tensor", "from_numpy", "as_tensor"):
        buffer = np.zeros((2, 4, 3), np.float32)

        def read(buffer=buffer, into_torch=into_torch):
            for number in range(20):
                if number % 3:  # as what a game shows: sometimes the same again
                    buffer[:] = SERIES[number * 8 :][:8].reshape(2, 4, 3)
                yield getattr(torch, into_torch)(buffer)

        assert gaps_of(read) == ([], None, True)


def test_a_part_that_is_filled_anew_is_another_one():
    samples = SERIES[:80].reshape(2, 40, 3).copy()

    def read():
        for begin in range(0, 40, 4):
            yield torch.from_numpy(samples[:, begin : begin + 4])
            if begin == 16:
                samples[:] = 2 * samples

    assert gaps_of(read) == ([], None, True)


def test_an_array_that_holds_one_value_tells_nothing():
    token = np.zeros((2, 1, 3), np.float32)
    assert gaps_of(lambda: (torch.from_numpy(token) for _ in range(9))) == ([], None, True)


def test_an_array_that_is_where_another_one_was():
    """Its memory is given back, and a larger one begins before it."""
    arrays, memory = Arrays(), np.arange(40.0)
    base = memory.ctypes.data
    gone = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_double * 4).from_address(base + 80))
    arrays.note_numpy(gone)
    del gone
    arrays.note_numpy(memory)
    places = written_out(arrays.places_of(torch.from_numpy(memory[12:20])))
    assert (places % ARRAY).tolist() == list(range(12, 20))


def test_of_a_large_array_nobody_remembers_what_it_held(monkeypatch):
    monkeypatch.setattr(arrays_module, "MOST_VALUES", 8)
    arrays, whole = Arrays(), np.arange(9.0)
    arrays.read_numpy(whole[:3])
    whole[:] = 1
    number = len(arrays._owners)
    arrays.read_numpy(whole[:3])
    assert len(arrays._owners) == number


def test_torch_is_as_before():
    before = torch.from_numpy
    with watch() as seen:
        assert torch.from_numpy is not before
        assert pickle.loads(pickle.dumps(torch.from_numpy)) is torch.from_numpy
        with pytest.raises(TypeError, match="expected np"):
            torch.from_numpy([1.0])
        array = np.arange(3.0)
        torch.from_numpy(array)[0] = 7
        assert array[0] == 7
    assert torch.from_numpy is before
    assert seen.fault is None


def test_who_has_wrapped_it_meanwhile_keeps_that(monkeypatch):
    monkeypatch.setattr(torch, "from_numpy", torch.from_numpy)  # put back at the end
    with watch() as seen:
        inner = torch.from_numpy

        def outer(array):
            return inner(array)

        torch.from_numpy = outer
    assert torch.from_numpy is outer
    assert outer(np.ones(2)).tolist() == [1, 1]
    assert len(seen._calls.places.arrays._owners) == 0


def test_an_error_of_the_watch_never_reaches_a_script(monkeypatch, capsys):
    monkeypatch.setattr(Arrays, "read_numpy", lambda self, array: 1 / 0)
    with watch() as seen:
        assert torch.from_numpy(np.ones(2)).tolist() == [1, 1]
    assert isinstance(seen.fault, ZeroDivisionError)
    assert "by a fault of its own" in capsys.readouterr().err


def test_a_warning_names_the_line_of_the_script():
    array = np.arange(4.0)
    array.flags.writeable = False

    def lines(is_watched):
        torch.set_warn_always(True)
        try:
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                if is_watched:
                    with watch():
                        torch.from_numpy(array)
                else:
                    torch.from_numpy(array)
        finally:
            torch.set_warn_always(False)
        return [each.filename for each in found]

    assert lines(True) == lines(False) == [__file__]
