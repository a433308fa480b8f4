"""The same parts under `pytorch_lightning` and under `lightning`, both installed."""

import subprocess
import sys

import lightning
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

import echo_torch
import echo_torch.lightning
from echo_torch import EchoLSTM, EchoStream, LaneLayout, RandomSymbols
from echo_torch.diagnosis import StateError
from echo_torch.lab.console import quiet_lightning
from echo_torch.training import CarryWarning

BOTH = {"pytorch_lightning": (pl, echo_torch), "lightning": (lightning, echo_torch.lightning)}
both = pytest.mark.parametrize("package", BOTH)


class Forgetful(nn.Module):
    """Dropout: the random state counts."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.inner = EchoLSTM(10, 6)
        self.dropout = nn.Dropout(0.3)
        self.initial_state = self.inner.initial_state

    def forward(self, symbols, state):
        logits, state = self.inner(symbols, state)
        return self.dropout(logits), state


def training(start=0, rank=0, num_ranks=1):
    layout = LaneLayout(4, 3, 1, reset_every=7, first_steps=[0, 2, 4, 6])
    return EchoStream(layout, RandomSymbols(10), start=start, rank=rank, num_ranks=num_ranks)


def validation(rank=0, num_ranks=1):
    layout = LaneLayout(4, 3, 1, reset_every=7)
    return EchoStream(layout, RandomSymbols(10, split="evaluation"), num_chunks=4, rank=rank, num_ranks=num_ranks)


def trainer(package, max_steps, *callbacks, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    options = {"enable_model_summary": False, "num_sanity_val_steps": 2, **quiet, **options}
    return package.Trainer(max_steps=max_steps, callbacks=list(callbacks), **options)


def fit(package, max_steps, *, seed=0, start=None, **options):
    """A training with everything: the module, its audit, and what follows them in a checkpoint."""
    outer, parts = BOTH[package]
    module, audit = parts.EchoModule(Forgetful(seed)), parts.StateAudit("raise")
    data = parts.StreamData(training, validation)
    runner = trainer(outer, max_steps, audit, val_check_interval=3, check_val_every_n_epoch=None, **options)
    with quiet_lightning():
        torch.manual_seed(5)
        runner.fit(module, data, ckpt_path=start, **({} if start is None else {"weights_only": True}))
    return runner, module, audit


@both
def test_a_resume_is_exact_under_each(package, tmp_path):
    _, whole, expected = fit(package, 13)
    runner, _, _ = fit(package, 6)
    runner.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed, audit = fit(package, 13, seed=3, start=tmp_path / "half.ckpt")
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    assert resumed.cursor == 13
    assert audit.gaps == expected.gaps
    assert audit.num_faults == 0


def test_a_loader_that_begins_elsewhere_than_the_checkpoint_is_noticed(tmp_path):
    module, runner = echo_torch.EchoModule(Forgetful()), trainer(pl, 6)
    with quiet_lightning():
        runner.fit(module, training().loader())
    runner.save_checkpoint(tmp_path / "half.ckpt")
    with quiet_lightning(), pytest.warns(CarryWarning, match="at chunk 6, but its loader begins at chunk 0"):
        trainer(pl, 8).fit(module, training().loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)


def test_a_stream_that_ends_is_refused_where_several_epochs_go_on_in_the_middle(tmp_path):
    def bounded(start, rank, num_ranks):
        return EchoStream(LaneLayout(4, 3, 1), RandomSymbols(10), start=start, num_chunks=10)

    def run(max_steps, **options):
        checkpoint = options.pop("ckpt_path", None)
        runner = trainer(pl, max_steps, **options)
        with quiet_lightning():
            data = echo_torch.StreamData(bounded, validation)
            runner.fit(echo_torch.EchoModule(Forgetful()), data, ckpt_path=checkpoint, weights_only=True)
        return runner

    run(6).save_checkpoint(tmp_path / "half.ckpt")
    with pytest.raises(ValueError, match=r"`training` must give a stream without end.*num_chunks=10, start=6"):
        run(20, ckpt_path=tmp_path / "half.ckpt")
    run(-1, max_epochs=1, ckpt_path=tmp_path / "half.ckpt")  # a single pass is read to its end


def test_both_train_the_same():
    one, two = (fit(package, 8)[1] for package in BOTH)
    assert type(one) is not type(two)
    assert isinstance(one, pl.LightningModule)
    assert isinstance(two, lightning.LightningModule)
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second)


@both
def test_the_audit_stops_a_training_under_each(package):
    outer, parts = BOTH[package]
    chunks = list(EchoStream(LaneLayout(4, 3, 1), RandomSymbols(10), num_chunks=8))
    loader = torch.utils.data.DataLoader(chunks[::2], batch_size=None, collate_fn=lambda chunk: chunk)
    with quiet_lightning(), pytest.raises(StateError, match="step"):
        trainer(outer, 4, parts.StateAudit("raise")).fit(parts.EchoModule(EchoLSTM(10, 6)), loader)


@both
@pytest.mark.filterwarnings("ignore:A batch of the training was begun")  # Carry sees the leak too
def test_the_audit_looks_into_a_carry(package):
    """Somebody writes the state of a module of one's own between two batches."""
    outer, parts = BOTH[package]

    class Own(outer.LightningModule):
        def __init__(self, *, leaks):
            super().__init__()
            self.net, self.leaks = EchoLSTM(10, 6), leaks
            self.carry = parts.Carry(self.net.initial_state)

        def training_step(self, chunk, batch_idx):
            logits, state = self.net(chunk.symbols, self.carry.begin(chunk.starts))
            self.carry.end(state, cursor=chunk.index + 1)
            return logits.square().mean()

        def validation_step(self, chunk, batch_idx):
            _, state = self.net(
                chunk.symbols, self.carry.begin(chunk.starts, "training" if self.leaks else "validation")
            )
            self.carry.end(state)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def faults(*, leaks):
        audit = parts.StateAudit("count")
        runner = trainer(
            outer, 8, audit, val_check_interval=3, check_val_every_n_epoch=None, limit_val_batches=1,
            inference_mode=False, num_sanity_val_steps=0,
        )  # fmt: skip
        with quiet_lightning():
            runner.fit(Own(leaks=leaks), parts.StreamData(training, validation))
        return audit.num_faults

    assert faults(leaks=False) == 0
    assert faults(leaks=True) == 2


@both
def test_rows_of_accumulated_gradients_are_written_once(package):
    outer, parts = BOTH[package]
    rows = []

    class Rows(outer.pytorch.loggers.logger.DummyLogger if package == "lightning" else pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            rows.append((step, metrics))

    stream = EchoStream(LaneLayout(4, 3, 1), RandomSymbols(10))
    with quiet_lightning():
        runner = trainer(outer, 6, logger=[Rows()], accumulate_grad_batches=4, log_every_n_steps=2)
        runner.fit(parts.EchoModule(EchoLSTM(10, 6)), stream.loader())
    assert [step for step, _ in rows] == [2, 4, 6]
    assert [row["targets"] for _, row in rows] == [8 * 12 - 4, 8 * 12, 8 * 12]
    assert runner.lightning_module.cursor == 24


def test_accumulated_gradients_and_a_loader_that_ends():
    """Its last update has fewer batches, and has its row too."""
    rows = []

    class Rows(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            rows.append((step, metrics["targets"]))

    stream = EchoStream(LaneLayout(4, 3, 1), RandomSymbols(10), num_chunks=6)
    with quiet_lightning():
        runner = trainer(pl, -1, logger=[Rows()], accumulate_grad_batches=4, log_every_n_steps=1, max_epochs=1)
        runner.fit(echo_torch.EchoModule(EchoLSTM(10, 6)), stream.loader())
    assert rows == [(1, 4 * 12 - 4), (2, 2 * 12)]


def test_without_the_other_lightning_there_is_a_sentence():
    program = "import sys; sys.modules['lightning'] = None; import echo_torch.lightning"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "`echo_torch.lightning` stands on the package lightning, which is not installed: pip install" in found.stderr


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, at what Lightning's command line does
def test_lightnings_command_line_takes_the_module(tmp_path, monkeypatch):
    """Parsed from arguments, with a model of this project and one of one's own, and trained."""
    from pytorch_lightning.cli import LightningCLI

    monkeypatch.setattr(sys, "argv", ["program"])  # else pytest's own arguments would be parsed too
    (tmp_path / "own_net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, width: int = 4):\n"
        "        super().__init__()\n"
        "        self.core, self.head = torch.nn.GRU(10, width, batch_first=True), torch.nn.Linear(width, 10)\n"
        "    def initial_state(self, num_lanes):\n"
        "        return torch.zeros(1, num_lanes, self.core.hidden_size)\n"
        "    def forward(self, symbols, state):\n"
        "        output, state = self.core(torch.eye(11)[symbols, :10], state)\n"
        "        return self.head(output), state\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for words in (
        ["--model.model=echo_torch.EchoLSTM", "--model.model.hidden_size=7", "--model.model.vocabulary_size=10"],
        ["--model.model=own_net.Net", "--model.model.width=7"],
    ):
        silent = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.max_steps=3"]
        with quiet_lightning():
            made = LightningCLI(
                echo_torch.EchoModule, run=False, save_config_callback=None, seed_everything_default=1,
                args=[*words, "--model.learning_rate=0.01", *silent, "--trainer.accelerator=cpu",
                      "--trainer.enable_checkpointing=false", "--trainer.enable_model_summary=false"],
            )  # fmt: skip
            made.trainer.fit(made.model, training().loader())
        assert made.model.learning_rate == 0.01
        assert made.model.cursor == 3
