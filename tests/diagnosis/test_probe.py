"""The probe itself: what it leaves as it was, what it works out, what it calls unknown, and its sentences."""

import random

import numpy as np
import pytest
import pytorch_lightning
import torch
from support import foreign_models as foreign
from support.kinds_of_state import example
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from echo_torch import EchoLSTM
from echo_torch.diagnosis.probing.keeping import model_kept
from echo_torch.diagnosis.probing.probes import probe


class LanguageModel(nn.Module):
    """Words, an LSTM that makes its own state where it gets none, and whatever a test changes."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(9, 6), nn.Linear(6, 9)
        self.core = nn.LSTM(6, 6, batch_first=True)

    def forward(self, symbols, state=None):
        features, state = self.core(self.words(symbols), state)
        return self.head(features), state


class Keeping(nn.Module):
    """A state on the module."""

    def __init__(self, hidden=None):
        super().__init__()
        self.core, self.hidden = nn.GRU(3, 6, batch_first=True), hidden

    def forward(self, inputs):
        outputs, hidden = self.core(inputs, self.hidden)
        self.hidden = hidden.detach()
        return outputs


class Regularized(LanguageModel):
    """Dropout, batch norm, layer norm, and the head tied to the words."""

    def __init__(self):
        super().__init__()
        self.dropout, self.batch_norm, self.layer_norm = nn.Dropout(0.5), nn.BatchNorm1d(6), nn.LayerNorm(6)
        self.head.weight = self.words.weight

    def forward(self, symbols, state=None):
        features, state = self.core(self.dropout(self.words(symbols)), state)
        return self.head(self.batch_norm(self.layer_norm(features).transpose(1, 2)).transpose(1, 2)), state


# --- what is afterwards as it was ---------------------------------------------------------------------------------


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


def raising(state, starts):
    raise KeyError("a mistake of one's own")


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


def of_zeros(state, starts):
    return tuple(torch.zeros_like(part) for part in state)


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


# --- healthy models of many kinds ---------------------------------------------------------------------------------


class ManyToOne(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits[:, -1], state


class Pooled(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits.mean(dim=1), state


class ComplexOutputs(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return torch.complex(logits, 2 * logits), state


class ExtraOutputs(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits, state, logits.mean(), {"again": logits}


class OutputsInADict(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return {"loss": logits.mean(), "logits": logits, "hidden_state": state}


class PackedOutputs(LanguageModel):
    def forward(self, symbols, state=None):
        lengths = [symbols.shape[1]] * len(symbols)
        return self.core(pack_padded_sequence(self.words(symbols), lengths, batch_first=True), state)


class TwoArguments(LanguageModel):
    def forward(self, symbols, h=None, c=None):
        logits, (h, c) = super().forward(symbols, None if h is None else (h, c))
        return logits, h, c


class TurnedInside(LanguageModel):
    """Reads (lanes, steps), though its layer is not batch_first."""

    def __init__(self):
        super().__init__()
        self.core = nn.GRU(6, 6)

    def init_hidden(self, lanes):
        return torch.zeros(1, lanes, 6)

    def forward(self, symbols, hidden):
        features, hidden = self.core(self.words(symbols).transpose(0, 1), hidden)
        return self.head(features).transpose(0, 1), hidden


class Counting(LanguageModel):
    """A state of dicts, with a number and None in it."""

    def initial_state(self, lanes):
        return {"count": 0, "none": None, "pair": {"h": torch.zeros(1, lanes, 6), "c": torch.zeros(1, lanes, 6)}}

    def forward(self, symbols, state):
        logits, (hidden, cell) = super().forward(symbols, (state["pair"]["h"], state["pair"]["c"]))
        count = state["count"] + symbols.shape[1]
        return logits, {"count": count, "none": None, "pair": {"h": hidden, "c": cell}}


class Late(Keeping):
    """Makes its attribute at the first call."""

    def __init__(self):
        super().__init__()
        del self.hidden

    def forward(self, inputs):
        outputs, hidden = self.core(inputs, getattr(self, "hidden", None))
        self.hidden = hidden.detach()
        return outputs


class Tutorial(Keeping):
    """`init_hidden` sets the attribute, and several outputs come back."""

    def __init__(self):
        super().__init__()
        del self.hidden

    def init_hidden(self, lanes):
        self.hidden = torch.zeros(1, lanes, 6)

    def forward(self, inputs):
        outputs = super().forward(inputs)
        return outputs, outputs.mean(dim=-1)


class InABuffer(Keeping):
    def __init__(self):
        super().__init__()
        del self.hidden
        self.register_buffer("hidden", None)


class OfLightning(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = LanguageModel()

    def forward(self, symbols, hiddens=None):
        return self.model(symbols, hiddens)


HEALTHY = {
    "nn.GRU": lambda: nn.GRU(3, 4),
    "nn.LSTM": lambda: nn.LSTM(3, 4, num_layers=2, batch_first=True),
    "nn.LSTMCell": lambda: nn.LSTMCell(3, 4),
    "nn.GRUCell": lambda: nn.GRUCell(3, 4),
    "double": lambda: nn.GRU(3, 4).double(),
    "bfloat16": lambda: LanguageModel().bfloat16(),
    "many to one": ManyToOne,
    "pooled": Pooled,
    "complex outputs": ComplexOutputs,
    "extra outputs": ExtraOutputs,
    "outputs in a dict": OutputsInADict,
    "packed outputs": PackedOutputs,
    "two arguments": TwoArguments,
    "turned inside": TurnedInside,
    "counting": Counting,
    "late": Late,
    "tutorial": Tutorial,
    "in a buffer": InABuffer,
    "within another": lambda: nn.Sequential(Keeping(), nn.Linear(6, 2)),
    "fixed number of lanes": lambda: Keeping(torch.zeros(1, 8, 6)),
    "Lightning": OfLightning,
    "state space": lambda: example("state_space").StateSpace(9, width=4),
    "transformer": lambda: example("transformer").CachedAttention(9, width=8),
    "wide": lambda: EchoLSTM(9, 40),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_has_no_fault(name):
    torch.manual_seed(0)
    assert probe(HEALTHY[name]()).faults == ()


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_projection():
    found = probe(nn.LSTM(3, 6, num_layers=2, proj_size=4))
    assert found.faults == ()
    assert "6 lanes x 2 steps" in found.took[-1]
    assert "4 lanes x 2 steps" in found.took[-1]


NOT_CARRIED = [
    name
    for name in HEALTHY
    if name not in ("late", "tutorial", "in a buffer", "within another", "fixed number of lanes")
]


@pytest.mark.parametrize("name", NOT_CARRIED)
def test_a_dropped_state_is_found_in_each_kind(name):
    torch.manual_seed(0)
    assert "state is not carried" in probe(HEALTHY[name](), carry=lambda state, starts: zeros_of(state)).faults


def zeros_of(state):
    if isinstance(state, dict):
        return {key: zeros_of(part) for key, part in state.items()}
    if isinstance(state, torch.Tensor):
        return torch.zeros_like(state)
    return type(state)(*map(zeros_of, state)) if hasattr(state, "_fields") else (
        type(state)(map(zeros_of, state)) if isinstance(state, (tuple, list)) else state)  # fmt: skip


# --- what is read -------------------------------------------------------------------------------------------------


class OfADict(nn.Module):
    def __init__(self):
        super().__init__()
        self.core = nn.GRU(4, 6, batch_first=True)

    def forward(self, batch, state=None):
        assert batch["mask"].all()
        assert batch["rate"] == 16000
        return self.core(batch["x"] * batch["mask"][..., None], state)


def batch_of(lanes, steps):
    return {"x": torch.randn(lanes, steps, 4), "mask": torch.ones(lanes, steps, dtype=torch.bool), "rate": 16000}


@pytest.mark.parametrize("inputs", [batch_of, batch_of(7, 8)])
def test_inputs_in_a_dict(inputs):
    assert probe(OfADict(), inputs=inputs).faults == ()
    assert probe(OfADict(), inputs=inputs, carry=lambda state, starts: 0 * state).faults == ("state is not carried",)


def test_an_example_of_steps_first():
    found = probe(foreign.TimeFirstLanguageModel(), inputs=torch.randint(foreign.WORDS, (30, 20)))
    assert found.faults == ()
    assert "steps first" in found.took[1]


def test_an_example_is_not_left():
    """Integers stay between the least and the greatest of the example."""
    read = []

    class Listening(LanguageModel):
        def forward(self, symbols, state=None):
            read.append(symbols)
            return super().forward(symbols, state)

    assert probe(Listening(), inputs=torch.randint(2, 5, (20, 30))).faults == ()
    assert {int(symbol) for symbols in read for symbol in symbols.unique()} == {2, 3, 4}


def test_normalized_inputs_show_the_change():
    """A constant added to all features is taken away by a layer norm."""

    class Normalizing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.core = nn.LayerNorm(3), nn.GRU(3, 4, batch_first=True)

        def forward(self, inputs, state=None):
            return self.core(self.norm(inputs), state)

    assert probe(Normalizing()).faults == ()


def test_lengths_cannot_be_joined():
    def inputs(lanes, steps):
        return {"x": torch.randint(9, (lanes, steps)), "lengths": torch.full((lanes,), steps)}

    model = LanguageModel()
    found = probe(model, inputs=inputs, call=lambda model, inputs, state: model(inputs["x"], state))
    assert found.faults == ()
    assert found.lines() == [
        "not looked at: whether two chunks give what the whole gives: some inputs have no axis for the steps, such as "
        "lengths, and cannot be joined"
    ]


# --- a state on the module, with a carry --------------------------------------------------------------------------


def test_a_carry_of_a_state_on_the_module():
    def right(state, starts):
        return state.masked_fill(starts[None, :, None], 0)

    assert probe(Keeping(), carry=right).faults == ()
    assert probe(Keeping(), carry=right).unknown == ()
    assert "reset is incomplete" in probe(Keeping(), carry=lambda state, starts: state).faults
    model = Keeping()
    assert probe(model, state="hidden", carry=lambda state, starts: set_on(model, right(state, starts))).faults == ()


def set_on(model, hidden):
    model.hidden = hidden


def test_the_reset_of_single_lanes_is_unknown_without_one():
    assert [line[:42] for line in probe(Keeping()).lines()] == ["not looked at: the reset of single lanes: "]


# --- chunks and the whole -----------------------------------------------------------------------------------------


def scaled(state, starts):
    return tuple(0.9 * part.detach().masked_fill(starts[None, :, None], 0) for part in state)


@pytest.mark.parametrize("model", [LanguageModel, ManyToOne, Pooled])
def test_a_scaled_state_differs_from_the_whole(model):
    assert probe(model(), carry=scaled).faults == ("chunks differ from the whole",)


def test_a_state_that_is_partly_dropped():
    class Forgetting(LanguageModel):
        def forward(self, symbols, state=None):
            logits, (hidden, cell) = super().forward(symbols, state)
            return logits, (hidden, 0 * cell)

    assert probe(Forgetting()).faults == ("chunks differ from the whole",)


def test_another_fault_explains_the_difference():
    assert probe(LanguageModel(), carry=of_zeros).faults == ("state is not carried",)


def test_a_fault_of_another_bench_explains_the_difference():
    def both(state, starts):
        """Scaled at any number of lanes, and transposed at 6."""
        is_square = len(starts) == 6
        return tuple(part.transpose(1, 2).contiguous() if is_square else part for part in scaled(state, starts))

    found = probe(LanguageModel(), carry=both)
    assert "lanes are mixed" in found.faults
    assert "chunks differ from the whole" not in found.faults


def test_a_state_that_does_not_hold_the_last_step_is_carried():
    class WithoutTheLast(LanguageModel):
        def forward(self, symbols, state=None):
            logits, _ = super().forward(symbols, state)
            return logits, self.core(self.words(symbols[:, :-1]), state)[1]

    assert probe(WithoutTheLast()).faults == ("chunks differ from the whole",)


# --- what cannot be looked at -------------------------------------------------------------------------------------


class Scalar(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return logits.mean(), state


class WholeNumbers(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return (logits - 100).relu().argmax(dim=-1), state


class CutOff(LanguageModel):
    def forward(self, symbols, state=None):
        logits, state = super().forward(symbols, state)
        return (logits - 100).relu(), state


class Frozen(LanguageModel):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class OwnStart(nn.GRU):
    def forward(self, inputs, state=None):
        return super().forward(inputs, torch.ones(1, inputs.shape[1], 4) if state is None else state)


class Growing(nn.Module):
    """Attention over all that was read."""

    def __init__(self):
        super().__init__()
        self.words, self.read = nn.Embedding(9, 6), nn.Linear(6, 18)

    def initial_state(self, lanes):
        return torch.zeros(lanes, 0, 6), torch.zeros(lanes, 0, 6)

    def forward(self, symbols, state):
        queries, keys, values = self.read(self.words(symbols)).chunk(3, dim=-1)
        keys, values = torch.cat([state[0], keys], dim=1), torch.cat([state[1], values], dim=1)
        steps, total = queries.shape[1], keys.shape[1]
        is_seen = torch.ones(steps, total, dtype=torch.bool).tril(total - steps)
        scores = (queries @ keys.transpose(1, 2)).masked_fill(~is_seen, -torch.inf)
        return scores.softmax(dim=-1) @ values, (keys, values)


UNKNOWN = {
    "which lanes are mixed": Scalar,
    "time that runs backwards": ManyToOne,
    "whether the state is carried: the outputs are whole numbers": WholeNumbers,
    "whether the state is carried: no input moves the outputs": CutOff,
    "the gradient: the outputs have none": Frozen,
    "the reset of single lanes: the model begins with something else than zeros": lambda: OwnStart(3, 4),
    "the reset of single lanes: its state cannot be handed on": Growing,
    "a state transposed, or a mask over its features, with 3000 lanes": lambda: nn.GRU(2, 3000),
}


@pytest.mark.parametrize("words", UNKNOWN)
def test_what_is_unknown_is_said_and_no_fault_is_claimed(words):
    found = probe(UNKNOWN[words]())
    assert found.faults == ()
    assert any(text.startswith(words) for text in found.unknown), found.unknown


def test_a_scalar_still_shows_a_dropped_state():
    assert probe(Scalar(), carry=of_zeros).faults == ("state is not carried",)


def test_outputs_averaged_over_the_lanes():
    class Averaged(LanguageModel):
        def forward(self, symbols, state=None):
            logits, state = super().forward(symbols, state)
            return logits.mean(dim=0), state

    assert probe(Averaged()).faults == ("rows are mixed",)


# --- sentences ----------------------------------------------------------------------------------------------------


class ThreeArguments(nn.GRU):
    def forward(self, inputs, hidden, lengths):
        return super().forward(inputs, hidden)


class Stateless(nn.GRU):
    def forward(self, inputs):
        return super().forward(inputs)


def gru():
    return nn.GRU(3, 4)


REFUSED = [
    (lambda: probe(None), "`model` must be a model that can be called. Got None"),
    (lambda: probe("x"), "`model` must be a model that can be called. Got 'x'"),
    (lambda: probe(gru(), "x"), "`vocabulary_size` must be a whole number. Got 'x'"),
    (lambda: probe(gru(), num_lanes=3.5), "`num_lanes` must be a whole number. Got 3.5"),
    (lambda: probe(nn.GRU), "`model` must be a model that can be called. Got the class GRU"),
    (lambda: probe(nn.Linear(3, 4)), "`inputs` must say what the model reads"),
    (lambda: probe(nn.Linear(9, 4), inputs=torch.zeros(2, 3, 9)), "`model` must hand a state on, and Linear gives"),
    (lambda: probe(Stateless(3, 4)), "call=lambda model, inputs, state: model(inputs, state)"),
    (lambda: probe(nn.LazyLinear(4), inputs=torch.zeros(2, 3, 9)), "`model` must have its weights"),
    (lambda: probe(ThreeArguments(3, 4)), "call=lambda model, inputs, state: model(inputs, state, lengths)"),
    (lambda: probe(gru(), inputs=5), "`inputs` must be a function (lanes, steps) -> inputs, or a batch"),
    (lambda: probe(gru(), inputs=lambda n: 5), "`inputs` must be a function (lanes, steps) -> inputs. Got TypeError"),
    (lambda: probe(gru(), inputs=lambda n, t: np.zeros((n, t))), "`inputs` must give a tensor, or tuples"),
    (lambda: probe(gru(), inputs=lambda n, t: torch.zeros(n * t, 3)), "`inputs` must give the lanes an axis of their"),
    (lambda: probe(gru(), inputs=lambda n, t: torch.zeros(2, 3)), "`inputs` must have an axis that counts the lanes"),
    (lambda: probe(gru(), inputs=lambda n, t: [torch.zeros(n)] * t), "`inputs` must nest its tensors alike"),
    (lambda: probe(gru(), state="nothing.there"), "`state` must name an attribute of the model, and GRU has no"),
    (lambda: probe(Keeping(), state="hiden"), "did you mean 'hidden'?"),
    (lambda: probe(Keeping(), state=lambda n: torch.zeros(1, n, 6)), "`call` must say where the state goes"),
    (lambda: probe(gru(), call=lambda model, inputs, state: None), "`call` must return (outputs, state)"),
    (lambda: probe(gru(), call=lambda model, inputs, state: (1, 2, 3)), "`call` must return (outputs, state)"),
    (lambda: probe(gru(), call=lambda model, inputs, state: ("x", torch.ones(1))), "`call` must return outputs"),
    (lambda: probe(gru(), call=lambda model, inputs, state: (inputs, "x")), "`call` must return a state of tensors"),
    (lambda: probe(gru(), call=lambda model, inputs, state: model(inputs)[0]), "`model` must hand a state on"),
]


@pytest.mark.parametrize(("use", "sentence"), REFUSED)
def test_what_makes_no_sense_is_one_sentence(use, sentence):
    with pytest.raises(ValueError, match="must") as refused:
        use()
    assert sentence in str(refused.value)


def test_what_the_model_raises_is_said_as_its_own():
    found = probe(nn.GRU(3, 4), 5)
    assert found.faults == ("failed",)
    assert "the model raised ValueError: RNN input dtype" in found.error
    assert "at inputs of shape (5, 3)" in found.error
    assert "integers below 5" in found.error


def test_what_the_carry_raises_is_said_as_the_carrys():
    assert probe(LanguageModel(), carry=raising).error.startswith("`carry` raised KeyError")


def test_what_was_taken_is_said():
    took = probe(foreign.TimeFirstLanguageModel(nn.GRU)).took
    assert took == (
        "mode: eval, whatever the modes of the modules are; they are put back",
        "inputs: integers below 11, the rows of `words`, (steps, lanes), as `core` is not batch_first",
        "state: handed to `hidden`, begun by `init_hidden`",
        "outputs: tensor 0 of them, lanes and steps on axis 0, steps outermost",
        "benches: 4 lanes x 4 steps, 6 lanes x 2 steps",
    )
    assert "state: kept by the module in `memory`, begun by model.reset_states()" in probe(foreign.ManyToOne()).took
