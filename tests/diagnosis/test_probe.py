"""What the probe says: chunks against the whole, what it calls unknown, what it refuses, and its sentences."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import foreign_models as foreign
from support.probed_models import Keeping, LanguageModel, ManyToOne, Pooled, of_zeros, raising
from torch import nn

from echo_torch.diagnosis.probing.probes import probe


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


# --- one output after many steps ------------------------------------------------------------------------------------


def last_of_a_gru():
    torch.manual_seed(0)
    return ManyToOne(nn.GRU)


@pytest.mark.parametrize("num_steps", [40, 80])
def test_what_many_steps_forget_is_carried(num_steps):
    found = probe(last_of_a_gru(), num_lanes=4, num_steps=num_steps)
    assert found.faults == ()
    assert not any("carried" in text for text in found.unknown)


def test_faults_between_two_chunks_are_seen_behind_many_steps():
    def probed(carry):
        return probe(last_of_a_gru(), num_lanes=4, num_steps=80, carry=carry).faults

    assert probed(lambda state, starts: torch.zeros_like(state)) == ("state is not carried",)
    assert probed(lambda state, starts: state.detach()) == ("reset is incomplete",)
    assert probed(lambda state, starts: state.detach().roll(1, dims=1)) == ("lanes are mixed",)
    assert probed(lambda state, starts: state.masked_fill(starts[None, :, None], 0)) == ("gradient crosses the cut",)


def test_whether_many_steps_forget_is_unknown_where_one_step_is_not_read():
    class ManySteps(ManyToOne):
        def forward(self, symbols, state=None):
            if symbols.shape[1] == 1:
                raise ValueError("too short")
            return super().forward(symbols, state)

    torch.manual_seed(0)
    found = probe(ManySteps(nn.GRU), num_lanes=4, num_steps=80)
    assert found.faults == ()
    assert any("after 80 steps, and may have forgotten what was before" in text for text in found.unknown)


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
    "a state transposed, or a mask over its features, with 3000 lanes": lambda: nn.RNN(2, 3000),
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


class ReturnsNoState(LanguageModel):
    def forward(self, symbols, past=None, returns_state=False):
        return super().forward(symbols, past)[0]


class NamesNothing(LanguageModel):
    def forward(self, symbols, past=None):
        logits, last = super().forward(symbols, past)
        return {"logits": logits, "last": last}


class InAnObject(Keeping):
    def forward(self, inputs):
        outputs, hidden = self.core(inputs, None if self.hidden is None else self.hidden.tensor)
        self.hidden = SimpleNamespace(tensor=hidden.detach())
        return outputs


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
    (
        lambda: probe(Stateless(3, 4)),
        "gives results of which none is handed in, and changes no attribute of its own in",
    ),
    (lambda: probe(Stateless(3, 4)), "Let `forward` take the state and return it, or give a `call` that does"),
    (lambda: probe(ReturnsNoState()), "such as `call=lambda model, symbols, state: model(symbols, past=state)`"),
    (lambda: probe(NamesNothing()), "gives logits, last, of which none is called as states are, and changes no"),
    (lambda: probe(InAnObject()), "in eval mode, in which tensors are seen: hidden holds an object of another kind"),
    (lambda: probe(lambda x: Keeping()(x), inputs=torch.zeros(4, 5, 3)), "Give the module itself, whose attributes"),
    (lambda: probe(nn.LazyLinear(4), inputs=torch.zeros(2, 3, 9)), "`model` must have its weights"),
    (lambda: probe(ThreeArguments(3, 4)), "call=lambda model, inputs, state: model(inputs, state, lengths)"),
    (lambda: probe(gru().to("meta")), "`model` must have its weights, and on the device `meta` there are none"),
    (lambda: probe(gru(), device="gpu"), "`device` must be one that takes the inputs, and PyTorch says: Expected one"),
    (lambda: probe(gru(), carry="x"), "`carry` must be a function (state, starts) -> state. Got x"),
    (lambda: probe(gru(), call=3), "`call` must be a function (model, inputs, state) -> (outputs, state). Got 3"),
    (lambda: probe(gru(), state=torch.zeros(1, 3, 4)), "`state` must be a function number of lanes -> the first state"),
    (lambda: probe(gru(), inputs=[torch.zeros(3, 4, 3), "x"]), "None and numbers. Got str; leave anything else out"),
    (lambda: probe(gru(), inputs=np.zeros((3, 4))), "a batch with an axis for lanes and one for steps. Got ndarray of"),
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
