import itertools

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from support.trainers import quiet_trainer

from echo_torch.data import Chunk, EchoStream, OwnSeries, SeriesLayout
from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError
from echo_torch.diagnosis.data_path.reaching import reach
from echo_torch.diagnosis.stamps import stamps_of_chunk
from echo_torch.lab.console import quiet_lightning

NAN = float("nan")


def make_stream(*, num_features=None, asks_next=True, lag=1, **options):
    """Sine waves of 30, 7 and 18 steps on two lanes."""
    waves = [np.sin(np.arange(length) / 3) for length in (30, 7, 18)]
    series = OwnSeries(waves if num_features is None else [np.tile(wave[:, None], num_features) for wave in waves])
    targets = (lambda sequence, step: series(sequence, step + 1)) if asks_next else None
    return EchoStream(SeriesLayout(series.lengths, 2, 5, lag=lag), series, targets=targets, **options)


def make_chunk(symbols, targets):
    step = torch.tensor([[0, 1, -1]])
    return Chunk(torch.tensor(symbols), torch.tensor(targets), torch.tensor([True]), torch.tensor([0]), step, 0)


@pytest.mark.parametrize(
    ("symbols", "targets", "is_read", "is_asked"),
    [
        ([[3, -1, -1]], [[-100, 3, -100]], [True, False, False], [False, True, False]),
        ([[-3.0, 0.0, 0.0]], [[-100.0, NAN, NAN]], [True, True, False], [True, False, False]),
        ([[[-3.0], [0.0], [0.0]]], [[-100, 3, -100]], [True, True, False], [False, True, False]),
        ([[[-3.0], [0.0], [0.0]]], [[[1, NAN], [NAN, NAN], [NAN, NAN]]], [True, True, False], [True, False, False]),
        ([[3, -1, -1]], [[NAN, 0.5, NAN]], [True, False, False], [False, True, False]),
    ],
)
def test_what_is_read_and_asked(symbols, targets, is_read, is_asked):
    stamps = stamps_of_chunk(make_chunk(symbols, targets))
    assert np.asarray(stamps.is_read).tolist() == [is_read]
    assert np.asarray(stamps.is_asked).tolist() == [is_asked]


@pytest.mark.parametrize("num_features", [None, 3])
def test_reach_of_readings(num_features):
    found = reach(make_stream(num_features=num_features, asks_next=False), 1, max_lag=40, max_chunks=12)
    assert found.gap == 0
    assert found.gaps.keys() == {0}
    assert found.reachable_lags == list(range(30))  # the longest series has so many steps, and each lane one at a time
    assert found.reachable_share == 1
    assert found.in_horizon_share == pytest.approx(1 - 9 / 52)  # of 55 - 3 targets, 9 at a chunk's first step
    assert found.targets == 2 * 52
    assert found.ceiling is None


@pytest.mark.parametrize("num_features", [None, 3])
def test_reach_of_the_next_reading(num_features):
    """The current reading is there wherever the next one is asked for, which is not at the end of a series."""
    found = reach(make_stream(num_features=num_features), 0, max_chunks=6)
    assert (found.gap, found.reachable_share, found.in_horizon_share, found.targets) == (0, 1, 1, 52)


def test_reach_finds_lost_chunks_of_readings():
    assert reach(itertools.islice(make_stream(), 0, 6, 2), 1).gap == 5


class Regression(pl.LightningModule):
    """Somebody's own module: a GRU that says the next reading."""

    def __init__(self):
        super().__init__()
        self.gru, self.head = torch.nn.GRU(1, 4, batch_first=True), torch.nn.Linear(4, 1)
        self.carry = None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def training_step(self, chunk, batch_idx):
        state = torch.zeros(1, len(chunk.symbols), 4) if self.carry is None else self.carry
        state = state.masked_fill(chunk.starts[None, :, None], 0)
        outputs, state = self.gru(chunk.symbols[..., None], state)
        self.carry = state.detach()
        is_asked = ~chunk.targets.isnan()
        error = self.head(outputs)[..., 0][is_asked] - chunk.targets[is_asked]
        return error.square().sum() / max(1, len(error))


def train(chunks):
    audit = StateAudit("raise")
    loader = torch.utils.data.DataLoader(chunks, batch_size=None, collate_fn=lambda chunk: chunk)
    with quiet_lightning():
        quiet_trainer(max_epochs=1, callbacks=[audit]).fit(Regression(), loader)
    return audit


def test_the_audit_of_readings():
    chunks = list(make_stream(num_chunks=18))
    audit = train(chunks)
    # Each of three passes begins 3 series; lane 0 goes on at 5 borders of chunks, lane 1 at 1 + 3.
    assert audit.gaps == {0: 3 * 9}
    assert audit.num_faults == 0
    with pytest.raises(StateError, match="5 steps are skipped"):
        train(chunks[:2] + chunks[3:])
