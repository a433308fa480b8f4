import dataclasses
import json

import pytest
import torch
import yaml

from echo_torch import RunDirectory, configure, train
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import EXPERIMENTS, replace
from echo_torch.lab.finished import evaluation_result, load_model
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import weights_sha256
from echo_torch.lab.yaml_files import read_options
from echo_torch.training.checkpoints import PREVIOUS, read_checkpoint, write_checkpoint
from echo_torch.training.evaluation import evaluate, reset_at_every_chunk


@pytest.mark.parametrize("options", [{}, {"carry": "reset"}])
def test_a_result_asks_with_and_without_what_is_handed_over(options):
    """A network with weights so large that its answers hang on its state."""
    configuration = configure("aligned", vocabulary_size=10, hidden_size=8, **options)
    model = Plan(configuration).model()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=2, generator=torch.Generator().manual_seed(weight.numel()))
    result = evaluation_result(Plan(configuration), model)
    by_hand = evaluate(model, reset_at_every_chunk(Plan(configuration).evaluation()))
    assert result["accuracy_reset"] == by_hand.accuracy
    assert (result["accuracy_reset_low"], result["accuracy_reset_high"]) == by_hand.interval
    assert (result["accuracy_reset"] == result["accuracy"]) == (configuration.reading.carry == "reset")


def short(mode="lag", **options):
    how_long = {"sequences": 10} if "sequences" in EXPERIMENTS[mode].options else {"updates": 40}
    return configure(mode, **{**how_long, "log_every": 10, "accelerator": "cpu", "vocabulary_size": 10, **options})


@pytest.mark.parametrize(
    "mode",
    [
        "lag",
        "aligned",
        "masked",
        *[pytest.param(m, marks=pytest.mark.slow) for m in ("echo", "stateful", "whole", "sequence")],
    ],
)
def test_what_a_run_leaves(tmp_path, mode):
    configuration = short(mode)
    run = RunDirectory(tmp_path / "run")
    result = train(configuration, run, audit="count")
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", "metrics.csv", "checkpoints", "result.json"}
    assert json.loads(run.result.read_text()) == result
    assert set(result) >= {
        "mode", "seed", "accuracy", "accuracy_low", "accuracy_high", "loss", "chance", "targets", "updates", "seconds",
        "updates_per_second", "parameters", "weights_sha256", "config", "versions", "accuracy_by_chunk",
        "targets_by_chunk", "accuracy_reset", "accuracy_reset_low", "accuracy_reset_high", "accuracy_reset_by_chunk",
    }  # fmt: skip
    assert sum(result["targets_by_chunk"]) == result["targets"]
    num_chunks = {"echo": 25, "sequence": 1, "masked": 5, "whole": 5, "aligned": 10}.get(mode, 4)
    assert len(result["accuracy_by_chunk"]) == num_chunks
    assert configure(**read_options(run.config)) == dataclasses.replace(configuration, kernel="direct")
    assert yaml.safe_load(run.config.read_text())["format"] == result["format"] == 1
    metrics = run.read_metrics()
    assert metrics["update"][-1] == result["updates"]
    assert metrics["symbols"][-1] == (6400 if mode == "aligned" else 250)
    assert result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"]
    _, model = load_model(run)
    assert weights_sha256(model.state_dict()) == result["weights_sha256"]
    evaluation = Plan(configuration).evaluate(model)
    assert (evaluation.accuracy, evaluation.loss) == (result["accuracy"], result["loss"])


def test_the_same_configuration_gives_the_same_weights(tmp_path):
    torch.manual_seed(99)
    one = train(short(), RunDirectory(tmp_path / "1"))
    torch.manual_seed(7)
    two = train(short(workers=1), RunDirectory(tmp_path / "2"))
    other = train(short(seed=2), RunDirectory(tmp_path / "3"))
    assert one["weights_sha256"] == two["weights_sha256"] != other["weights_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"batch_size": 7}, {"cut": "sequence"}, {"layers": 2}, {"length": 6}])
def test_other_numbers_train(tmp_path, options):
    result = train(short(**options), RunDirectory(tmp_path), audit="count")
    assert result["updates"] == 10 * {"batch_size": 3, "cut": 1, "layers": 4, "length": 1}[next(iter(options))]


def test_clipping_bounds_the_gradient(tmp_path):
    """With a tiny norm Adam's second moment shows how long the clipped gradients were."""
    run = RunDirectory(tmp_path)
    train(short(clip_norm=1e-4), run)
    moments = torch.load(run.checkpoint, weights_only=True)["optimizer_states"][0]["state"]
    assert sum(float(state["exp_avg_sq"].sum()) for state in moments.values()) <= 1.01e-8


def test_first_weights_come_from_the_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = Plan(short()).model()
    assert torch.equal(before, torch.get_rng_state())
    assert weights_sha256(one.state_dict()) == weights_sha256(Plan(short()).model().state_dict())
    assert weights_sha256(one.state_dict()) != weights_sha256(Plan(short(seed=2)).model().state_dict())


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    """Lanes shared by two ranks, one of them with an unused row: the same losses within rounding."""
    one, two = RunDirectory(tmp_path / "1"), RunDirectory(tmp_path / "2")
    train(short(vocabulary_size=100), one)
    train(short(vocabulary_size=100, devices=2), two)
    for name, values in one.read_metrics().items():
        assert two.read_metrics()[name] == pytest.approx(values, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"devices": 6}, "`devices` must be at most the number of lanes, 5"), ({"tensorboard": True}, "pip install")],
)
def test_what_the_machine_cannot_do_leaves_nothing(tmp_path, monkeypatch, options, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        train(short(**options), RunDirectory(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_no_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="`accelerator` cuda needs a CUDA device"):
        train(short(accelerator="cuda"), RunDirectory("never"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_checkpoint(tmp_path, damage):
    run = RunDirectory(tmp_path)
    train(short(), run)
    if damage is None:
        checkpoint = read_checkpoint(run.checkpoint)
        smaller = Plan(replace(short(), hidden_size=3)).model().state_dict()
        checkpoint["state_dict"] = {f"model.{name}": value for name, value in smaller.items()}
        write_checkpoint(checkpoint, run.checkpoint)
        run.checkpoint.with_name(PREVIOUS).unlink()
        message = r"belongs to another network: model.lstm.weight_ih_l0 must be torch.float32 \(200, 10\). Got torch"
    else:
        run.checkpoint.write_bytes(damage)
        message = "its digest does not fit, so it was cut or altered. No other is left"
    with pytest.raises(UserError, match=message):
        load_model(run)
    run.checkpoint.unlink()
    with pytest.raises(UserError, match="holds no checkpoint"):
        load_model(run)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", EXPERIMENTS)
def test_every_mode_on_cuda(tmp_path, mode):
    c = short(mode, accelerator="cuda", validate_every=5)
    run = RunDirectory(tmp_path)
    result = train(c, run, audit="count")
    assert result["targets"] > 0
    assert run.read_validation()["update"][0] == 5
    # Each step is many small calls, which a GPU takes longer over than cuDNN over one large one.
    assert result["config"]["kernel"] == ("direct" if c.reading.chunk_shape[1] <= 8 else "autograd")


@pytest.mark.gpu
def test_the_direct_kernel_on_cuda(tmp_path):
    """Where it is asked for; rounding apart it makes the updates that it makes on the CPU, and goes on exactly."""
    losses = {}
    for accelerator in ("cpu", "cuda"):
        run = RunDirectory(tmp_path / accelerator)
        train(short("aligned", accelerator=accelerator, kernel="direct"), run)
        losses[accelerator] = run.read_metrics()["loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], abs=1e-3)
    longer = train(short("aligned", accelerator="cuda", updates=40), run, resume="auto")
    whole = train(short("aligned", accelerator="cuda", kernel="direct", updates=40), RunDirectory(tmp_path / "whole"))
    assert longer["weights_sha256"] == whole["weights_sha256"]


def test_a_curve_is_drawn_where_it_is_asked_for(tmp_path):
    """`test_what_a_run_leaves` sees that it is not drawn where it is not."""
    run = RunDirectory(tmp_path / "run")
    train(Plan(short()), run, curve=True)
    assert run.curve.read_bytes().startswith(b"\x89PNG")
