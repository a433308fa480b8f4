"""Lightning's own loggers and callbacks beside those of a run: they get every row, and can end the training."""

import csv
import threading
from functools import partial

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import DummyLogger
from support import runs
from support.processes import files

from echo_torch import EchoModule, RunDirectory, train
from echo_torch.errors import RuleError
from echo_torch.lab.finished import load_model
from echo_torch.lab.run_directory import weights_sha256
from echo_torch.training.checkpoints import read_checkpoint

short = partial(runs.short, vocabulary_size=10, validate_every=12)
ROWS = {"": ("read_metrics", 6), "validation_": ("read_validation", 2)}


def rows_of_run(run, prefix):
    """{update: {column: value}} as the run's own tables have them."""
    read, num_rows = ROWS[prefix]
    table = getattr(run, read)()
    assert len(table["update"]) == num_rows
    return {
        int(update): {name: table[name][place] for name in ("loss", "accuracy", "targets")}
        for place, update in enumerate(table["update"])
    }


def rows_of_csv(path, prefix):
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row[f"{prefix}targets"]]
    assert len(rows) == len({row["step"] for row in rows})
    return {int(r["step"]): {n: float(r[f"{prefix}{n}"]) for n in ("loss", "accuracy", "targets")} for r in rows}


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lstm", "support.own_models:Nested"])
def test_lightnings_csv_logger_gets_every_row(tmp_path, model):
    run, alone = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "alone")
    configuration = short(model=model)
    train(configuration, run, loggers=[CSVLogger(tmp_path, name="csv", version="one")])
    for prefix in ROWS:
        assert rows_of_csv(tmp_path / "csv" / "one" / "metrics.csv", prefix) == rows_of_run(run, prefix)
    train(configuration, alone)
    assert files(run.path) == files(alone.path)


def test_tensorboard_gets_every_row(tmp_path):
    pytest.importorskip("tensorboard")
    from pytorch_lightning.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDirectory(tmp_path / "run")
    train(short(), run, loggers=[TensorBoardLogger(tmp_path, name="board", version="one")])
    events = EventAccumulator(str(tmp_path / "board" / "one"))
    events.Reload()
    assert {f"{prefix}{name}" for prefix in ROWS for name in ("loss", "accuracy", "targets")} <= set(
        events.Tags()["scalars"]
    )
    for prefix in ROWS:
        expected = rows_of_run(run, prefix)
        for name in ("loss", "accuracy", "targets"):
            found = {event.step: event.value for event in events.Scalars(f"{prefix}{name}")}
            assert found == {update: pytest.approx(row[name], rel=1e-6) for update, row in expected.items()}


class Counter(pl.Callback):
    """Counts batches, and keeps its count in the checkpoint."""

    def __init__(self):
        self.count = 0

    def on_train_batch_end(self, *args):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def test_a_callback_goes_along_and_goes_on(tmp_path, monkeypatch):
    """What it keeps in a checkpoint is of that update, not of the one before."""
    configuration = short(validate_every=None)  # the checkpoint is written when the batch ends
    run, counter = RunDirectory(tmp_path / "run"), Counter()
    step = EchoModule.training_step

    def stopping(module, chunk, batch_idx):
        if chunk.index == 14:
            raise InterruptedError
        return step(module, chunk, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(EchoModule, "training_step", stopping)
        with pytest.raises(InterruptedError):
            train(configuration, run, callbacks=[counter])
    assert counter.count == 14
    assert read_checkpoint(run.checkpoint)["callbacks"]["Counter"] == {"count": 12}
    train(configuration, run, callbacks=[counter := Counter()], resume="auto")
    assert counter.count == 24


class EndAt(pl.Callback):
    """Ends a training in the middle."""

    def __init__(self, update):
        self.update = update

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step == self.update


@pytest.mark.slow
def test_a_callback_may_end_the_training(tmp_path):
    """The result and the checkpoint are of where it ended, and it can go on from there."""
    run, whole = RunDirectory(tmp_path / "run"), RunDirectory(tmp_path / "whole")
    result = train(short(), run, callbacks=[EndAt(9)])
    assert result["updates"] == 9
    assert read_checkpoint(run.checkpoint)["global_step"] == 9
    assert weights_sha256(load_model(run)[1].state_dict()) == result["weights_sha256"]
    train(short(), run, resume="auto")
    train(short(kernel="autograd"), whole)  # as callbacks get it
    assert files(run.path) == files(whole.path)


@pytest.mark.slow
def test_early_stopping_sees_the_validation(tmp_path):
    never_better = EarlyStopping("validation_accuracy", mode="max", min_delta=2.0, patience=1)
    assert train(short(), RunDirectory(tmp_path / "run"), callbacks=[never_better])["updates"] == 24
    never_better = EarlyStopping("validation_accuracy", mode="max", stopping_threshold=0.0)
    assert train(short(), RunDirectory(tmp_path / "other"), callbacks=[never_better])["updates"] == 12


@pytest.mark.slow
def test_lightnings_checkpoints_can_be_gone_on_from(tmp_path):
    run = RunDirectory(tmp_path / "run")
    (tmp_path / "kept").mkdir()
    keeper = ModelCheckpoint(dirpath=tmp_path / "kept", filename="{step}", every_n_train_steps=10, save_top_k=-1)
    result = train(short(), run, callbacks=[keeper])
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint need to be provided"):
        again = train(short(), run, resume=tmp_path / "kept" / "step=10.ckpt")
    assert again["weights_sha256"] == result["weights_sha256"]


class Locked(DummyLogger):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("extra", "options", "message"),
    [
        ({"loggers": DummyLogger()}, {}, "`loggers` must be a list of them. Got DummyLogger"),
        ({"loggers": ["csv"]}, {}, r"`loggers` must be loggers of pytorch_lightning. Got builtins.str\."),
        (
            {"callbacks": [DummyLogger()]},
            {},
            "`callbacks` must be callbacks of pytorch_lightning. Got pytorch_lightning.",
        ),
        ({"loggers": [Locked()]}, {"devices": 2}, r"`loggers` must be able to go to other processes, .*Locked, which"),
        ({"callbacks": [TQDMProgressBar()], "progress": True}, {}, "`callbacks` must hold no progress bar"),
        ({"callbacks": [ModelCheckpoint()]}, {}, "`callbacks` must say where a ModelCheckpoint writes"),
    ],
)
def test_what_cannot_go_along_is_refused_before_anything_is_made(tmp_path, extra, options, message):
    with pytest.raises(RuleError, match=message):
        train(short(**options), RunDirectory(tmp_path / "run"), **extra)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_loggers_and_callbacks_go_to_several_processes(tmp_path):
    run = RunDirectory(tmp_path / "run")
    csv_logger = CSVLogger(tmp_path, name="csv", version="one")
    result = train(short(devices=2), run, loggers=[csv_logger], callbacks=[EndAt(24), Counter()])
    assert result["updates"] == 24
    for prefix in ROWS:
        assert rows_of_csv(tmp_path / "csv" / "one" / "metrics.csv", prefix) == rows_of_run(run, prefix)
    assert read_checkpoint(run.checkpoint)["callbacks"]["Counter"] == {"count": 24}
