"""What a probe leaves as it was: weights, modes, gradients, attributes, generators; and what is random in a model."""

import random
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from support.probed_models import Keeping, LanguageModel, Regularized, of_zeros, raising
from torch import nn
from torch.nn import functional as F

from echo_torch.diagnosis.probing.keeping import model_kept
from echo_torch.diagnosis.probing.probes import probe


def everything_of(model):
    """All that a probe could change, as bytes and identities."""
    tensors = {name: (id(t), t.detach().numpy().tobytes()) for name, t in model.state_dict(keep_vars=True).items()}
    modes = {name: module.training for name, module in model.named_modules()}
    gradients = {name: (id(p.grad), None if p.grad is None else p.grad.clone()) for name, p in model.named_parameters()}
    attributes = {name: sorted(vars(module)) for name, module in model.named_modules()}
    return (
        tensors,
        modes,
        {name: (i, None if g is None else g.tolist()) for name, (i, g) in gradients.items()},
        attributes,
    )


@pytest.mark.parametrize("carry", [None, raising])
def test_the_model_is_as_it_was(carry):
    model = Regularized().train()
    model.batch_norm.eval()
    model(torch.randint(9, (3, 4)))[0].sum().backward()
    before = everything_of(model)
    found = probe(model, carry=carry)
    assert found.faults == (() if carry is None else ("failed",))
    assert everything_of(model) == before


@pytest.mark.parametrize("hidden", [None, torch.ones(1, 4, 6)])
def test_a_state_on_the_module_is_as_it_was(hidden):
    model = Keeping(hidden)
    assert probe(model, num_lanes=4).faults == ()
    assert model.hidden is hidden
    assert hidden is None or torch.equal(hidden, torch.ones(1, 4, 6))


class Holder:
    """An object with slots, around a module."""

    __slots__ = ("model",)

    def __init__(self, model):
        self.model = model

    def __call__(self, inputs):
        return self.model(inputs)


class Stepping(Keeping):
    """Has its dropout on, and a method beside `forward`."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def step(self, inputs):
        return self.dropout(self(inputs))


IN_A_GLOBAL = Stepping()
BEHIND = {
    "method": lambda model: model.step,
    "forward": lambda model: model.forward,
    "partial": partial,
    "partial of a method": lambda model: partial(model.step),
    "closure": lambda model: lambda inputs: model.step(inputs),
    "argument": lambda model: partial(Stepping.step, model),
    "global": lambda model: lambda inputs: IN_A_GLOBAL.step(inputs),
    "slots": Holder,
}


@pytest.mark.parametrize("kind", BEHIND)
def test_a_module_behind_a_function_is_as_it_was(kind):
    model = IN_A_GLOBAL if kind == "global" else Stepping()
    modes = []
    model.core.register_forward_hook(lambda module, inputs, outputs: modes.append(module.training))
    stands_in_no_attribute = kind in ("closure", "global", "argument")
    with pytest.raises(ValueError, match="hand a state on") if stands_in_no_attribute else nullcontext():
        assert probe(BEHIND[kind](model), inputs=lambda lanes, steps: torch.randn(lanes, steps, 3)).faults == ()
    assert model.hidden is None
    assert all(module.training for module in model.modules())
    assert modes
    assert not any(modes)


def test_that_no_mode_was_set_is_said():
    found = probe(
        lambda inputs, state: (inputs + state, inputs[:, -1:]),
        inputs=lambda lanes, steps: torch.randn(lanes, steps, 1),
        state=lambda lanes: torch.zeros(lanes, 1, 1),
    )
    assert found.took[0] == "mode: as it is, because no module was found behind `model`"


def test_what_is_changed_in_place_is_put_back():
    model = nn.Module()
    model.list, model.dict, model.tensor = [1, torch.zeros(2)], {"a": 1}, torch.zeros(3)
    model.generator, model.weight = torch.Generator().manual_seed(5), nn.Parameter(torch.zeros(2))
    model.register_buffer("buffer", torch.zeros(2))
    state = model.generator.get_state()
    tensors, parts = (model.tensor, model.weight, model.buffer, model.list[1]), (model.list, model.dict)
    with model_kept(model), torch.no_grad():
        for tensor in tensors:
            tensor.add_(1)
        model.list.append(3)
        model.dict["b"], model.new, model.buffer, model.tensor = 2, 1, torch.ones(2), None
        torch.rand(1, generator=model.generator)
        model.weight.data = torch.ones(5)
    assert (model.tensor, model.weight, model.buffer, model.list[1]) == tensors
    assert all(not tensor.any() for tensor in tensors)
    assert model.weight.shape == (2,)
    assert (model.list, model.dict) == parts
    assert (len(model.list), model.dict) == (2, {"a": 1})
    assert not hasattr(model, "new")
    assert torch.equal(model.generator.get_state(), state)


def test_random_states_are_as_they_were():
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    model = Regularized()
    before = states()
    probe(model)
    assert states() == before


def test_it_reads_with_one_thread_and_puts_their_number_back():
    seen = []

    class Listening(LanguageModel):
        def forward(self, symbols, state=None):
            seen.append(torch.get_num_threads())
            return super().forward(symbols, state)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        probe(Listening())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_inputs_and_states_may_be_changed_in_place():
    class InPlace(LanguageModel):
        start = (torch.zeros(1, 4, 6), torch.zeros(1, 4, 6))

        def initial_state(self, lanes):
            return self.start if lanes == 4 else (torch.zeros(1, lanes, 6), torch.zeros(1, lanes, 6))

        def forward(self, symbols, state):
            symbols.mul_(2).remainder_(9)
            logits, new = super().forward(symbols, state)
            return logits, tuple(old.copy_(part) for old, part in zip(state, new, strict=True))

    assert probe(InPlace()).faults == ()
    assert not any(part.any() for part in InPlace.start)


# --- random models ------------------------------------------------------------------------------------------------


def test_a_model_in_training_mode_has_no_fault_by_its_dropout():
    found = probe(Regularized().train())
    assert found.faults == ()
    assert "eval" in found.took[0]


class AlwaysOn(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return F.dropout(logits, 0.5, training=True), state


class OwnGenerator(LanguageModel):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits + torch.randn(logits.shape, generator=self.generator), state


class OfNumpy(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits + np.random.normal(), state


@pytest.mark.parametrize("model", [AlwaysOn, OwnGenerator, OfNumpy])
def test_what_is_random_in_eval_mode_is_named_and_hides_nothing(model):
    found = probe(model())
    assert found.faults == ("random",)
    assert found.lines()[0].startswith("random: two equal readings differ")
    assert probe(model(), carry=of_zeros).faults == ("random", "state is not carried")


def test_of_what_no_seed_holds_nothing_else_is_claimed():
    class Unseeded(LanguageModel):
        def forward(self, symbols, state=None):
            logits, state = super().forward(symbols, state)
            return logits + np.random.default_rng().normal(), state

    found = probe(Unseeded(), carry=of_zeros)
    assert found.faults == ("random",)
    assert found.lines()[1].startswith("not looked at: all other checks")
