"""Which kernel a run gets, and keeps."""

import pytest
import pytorch_lightning as pl
import yaml
from torch.nn.modules.module import register_module_forward_hook

from echo_torch import RunDirectory, configure, train
from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.configuration import configure_saved
from echo_torch.lab.finished import load_model
from echo_torch.lab.many import train_many
from echo_torch.training.checkpoints import read_checkpoint

SHORT = {"updates": 6, "checkpoint_every": 2, "log_every": 2, "accelerator": "cpu"}


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({}, "direct"),
        ({"kernel": "direct"}, "direct"),
        ({"kernel": "autograd"}, "autograd"),
        ({"model": "gru"}, "autograd"),
        ({"model": "mlp"}, "autograd"),
        ({"init": "keras", "layers": 2, "missing": 0.3, "clip_norm": 1.0}, "direct"),
        ({"encoding": "digits", "base": 3, "carry": "reset"}, "direct"),
    ],
)
def test_the_name_of_the_kernel_is_kept(tmp_path, options, kernel):
    run = RunDirectory(tmp_path / "run")
    result = train(configure("lag", **SHORT, **options), run)
    assert result["config"]["kernel"] == kernel
    assert yaml.safe_load(run.config.read_text())["kernel"] == kernel
    assert read_checkpoint(run.checkpoint)["run"]["config"]["kernel"] == kernel
    assert load_model(run)[0].kernel == kernel


@pytest.mark.parametrize("kernel", ["autograd", "direct"])
def test_a_resumed_run_keeps_its_kernel(tmp_path, kernel):
    run = RunDirectory(tmp_path / "run")
    train(configure("lag", **SHORT, kernel=kernel), run)
    longer = {**SHORT, "updates": 10}
    assert train(configure("lag", **longer), run, resume="auto")["config"]["kernel"] == kernel
    other = "direct" if kernel == "autograd" else "autograd"
    with pytest.raises(RuleError, match=f"`kernel` was {kernel} and is {other}"):
        train(configure("lag", **longer, kernel=other), run, resume="auto")
    expected = train(configure("lag", **longer, kernel=kernel), RunDirectory(tmp_path / "whole"))
    assert run.read_result()["weights_sha256"] == expected["weights_sha256"]


def test_a_run_without_a_stored_kernel_is_autograd():
    """Of a version that had no other. A user's own model has no such option."""
    assert configure_saved({"mode": "lag"}).kernel == "autograd"
    assert configure_saved({"mode": "lag", "kernel": "direct"}).kernel == "direct"
    assert "kernel" not in configure_saved({"mode": "lag", "model": "support.own_models:EchoStep"}).to_dict()


def test_an_older_run_goes_on_by_autograd(tmp_path):
    run = RunDirectory(tmp_path / "run")
    train(configure("lag", **SHORT, kernel="autograd"), run)
    run.config.write_text(run.config.read_text().replace("kernel: autograd\n", ""))
    assert train(configure("lag", **{**SHORT, "updates": 8}), run, resume="auto")["config"]["kernel"] == "autograd"


@pytest.mark.parametrize(
    ("options", "named"),
    [({"model": "gru"}, "model gru"), ({"devices": 2}, "devices 2"), ({"model": "mlp"}, "model mlp")],
)
def test_direct_says_what_stands_in_its_way(options, named):
    with pytest.raises(RuleError, match=named):
        configure("lag", kernel="direct", **options)


def test_a_users_callbacks_get_each_update(tmp_path):
    class Counting(pl.Callback):
        number = 0

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self.number += 1

    counting = Counting()
    result = train(configure("lag", **SHORT), RunDirectory(tmp_path / "run"), callbacks=[counting])
    assert (counting.number, result["config"]["kernel"]) == (6, "autograd")
    with pytest.raises(RuleError, match="can be used only where `kernel` is autograd"):
        train(configure("lag", **SHORT, kernel="direct"), RunDirectory(tmp_path / "other"), callbacks=[counting])
    assert not (tmp_path / "other").exists()


def test_a_sweep_keeps_what_another_kernel_has_finished(tmp_path):
    old = {"one": configure("lag", **SHORT, kernel="autograd")}
    before = train_many(old, tmp_path, num_jobs=1)["one"]
    assert train_many({"one": configure("lag", **SHORT)}, tmp_path, num_jobs=1)["one"] == before
    with pytest.raises(UserError, match="finished run with other options"):
        train_many({"one": configure("lag", **SHORT, kernel="direct")}, tmp_path, num_jobs=1)


def test_who_follows_all_modules_sees_each_call(tmp_path):
    """A watch, for instance: the direct kernel calls no layer."""
    calls = []
    handle = register_module_forward_hook(lambda layer, *given: calls.append(type(layer).__name__))
    try:
        result = train(configure("lag", **SHORT), RunDirectory(tmp_path / "run"))
    finally:
        handle.remove()
    assert result["config"]["kernel"] == "autograd"
    assert calls.count("LSTM") > 6
