import io
import re
import sys
import time

import pytest
import torch
from pytorch_lightning import Callback

from echo_torch import RunDirectory, configure, waiting
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.plan import Plan
from echo_torch.lab.runner import build_data, build_module, build_trainer
from echo_torch.training.metrics_file import MetricsFile
from echo_torch.training.progress import Bar, Line
from echo_torch.training.saving import SaveLast, WholeCheckpoints


def test_metrics_file_writes_each_row_at_once(tmp_path):
    log = MetricsFile(tmp_path / "metrics.csv", drawn=lambda chunks: (chunks, 25 * chunks))
    log.log_metrics({"loss": 0.5, "accuracy": 0.25, "targets": 4.0}, step=3)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        "update,sequences,symbols,targets,loss,accuracy",
        "3,3,75,4,0.5,0.25",
    ]
    log.log_metrics({"targets": 0}, step=6)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[2:] == ["6,6,150,0,,"]


def test_checkpoints_are_whole(tmp_path):
    path = tmp_path / "last.ckpt"
    WholeCheckpoints().save_checkpoint({"state_dict": {"w": torch.ones(2)}}, path)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].tolist() == [1, 1]

    class Broken:
        def __reduce__(self):
            raise RuntimeError("cannot be written")

    with pytest.raises(RuntimeError):
        WholeCheckpoints().save_checkpoint({"x": Broken()}, path)
    assert torch.load(path, weights_only=True)["state_dict"]["w"].tolist() == [1, 1]
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_bar_shows_what_it_should(tmp_path):
    drawn = io.StringIO()
    configuration = configure("lag", updates=30, log_every=10, accelerator="cpu")
    with quiet_lightning():
        trainer = build_trainer(configuration, [Bar("lag", drawn, beside="chance 1.0%, ceiling 99.0%")])
        trainer.fit(build_module(Plan(configuration), Plan(configuration).model()), build_data(Plan(configuration)))
    last = drawn.getvalue().strip().split("\r")[-1]
    for word in ("100% |", "30/30 updates", "updates/s", "left", "loss 4.", "(chance 1.0%, ceiling 99.0%)"):
        assert word in last
    assert re.search(r"lag: accuracy \d+\.\d% \(chance", last)
    assert sys.stderr is not drawn
    assert "0/30 updates" in drawn.getvalue().split("\r")[1]
    assert "the first update is being made" in drawn.getvalue().split("\r")[1]
    assert drawn.getvalue().count("the first update") == 1


def test_a_sentence_says_how_long_a_training_takes_and_costs_no_update_more(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "_REFRESH_SECONDS", 0.001)
    called = []

    class Watched(Line):
        def on_train_batch_end(self, *given):
            called.append(1)
            super().on_train_batch_end(*given)

    class Slow(Callback):
        """The first update takes long, until what is to be said of it is said."""

        def on_train_batch_end(self, *given):
            while not line._waiting.is_over:
                line._waiting.done = 1
                time.sleep(0.001)

        def on_train_batch_start(self, *given):
            while not (said := capsys.readouterr().err) and not out:
                time.sleep(0.001)
            out.append(said)

    line, out = Watched(), []
    configuration = configure("lag", updates=30, accelerator="cpu")
    with quiet_lightning():
        trainer = build_trainer(configuration, [line, Slow()])
        trainer.fit(build_module(Plan(configuration), Plan(configuration).model()), build_data(Plan(configuration)))
    assert out[0].startswith("Training: the first of 30 updates, each 5 rows of 5 steps, is not done after 0 s")
    assert len([text for text in out[1:] if text]) == 1
    assert out[1].startswith("Training: 1 of 30 updates in ")
    assert len(called) == 2
    assert line not in trainer.callbacks


def test_a_training_that_ends_soon_says_nothing(capsys):
    configuration = configure("lag", updates=3, accelerator="cpu")
    line = Line()
    with quiet_lightning():
        trainer = build_trainer(configuration, [line])
        trainer.fit(build_module(Plan(configuration), Plan(configuration).model()), build_data(Plan(configuration)))
    assert line._waiting.is_over
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_checkpoint_is_there_after_training_and_during_it(tmp_path):
    configuration = configure("lag", updates=505, accelerator="cpu")
    run = RunDirectory(tmp_path)
    run.create()
    seen = []  # the updates at which it is written

    with quiet_lightning():
        trainer = build_trainer(configuration, [SaveLast(run.checkpoint)])
        save = trainer.save_checkpoint
        trainer.save_checkpoint = lambda path: (seen.append(trainer.global_step), save(path))
        trainer.fit(build_module(Plan(configuration), Plan(configuration).model()), build_data(Plan(configuration)))
    assert seen == [500, 505]
    assert torch.load(run.checkpoint, weights_only=True)["global_step"] == 505
