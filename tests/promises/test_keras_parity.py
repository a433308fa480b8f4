"""The tutorial's three experiments against reference runs in Keras 3.15, from the same weights on the same data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from echo_torch import EchoStream, configure
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.plan import Plan
from echo_torch.lab.runner import build_module, build_trainer
from echo_torch.models.kernels.flat_weights import FlatWeights
from echo_torch.models.kernels.lstm import LSTMKernel

MODES = ("echo", "stateful", "lag")


class LossList(DummyLogger):
    """Keeps the loss of every row."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def log_metrics(self, metrics, step):
        self.losses.append(metrics["loss"])


def load(mode):
    with np.load(Path(__file__).parents[1] / "reference" / f"keras_{mode}.npz") as file:
        return dict(file)


def configured(mode, reference, kernel="autograd"):
    updates = len(reference["loss"])
    return configure(mode, init="keras", updates=updates, log_every=1, accelerator="cpu", kernel=kernel)


def model_from(reference, configuration, stage="initial"):
    model = Plan(configuration).model()
    weights = {name: torch.from_numpy(reference[f"{stage}/{name}"]) for name in (
        "kernel", "recurrent_kernel", "bias", "head_kernel", "head_bias")}  # fmt: skip
    model.load_state_dict(
        {
            "lstm.weight_ih_l0": weights["kernel"].T,
            "lstm.weight_hh_l0": weights["recurrent_kernel"].T,
            "lstm.bias_ih_l0": weights["bias"],
            "lstm.bias_hh_l0": torch.zeros_like(weights["bias"]),
            "head.weight": weights["head_kernel"].T,
            "head.bias": weights["head_bias"],
        }
    )
    return model


def stream_of(reference, configuration):
    table = reference["sequences"]

    def source(sequence, step):
        return np.where(step < 0, -1, table[np.maximum(sequence, 0), np.maximum(step, 0)]).astype(np.int64)

    return EchoStream(Plan(configuration).layout, source, num_chunks=len(reference["loss"]))


@pytest.mark.parametrize("mode", MODES)
def test_forward(mode):
    reference = load(mode)
    configuration = configured(mode, reference)
    model = model_from(reference, configuration)
    state = model.initial_state(configuration.reading.batch_size)
    for number, chunk in enumerate(stream_of(reference, configuration)):
        if number == len(reference["forward/h"]):
            break
        if chunk.starts.all():
            state = model.initial_state(configuration.reading.batch_size)
        with torch.no_grad():
            logits, state = model(chunk.symbols, state)
        found = {"probabilities": logits[:, -1].softmax(-1), "h": state.hidden[0], "c": state.cell[0]}
        for name, values in found.items():
            expected = reference[f"forward/{name}"][number].reshape(values.shape)
            assert np.abs(values.numpy() - expected).max() <= 1e-6
    assert number >= 3


@pytest.mark.parametrize("kernel", ["autograd", "direct"])
@pytest.mark.parametrize("mode", MODES)
def test_loss_of_every_update_in_order(mode, kernel):
    reference = load(mode)
    configuration = configured(mode, reference, kernel)
    model = model_from(reference, configuration)
    losses = LossList()
    with quiet_lightning():
        trainer = build_trainer(configuration, loggers=[losses])
        module = build_module(Plan(configuration), model)
        trainer.fit(module, stream_of(reference, configuration).loader(block=getattr(module, "ends", None)))
    assert len(losses.losses) == len(reference["loss"]) >= 24
    assert np.abs(np.array(losses.losses) - reference["loss"]).max() <= 1e-4
    assert np.abs(model.head.weight.detach().numpy().T - reference["final/head_kernel"]).max() <= 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_forward_of_the_direct_kernel(mode):
    """Its states and answers on the first batches, before any update."""
    reference = load(mode)
    configuration = configured(mode, reference, "direct")
    plan = Plan(configuration)
    weights = FlatWeights([model := model_from(reference, configuration)])
    weights.take_over([model])
    kernel = LSTMKernel(
        weights,
        num_layers=1,
        num_steps=plan.layout.num_steps,
        num_lanes=plan.layout.num_lanes,
        num_answered=plan.num_answered,
    )
    for number, chunk in zip(range(len(reference["forward/h"])), stream_of(reference, configuration), strict=False):
        kernel.begin(chunk.starts[None, :, None])
        logits = kernel.forward(weights.rows_of(chunk.symbols.T[:, None]))
        last = logits[0, -plan.layout.num_lanes :]
        found = {"probabilities": last.softmax(-1), "h": kernel.state[0][0, 0], "c": kernel.state[1][0, 0]}
        for name, values in found.items():
            expected = reference[f"forward/{name}"][number].reshape(values.shape)
            assert np.abs(values.numpy() - expected).max() <= 1e-6
    assert number >= 3
