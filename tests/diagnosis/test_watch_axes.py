"""`watch` where a layer takes rows for steps, or reads the steps of several rows as one, and where it only looks so."""

import pytest
import torch
from support.loops import Reader, drop, train
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from echo_torch import watch

SYMBOLS = 30


def drawn(*sizes):
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(1))


def words(*sizes):
    return torch.randint(SYMBOLS, sizes, generator=torch.Generator().manual_seed(2))


def windows_of(series, length, every=1):
    return [series[first : first + length] for first in range(0, len(series) - length + 1, every)]


def loaded(samples, rows, *, shuffle=False):
    generator = torch.Generator().manual_seed(3)
    return list(DataLoader(samples, batch_size=rows, shuffle=shuffle, generator=generator, drop_last=True))


def batches_of(samples, rows, *, shuffle=False):
    return [batch for (batch,) in loaded(TensorDataset(samples), rows, shuffle=shuffle)]


def batchified(text, rows):
    return text.view(rows, -1).t().contiguous()


def reader(**options):
    return Reader(symbols=SYMBOLS, **options)


class LastStep(Reader):
    """Answers with the last step of the output, as a classifier does; `last` is its index."""

    def __init__(self, last, *, is_after_the_head=False, **options):
        super().__init__(**options)
        self.last, self.is_after_the_head = last, is_after_the_head

    def forward(self, read, state=None):
        features, state = self.core(read, state)
        if self.is_after_the_head:
            return self.head(torch.relu(features))[self.last], state
        return self.head(features[self.last]), state


class Prepared(Reader):
    """Does something to the layout of what it reads."""

    def __init__(self, prepare, **options):
        super().__init__(**options)
        self.prepare, self.first = prepare, nn.Linear(3, 3)

    def forward(self, read, state=None):
        return super().forward(self.prepare(self, read), state)


# --- axes: what is wrong ----------------------------------------------------------------------------------------


def overlapping_windows_with_a_state():
    train(reader(), loaded(windows_of(words(120), 4), 7))


def windows_two_apart():
    train(reader(), loaded(windows_of(words(120), 4, every=2), 5), drop)


def chunks_of_one_text():
    train(reader(), loaded(windows_of(words(120), 6, every=6), 5), drop)


def numbers_by_unfold():
    series = drawn(90)
    windows = series.unfold(0, 5, 1)
    train(Reader(size=1), [batch.unsqueeze(-1) for batch in loaded(windows, 8)], drop)


def samples_in_random_order():
    train(Reader(), batches_of(drawn(60, 5, 3), 8, shuffle=True), drop)


def rows_picked_in_random_order():
    samples, order = drawn(60, 5, 3), torch.randperm(60, generator=torch.Generator().manual_seed(4))
    train(Reader(nn.LSTM), [samples[some] for some in order.split(10)], drop)


def last_row_for_last_step():
    train(LastStep((slice(None), -1)), batches_of(drawn(60, 5, 3), 8), drop)


def last_row_after_the_head():
    model = LastStep((slice(None), -1, slice(None)), is_after_the_head=True, bidirectional=True)
    train(model, batches_of(drawn(60, 5, 3), 8), drop)


def last_row_where_the_batch_is_first():
    train(LastStep(-1, batch_first=True), drawn(50, 4, 3).split(5), drop)


def columns_of_a_text_where_the_batch_is_first():
    train(reader(batch_first=True), batchified(words(400), 8).split(5))


FAULTY_AXES = [
    overlapping_windows_with_a_state, windows_two_apart, chunks_of_one_text, numbers_by_unfold,
    samples_in_random_order, rows_picked_in_random_order, last_row_for_last_step, last_row_after_the_head,
    last_row_where_the_batch_is_first, columns_of_a_text_where_the_batch_is_first,
]  # fmt: skip


@pytest.mark.parametrize("loop", FAULTY_AXES, ids=lambda loop: loop.__name__)
def test_rows_that_are_taken_for_steps(loop):
    with watch() as seen:
        loop()
    assert {finding.kind for finding in seen.faults} == {"axes"}
    finding = seen.faults[0]
    assert finding.module in ("GRU", "LSTM", "core")
    assert 2 * finding.count > finding.of > 1


# --- order: what is wrong ---------------------------------------------------------------------------------------


def the_whole_set_by_view():
    windows = torch.stack(windows_of(drawn(85), 6))
    train(Reader(size=1), [windows.view(6, -1, 1)] * 4, drop)


def sizes_that_divide():
    samples = drawn(80, 8)
    train(Reader(size=1), [samples.reshape(8, 80, 1)] * 4, drop)


def each_batch_by_view():
    model = Prepared(lambda model, read: read.view(read.shape[1], read.shape[0], 3))
    train(model, batches_of(drawn(60, 5, 3), 8, shuffle=True), drop)


def images_by_view():
    images = drawn(40, 1, 6, 6)
    train(Reader(size=6), [batch.view(6, -1, 6) for batch in batches_of(images, 8)], drop)


def flat_images_by_view():
    images = drawn(40, 36)
    train(Reader(size=6), [batch.view(6, -1, 6) for batch in batches_of(images, 8)], drop)


def steps_first_to_rows_first():
    chunks = drawn(50, 4, 3).split(5)
    train(Reader(batch_first=True), [chunk.reshape(4, 5, 3) for chunk in chunks], drop)


def after_an_embedding():
    model = reader()
    model.embedding = nn.Sequential(model.embedding, Exchange())
    train(model, loaded(windows_of(words(120), 4), 7), drop)


class Exchange(nn.Module):
    def forward(self, vectors):
        return vectors.view(vectors.shape[1], vectors.shape[0], -1)


def after_a_layer_for_all_steps():
    def prepare(model, read):
        rows, steps, _ = read.shape
        return model.first(read.reshape(rows * steps, 3)).view(steps, rows, 3)

    train(Prepared(prepare), batches_of(drawn(60, 5, 3), 8, shuffle=True), drop)


FAULTY_ORDER = [
    the_whole_set_by_view, sizes_that_divide, each_batch_by_view, images_by_view, flat_images_by_view,
    steps_first_to_rows_first, after_an_embedding, after_a_layer_for_all_steps,
]  # fmt: skip


@pytest.mark.parametrize("loop", FAULTY_ORDER, ids=lambda loop: loop.__name__)
def test_steps_of_several_rows(loop):
    with watch() as seen:
        loop()
    assert {finding.kind for finding in seen.faults} == {"order"}
    assert all(finding.count == finding.of > 1 for finding in seen.faults)


# --- healthy ----------------------------------------------------------------------------------------------------


def a_text_in_columns():
    train(reader(), batchified(words(400), 8).split(5))


def steps_by_a_loader():
    """Each item is one step of all rows."""
    train(Reader(), batches_of(drawn(60, 4, 3), 6))


def steps_by_a_loader_of_symbols():
    train(reader(), batches_of(words(60, 4), 6))


def images_by_rows():
    train(LastStep((slice(None), -1), size=6, batch_first=True), batches_of(drawn(40, 6, 6), 8, shuffle=True), drop)


def images_by_columns():
    images = batches_of(drawn(40, 1, 6, 6), 8, shuffle=True)
    train(Reader(size=6, batch_first=True), [batch.squeeze(1).transpose(1, 2) for batch in images], drop)


def images_by_columns_steps_first():
    train(LastStep(-1, size=6), [batch.permute(2, 0, 1) for batch in batches_of(drawn(40, 6, 6), 8)], drop)


def pixels_in_one_random_order():
    order = torch.randperm(36, generator=torch.Generator().manual_seed(5))
    pixels = drawn(40, 36)[:, order]
    train(Reader(size=1), [pixels.t().unsqueeze(-1)] * 3, drop)
    train(Reader(size=1, batch_first=True), [batch.unsqueeze(-1) for batch in batches_of(pixels, 2)], drop)


def pixels_one_by_one():
    train(Reader(size=1, batch_first=True), [batch.view(8, -1, 1) for batch in batches_of(drawn(40, 6, 6), 8)], drop)


def windows_in_random_order():
    train(reader(batch_first=True), loaded(windows_of(words(120), 4), 7, shuffle=True), drop)
    train(reader(), [batch.t() for batch in loaded(windows_of(words(120), 7), 7, shuffle=True)], drop)


def as_many_windows_as_steps():
    """Seven windows of seven words are the same by rows and by columns."""
    train(reader(), [batch.t() for batch in loaded(windows_of(words(120), 7), 7)])


def windows_by_unfold():
    windows = drawn(90).unfold(0, 5, 1).unsqueeze(-1)
    train(Reader(size=1, batch_first=True), batches_of(windows, 8), drop)
    train(Reader(size=1), [batch.transpose(0, 1) for batch in windows.split(8)], drop)


def lags_one_above_the_other():
    """Stacked along the steps: lag by lag, each for all rows."""
    series = drawn(60)
    lags = torch.stack([series[lag : lag + 50] for lag in range(6)])
    train(Reader(size=1), [lags.unsqueeze(-1)] * 4, drop)
    parts = [torch.stack([series[first + lag : first + lag + 10] for lag in range(6)]) for first in range(0, 40, 10)]
    train(Reader(size=1), [part.unsqueeze(-1) for part in parts], drop)


def samples_that_are_stored_steps_first():
    samples = drawn(7, 60, 3)
    train(Reader(), [samples[:, first : first + 10] for first in range(0, 60, 10)], drop)
    counted = torch.arange(240.0).view(12, 20)
    train(Reader(size=1), [counted[:, first : first + 5].unsqueeze(-1) for first in range(0, 20, 5)], drop)


def every_third_step():
    series = drawn(120)
    windows = [series[first : first + 15 : 3] for first in range(90)]
    train(Reader(size=1, batch_first=True), [batch.unsqueeze(-1) for batch in loaded(windows, 10)], drop)


def each_hour_of_the_day():
    """A series of hours, read as 24 rows of days."""
    train(Reader(size=1), [part.unsqueeze(-1) for part in drawn(24 * 40).view(-1, 24).split(8)])


def as_many_series_as_steps():
    """Five series are cut into windows of five."""
    train(Reader(size=1, batch_first=True), [drawn(5, 20).view(20, 5, 1)] * 3, drop)


def there_and_back():
    def prepare(model, read):
        return read.view(5, 8, 3).view(8, 5, 3)

    train(Prepared(prepare, batch_first=True), batches_of(drawn(40, 5, 3), 8), drop)


def a_layer_for_all_steps():
    def prepare(model, read):
        rows, steps, _ = read.shape
        return model.first(read.reshape(rows * steps, 3)).view(rows, steps, 3)

    train(Prepared(prepare, batch_first=True), batches_of(drawn(60, 5, 3), 8, shuffle=True), drop)


def features_laid_together():
    """Pairs of steps become one step of twice as many features."""
    train(Reader(size=6, batch_first=True), [batch.view(4, 3, 6) for batch in batches_of(drawn(40, 6, 3), 4)], drop)


def backwards_and_both_ways():
    model = Reader(bidirectional=True, batch_first=True)
    train(model, [batch.flip(1) for batch in batches_of(drawn(60, 5, 3), 8, shuffle=True)], drop)


def one_row_alone():
    train(LastStep((slice(None), -1)), drawn(60, 1, 3).split(5))


def a_row_is_shown():
    """The last row is looked at now and then."""
    model, state = Reader(), None
    for number, batch in enumerate(drawn(60, 4, 3).split(5)):
        state = train(model, [batch], state=state)
        if number % 4 == 0:
            model.core(batch)[0][:, -1].mean().item()


HEALTHY = [
    a_text_in_columns, steps_by_a_loader, steps_by_a_loader_of_symbols, images_by_rows, images_by_columns,
    images_by_columns_steps_first, pixels_in_one_random_order, pixels_one_by_one, windows_in_random_order,
    as_many_windows_as_steps, windows_by_unfold, lags_one_above_the_other, samples_that_are_stored_steps_first,
    every_third_step, each_hour_of_the_day, as_many_series_as_steps, there_and_back, a_layer_for_all_steps,
    features_laid_together,
    backwards_and_both_ways, one_row_alone, a_row_is_shown,
]  # fmt: skip


@pytest.mark.parametrize("loop", HEALTHY, ids=lambda loop: loop.__name__)
def test_layouts_that_look_dangerous(loop):
    with watch() as seen:
        loop()
    assert seen.faults == []
    assert len(seen._calls.calls) >= 3


def test_marks_end_with_their_tensors():
    with watch() as seen:
        layouts = seen._calls.places.layouts
        train(Prepared(lambda model, read: read.view(5, 8, 3)), batches_of(drawn(40, 8, 3), 5), drop)
        seen._calls.release()
    assert len(layouts._viewed) == len(layouts._outputs) == 0


@pytest.mark.parametrize(
    ("lay_out", "takes_turns"),
    [
        (lambda text: text.view(-1, 5), True),
        (lambda text: text.view(5, -1).t(), False),
        (lambda text: text.view(-1, 5).clone(), True),
        (lambda text: torch.randint(9, (30, 5)), False),  # it was never one series
    ],
)
def test_rows_that_take_turns_in_one_series_are_said_to(lay_out, takes_turns):
    """Series that were recorded together look so, and a text that a view has laid out wrongly."""
    text = torch.randint(9, (150,))
    with watch() as seen:
        train(Reader(symbols=9), lay_out(text).split(6))
    said = "core: its 5 rows take turns, step by step, in one series"
    assert (seen.faults, [line.startswith(said) for line in seen.unknown]) == ([], [True] * takes_turns)
