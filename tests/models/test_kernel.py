"""The gradient that is derived by hand is the one that autograd finds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from echo_torch.models import EchoLSTM, LSTMState
from echo_torch.models.kernels.flat_weights import FlatWeights, give_back
from echo_torch.models.kernels.lstm import LSTMKernel


def make_models(num_members, seed=1, **options):
    generator = torch.Generator().manual_seed(seed)
    return [EchoLSTM(**options, generator=generator).double() for _ in range(num_members)]


def kernel_of(models, num_lanes, num_steps, num_answered):
    weights = FlatWeights(models)
    weights.take_over(models)
    num_layers = models[0].lstm.num_layers
    return LSTMKernel(
        weights, num_layers=num_layers, num_lanes=num_lanes, num_steps=num_steps, num_answered=num_answered
    ), weights


def by_autograd(model, symbols, targets, state, weight) -> tuple[Tensor, LSTMState, dict[str, Tensor]]:
    """Logits, the state after, and the gradients of a weighted sum of the logits."""
    model.zero_grad()
    logits, after = model(symbols, state)
    (logits * weight).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return logits.detach(), LSTMState(*(field.detach() for field in after)), gradients


def relative(found, expected):
    """How far two gradients lie apart, of the length of the expected one."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


@given(
    shape=st.tuples(*(st.integers(1, 4) for _ in range(4))),
    num_layers=st.integers(1, 3),
    symbols=st.tuples(st.integers(2, 30), st.none() | st.integers(2, 6)),
    init=st.sampled_from(["torch", "keras"]),
    share_missing=st.sampled_from([0.0, 0.3, 1.0]),
    share_started=st.sampled_from([0.0, 0.5, 1.0]),
    is_last_answered=st.booleans(),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_autograd(
    shape, num_layers, symbols, init, share_missing, share_started, is_last_answered, seed
):
    """Any shape, layers, encoding, first weights, missing symbols, resets, answered columns; a chunk after another."""
    num_members, num_lanes, num_steps, hidden_size = shape
    vocabulary_size, base = symbols
    options = {"vocabulary_size": vocabulary_size, "base": base, "init": init}
    models = make_models(num_members, seed, hidden_size=hidden_size, num_layers=num_layers, **options)
    references = make_models(num_members, seed, hidden_size=hidden_size, num_layers=num_layers, **options)
    num_answered = 1 if is_last_answered else num_steps
    kernel, weights = kernel_of(models, num_lanes, num_steps, num_answered)
    generator = torch.Generator().manual_seed(seed)
    states = [model.initial_state(num_lanes) for model in references]
    for _ in range(2):
        read = torch.randint(vocabulary_size, (num_members, num_lanes, num_steps), generator=generator)
        read[torch.rand(read.shape, generator=generator) < share_missing] = -1
        starts = torch.rand(num_members, num_lanes, generator=generator) < share_started
        size = references[0].encoding.size
        weight = torch.randn(num_members, num_lanes, num_steps, size, generator=generator, dtype=torch.float64)
        weight[:, :, : num_steps - num_answered] = 0

        rows = weights.rows_of(read.movedim(-1, 0))
        kernel.begin(starts[..., None])
        logits = kernel.forward(rows).unflatten(1, (num_answered, num_lanes)).transpose(1, 2).clone()
        answered = weight[:, :, num_steps - num_answered :]
        kernel.backward(rows, answered.transpose(1, 2).flatten(1, 2))
        for member, reference in enumerate(references):
            state = LSTMState(*(field.masked_fill(starts[member].view(1, -1, 1), 0) for field in states[member]))
            expected, states[member], gradients = by_autograd(reference, read[member], None, state, weight[member])
            torch.testing.assert_close(logits[member], expected[:, num_steps - num_answered :], rtol=1e-12, atol=1e-14)
            for name, gradient in gradients.items():
                assert relative(kernel.gradients[name][member], gradient) <= 1e-12, name
            for found, field in zip(kernel.state, states[member], strict=True):
                torch.testing.assert_close(found[:, member], field, rtol=1e-12, atol=1e-14)


def test_frozen_biases_get_no_gradient():
    models = make_models(2, hidden_size=3, vocabulary_size=5, init="keras")
    kernel, weights = kernel_of(models, 2, 3, 3)
    rows = weights.rows_of(torch.tensor([[[1, 2], [3, 4]]] * 3))
    kernel.begin(None)
    kernel.backward(rows, torch.ones_like(kernel.forward(rows)))
    assert kernel.gradients["lstm.bias_ih_l0"].abs().min() > 0
    assert not kernel.gradients["lstm.bias_hh_l0"].any()


def test_what_reads_nothing_changes_nothing():
    """The row of zeros stays zero, and a chunk without symbols moves no input weight."""
    kernel, weights = kernel_of(make_models(2, hidden_size=3, vocabulary_size=5), 2, 3, 3)
    rows = weights.rows_of(torch.full((3, 2, 2), -1))
    kernel.begin(None)
    kernel.backward(rows, torch.ones_like(kernel.forward(rows)))
    assert not weights.zero_rows.any()
    assert not kernel.gradients.zero_rows.any()
    assert not kernel.gradients["lstm.weight_ih_l0"].any()


def test_weights_are_views_of_one_array():
    models, same = make_models(3, hidden_size=4, vocabulary_size=6), make_models(3, hidden_size=4, vocabulary_size=6)
    weights = FlatWeights(models)
    weights.take_over(models)
    for model, other in zip(models, same, strict=True):
        assert all(torch.equal(model.state_dict()[name], value) for name, value in other.state_dict().items())
    weights.values.zero_()
    assert not any(parameter.any() for model in models for parameter in model.parameters())
    padding = weights.values.numel() - sum(parameter.numel() for model in models for parameter in model.parameters())
    assert 3 * 16 <= padding < 3 * (16 + 9 * 16 + 32)  # a row of zeros each, and less than a register a part


def test_a_network_gets_weights_of_its_own_again():
    """cuDNN reads no view that stands the other way round in memory."""
    models = make_models(2, hidden_size=4, vocabulary_size=6)
    weights = FlatWeights(models)
    weights.take_over(models)
    before = {name: value.clone() for name, value in models[0].state_dict().items()}
    give_back(models[0])
    weights.values.zero_()
    assert all(torch.equal(models[0].state_dict()[name], value) for name, value in before.items())
    assert all(parameter.is_contiguous() for parameter in models[0].parameters())
    assert not any(parameter.any() for parameter in models[1].parameters())


@pytest.mark.parametrize("place", [0, 3])
def test_bits_do_not_depend_on_the_company(place):
    """Alone, among three, among sixteen: the same logits and gradients to the bit, in float32."""
    options = {"vocabulary_size": 100, "hidden_size": 50, "num_layers": 2}
    symbols = torch.randint(100, (5, 16, 6), generator=torch.Generator().manual_seed(2))
    found = []
    for members in (slice(place, place + 1), slice(place, place + 3), slice(0, 16)):
        generator = torch.Generator().manual_seed(1)
        models = [EchoLSTM(**options, generator=generator) for _ in range(16)][members]
        kernel, weights = kernel_of(models, 6, 5, 5)
        rows = weights.rows_of(symbols[:, members])
        kernel.begin(None)
        logits = kernel.forward(rows)
        kernel.backward(rows, logits.sin())
        own = place - (members.start or 0)
        found.append((logits[own].clone(), kernel.gradients.values[own].clone()))
    for logits, gradients in found[1:]:
        assert torch.equal(logits, found[0][0])
        assert torch.equal(gradients, found[0][1])


@pytest.mark.gpu
def test_gradients_on_cuda():
    """Of several members, layers and digits: those of the CPU, within rounding."""
    options = {"vocabulary_size": 120, "base": 5, "hidden_size": 16, "num_layers": 2}
    symbols = torch.randint(-1, 120, (6, 7, 5), generator=torch.Generator().manual_seed(2))
    found = {}
    for device in ("cpu", "cuda"):
        models = [model.to(device) for model in make_models(7, **options)]
        kernel, weights = kernel_of(models, 5, 6, 3)
        rows = weights.rows_of(symbols.to(device))
        kernel.begin(None)
        kernel.backward(rows, kernel.forward(rows).sin())
        found[device] = kernel.gradients.values.cpu()
    torch.testing.assert_close(found["cuda"], found["cpu"], rtol=1e-10, atol=1e-12)
