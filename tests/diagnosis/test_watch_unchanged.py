"""`watch` changes nothing: no weight, no hook, no result, and no other mode."""

import copy
import io

import pytest
import torch
from support.loops import detached, train
from support.watched_models import Model, chunks
from torch import nn
from torch._C import _len_torch_function_stack

from echo_torch import watch


def hooks_of_torch():
    module = torch.nn.modules.module
    from torch.optim import optimizer

    names = ("_global_forward_hooks", "_global_forward_pre_hooks")
    ours = [len(optimizer._global_optimizer_post_hooks), len(optimizer._global_optimizer_pre_hooks)]
    replaced = [optimizer.Optimizer.zero_grad, nn.Module.zero_grad, torch.from_numpy, torch.compile]
    return [*(len(getattr(module, name)) for name in names), *ours, _len_torch_function_stack(), *replaced]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_training_is_the_same_to_the_bit(kind):
    def weights(*, is_watched):
        model = Model(kind, num_layers=2, dropout=0.5)
        hand_on = detached if kind is nn.LSTM else torch.Tensor.detach
        torch.manual_seed(4)
        if is_watched:
            with watch(model) as seen:
                train(model, chunks(), hand_on)
            assert seen.faults == []
        else:
            train(model, chunks(), hand_on)
        return [*model.state_dict().values(), torch.get_rng_state()]

    before = hooks_of_torch()
    assert all(map(torch.equal, weights(is_watched=True), weights(is_watched=False)))
    assert hooks_of_torch() == before


def test_nothing_is_left_behind_by_an_exception():
    before, model = hooks_of_torch(), Model()

    def stop(state):
        raise KeyError("stop")

    with pytest.raises(KeyError), watch(model) as seen:
        train(model, chunks(), hand_on=stop)
    assert hooks_of_torch() == before
    assert len(seen._calls.gradients) == 0
    assert seen.lines()[0] == "core is called once in training: 1 without a state."


def test_a_model_can_be_copied_and_saved_meanwhile():
    model = Model()
    with watch(model):
        state = train(model, chunks())
        torch.save(model.state_dict(), io.BytesIO())
        other = copy.deepcopy(model)
        train(other, chunks(), state=state)
    assert not model.core._forward_hooks


def test_no_hook_is_left_on_a_tensor():
    model = Model()
    with watch(model):
        _, state = model(chunks()[0])
        output, _ = model(chunks()[1], state)
        output.mean().backward(retain_graph=True)
        _, later = model(chunks()[2], state)
        assert all(field._backward_hooks for field in state)
    assert not any(field._backward_hooks for field in (*state, *later))


def test_what_a_function_writes_into_holds_what_it_wrote():
    with watch(), torch.no_grad():
        pieces, whole = list(torch.randn(3, 4, 2)), torch.empty(3, 4, 2)
        torch.stack(pieces, out=whole)
        assert torch.equal(whole, torch.stack(pieces))


def test_what_an_optimiser_does_is_no_way_of_data():
    class Noting(torch.optim.SGD):
        def step(self, closure=None):
            noted.append(seen._calls.places.is_paused)
            assert _len_torch_function_stack() == 0
            return super().step(closure)

    model, noted = Model(), []
    with watch(model) as seen:
        optimizer = Noting(model.parameters(), lr=0.1)
        for batch in chunks(3):
            model(batch)[0].mean().backward()
            optimizer.step()
            noted.append(seen._calls.places.is_paused)
            assert _len_torch_function_stack() == 1
    assert noted == [True, False] * 3


def test_a_default_device_is_none_of_its_business():
    """What it makes for itself is made where the data are."""
    series, buffer = torch.randn(40, 2, 3), torch.empty(5, 2, 3)
    with torch.device("meta"), watch() as seen:
        model = Model().to_empty(device="cpu")
        train(model, (buffer.copy_(chunk) for chunk in series.split(5)))
    assert (seen.faults, seen.unknown, seen.fault) == ([], [], None)


def test_nothing_is_followed_where_gradients_are_set_to_zero(monkeypatch):
    depths, model = [], Model()
    for owner in (torch.optim.Optimizer, nn.Module):

        def zero_grad(*given, before=owner.zero_grad, **named):
            depths.append(_len_torch_function_stack())
            before(*given, **named)

        monkeypatch.setattr(owner, "zero_grad", zero_grad)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch() as seen:
        for owner in (optimizer, model):
            model(torch.randn(5, 2, 3))[0].sum().backward()
            owner.zero_grad(set_to_none=False)
            assert all(weight.grad.eq(0).all() for weight in model.parameters())
            assert _len_torch_function_stack() == 1
            assert not seen._calls.places.is_paused
    with watch(updates=1) as seen:
        train(model, chunks()[:3])
        optimizer.zero_grad()
        assert seen._calls.places.is_paused  # all has been watched
    assert set(depths) == {0}


def test_what_somebody_has_wrapped_around_zero_grad_stays(monkeypatch):
    monkeypatch.setattr(torch.optim.Optimizer, "zero_grad", torch.optim.Optimizer.zero_grad)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch():
        own = torch.optim.Optimizer.zero_grad
        torch.optim.Optimizer.zero_grad = wrapped = lambda *given, **named: own(*given, **named)
    assert torch.optim.Optimizer.zero_grad is wrapped
    model(torch.randn(5, 2, 3))[0].sum().backward()
    optimizer.zero_grad()
    assert all(weight.grad is None for weight in model.parameters())
    assert _len_torch_function_stack() == 0
