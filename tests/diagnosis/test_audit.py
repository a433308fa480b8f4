import itertools
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from support.trainers import quiet_trainer

from echo_torch import Stamps, configure
from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.diagnosis.auditing.gaps import StateError, StateWarning
from echo_torch.experiments.configuration import EXPERIMENTS
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.plan import Plan
from echo_torch.lab.runner import build_module


def train_on(chunks, audit, configuration=None, **options):
    configuration = configuration or configure("aligned", vocabulary_size=100)
    module = build_module(Plan(configuration), Plan(configuration).model())
    return fit(module, chunks, audit, **options)


def fit(module, batches, audit, **options):
    loader = torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
    with quiet_lightning():
        trainer = quiet_trainer(max_epochs=1, log_every_n_steps=1, callbacks=[audit], **options)
        trainer.fit(module, loader)
    return audit


def first(mode, number, **options):
    return list(itertools.islice(Plan(configure(mode, **options)).training(), number))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("aligned", {}),
        ("aligned", {"reset_every": 7}),
        ("aligned", {"reset_every": 12, "stagger": True, "chunk": 4}),
        ("aligned", {"reset_every": 3, "carry": "reset"}),
        ("lag", {}),
        ("lag", {"carry": "reset", "batch_size": 3}),
        ("lag", {"cut": "sequence", "batch_size": 7}),
        ("echo", {}),
        ("masked", {}),
        ("whole", {}),
        ("sequence", {"batch_size": 3}),
        ("lag", {"missing": 0.5}),
        ("aligned", {"missing": 0.5}),
    ],
)
def test_a_correct_run_is_silent(mode, options):
    configuration = configure(mode, **options)
    audit = train_on(first(mode, 12, **options), StateAudit("raise"), configuration)
    assert audit.num_faults == 0
    assert set(audit.gaps) <= {0}


def test_it_speaks_at_the_second_batch():
    """Lane, expected and found step, and what was reached."""
    with pytest.raises(StateError) as caught:
        train_on(first("stateful", 2), StateAudit("raise"))
    assert str(caught.value) == (
        "Lane 0's carried state ends at step 1 of sequence 0, so step 2 is expected, but its next chunk begins at step "
        "7: 5 steps are skipped (6 of 6 lanes). Lags that the rows have reached so far: 0, 6."
    )


def test_it_warns_once_and_counts_all():
    audit = StateAudit("warn")
    with pytest.warns(StateWarning, match="5 steps are skipped") as caught:
        train_on(first("stateful", 8), audit)
    assert len([warning for warning in caught if warning.category is StateWarning]) == 1
    assert audit.gaps == {5: 36}
    assert audit.num_faults == 36


def test_it_can_count_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audit = train_on(first("lag", 4, batch_size=4), StateAudit("count"))
    assert audit.gaps == {-1: 12}


def test_histogram_goes_to_the_loggers():
    class Rows(DummyLogger):
        def log_metrics(self, metrics, step):
            self.rows = metrics

    rows = Rows()
    train_on(first("stateful", 8), StateAudit("count"), logger=[rows])
    assert rows.rows == {"gap/5": 36}


def test_empty_columns_and_unused_rows_are_no_reads():
    """A lane whose sequence ended, or whose row was not used, keeps its place until it is reset."""
    chunks = first("stateful", 4, batch_size=7)  # 24 windows: 7 + 7 + 7 + 3
    assert (chunks[3].sequence[3:] == -1).all()
    audit = train_on(chunks, StateAudit("count"))
    assert audit.gaps == {6: 7 + 7 + 3}


def test_a_module_and_batches_of_ones_own():
    class TheirModule(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(1, 4, batch_first=True)
            self.memory = None

        def training_step(self, batch, batch_idx):
            output, state = self.lstm(batch["x"], self.memory)
            self.memory = tuple(field.detach() for field in state)
            return output.square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def stamps(batch):
        return Stamps(step=batch["at"])

    def batches(offsets):
        return [{"x": torch.zeros(3, 5, 1), "at": (offset + torch.arange(5)).expand(3, 5)} for offset in offsets]

    audit = StateAudit("raise", stamps=stamps, state=lambda module: module.memory)
    assert fit(TheirModule(), batches([0, 5, 10]), audit).gaps == {0: 6}
    with pytest.raises(StateError, match=r"step 5 is expected, but its .* at step 10: 5 steps are skipped"):
        fit(TheirModule(), batches([0, 10]), audit)
    with pytest.raises(ValueError, match=r"`step` with two axes"):
        fit(TheirModule(), batches([0]), StateAudit(stamps=lambda batch: Stamps(step=np.arange(5))))


@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_gaps_are_those_of_reach(mode):
    """Audit and reach count the same borders."""
    from echo_torch.diagnosis.data_path.reaching import reach

    chunks = first(mode, 20)
    audit = train_on(chunks, StateAudit("count"), configure(mode))
    found = reach(chunks, 1).gaps
    inside = sum(int((chunk.step >= 0).sum(dim=1).sub(1).clamp(min=0).sum()) for chunk in chunks)
    assert audit.gaps == {gap: n for gap, n in {**found, 0: found.get(0, 0) - inside}.items() if n}


def test_padding_inside_a_sequence_of_ones_own():
    """A row that pauses goes on after the last step it read, reset or not."""
    audit = StateAudit("raise", stamps=lambda batch: Stamps(step=batch))
    for number, steps in enumerate(([0, 1, 2], [3, 4, -1], [5, 6, 7], [-1, -1, -1], [8, 9, 10])):
        audit.on_train_batch_start(None, None, np.array([steps]), number)
    assert audit.gaps == {0: 3}


def test_unknown_policy():
    with pytest.raises(ValueError, match=r"`policy` must be one of raise, warn, count. Got 'shout'"):
        StateAudit("shout")
