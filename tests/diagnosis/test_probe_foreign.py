"""The probe on models as other people build them: nothing on the healthy ones, and eight faults by their names."""

import pytest
import torch
from support import foreign_models as foreign
from torch import nn

from echo_torch.diagnosis.probing.probes import probe
from echo_torch.models.state import detach_state, leaves_of, with_leaves


def policy_call(model, inputs, state):
    found = model({**inputs, **(state or {})})
    return found["action"], {"h": found["next_h"], "c": found["next_c"]}


HANDED = {
    # name: (model, the glue)
    "word_language_model LSTM": (foreign.TimeFirstLanguageModel, {}),
    "word_language_model GRU": (lambda: foreign.TimeFirstLanguageModel(nn.GRU), {}),
    "awd-lstm-lm": (foreign.ListedLanguageModel, {}),
    "torchrl": (foreign.Policy, {"inputs": foreign.observations, "call": policy_call}),
    "silero-vad": (foreign.Detector, {"inputs": foreign.sounds}),
    "LSTMCell": (foreign.CellLoop, {}),
}
HELD = {
    "fastai": (foreign.KeepingLanguageModel, {}),
    "Keras": (foreign.ManyToOne, {}),
}
ALL = HANDED | HELD
LANE_AXES = {"torchrl": 0, "LSTMCell": 0}


def make(name):
    torch.manual_seed(1)
    model, glue = ALL[name]
    return model(), glue


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("is_training", [True, False])
def test_a_healthy_one_has_no_fault(name, is_training):
    model, glue = make(name)
    found = probe(model.train(is_training), **glue)
    assert found.faults == (), found.lines()
    assert model.training == is_training
    assert bool(found.influence[torch.arange(len(found.probed_lanes)), list(found.probed_lanes)].all())


def test_a_first_state_without_lanes_means_that_the_model_makes_its_own():
    model, glue = make("silero-vad")
    found = probe(model, **glue, state=lambda lanes: torch.zeros(0))
    assert found.faults == ()
    assert not any("reset" in text for text in found.unknown)


# --- what the training does between two chunks -------------------------------------------------------------------


def of_tensors(change):
    """A mistake in the hand-over: all tensors of the state go through it."""

    def mistake(state, starts, axis):
        leaves = leaves_of(reset(detach_state(state), starts, axis))
        return with_leaves(state, [change(leaf, axis) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves])

    return mistake


def reset(state, starts, axis, places=None):
    """Right, where `places` is None; else only these tensors are reset."""

    def one(place, leaf):
        if not isinstance(leaf, torch.Tensor) or (places is not None and place not in places):
            return leaf
        return leaf.masked_fill(starts.view([-1 if number == axis else 1 for number in range(leaf.ndim)]), 0)

    return with_leaves(state, [one(*leaf) for leaf in enumerate(leaves_of(state))])


def not_detached(state, starts, axis):
    return reset(state, starts, axis)


def exchanged(state, starts, axis):
    state = reset(detach_state(state), starts, axis)
    leaves = leaves_of(state)
    if len(leaves) == 1 and leaves[0].ndim == 3 and len(leaves[0]) == 2 and axis == 1:
        return leaves[0].flip(0)  # both fields in one tensor, or two layers
    return with_leaves(state, [leaves[place ^ 1] for place in range(len(leaves))])


def without_a_field(state, starts, axis):
    """Resets but the first field; of a single tensor but the first layer."""
    state = detach_state(state)
    if len(leaves_of(state)) > 1:
        return reset(state, starts, axis, places=range(1, len(leaves_of(state))))
    return torch.cat([state[:1], reset(state[1:], starts, axis)])


def over_the_features(state, starts, axis):
    return with_leaves(state, [leaf.detach().masked_fill(starts, 0) for leaf in leaves_of(state)])


def _transposed(leaf, axis):
    other = leaf.ndim - 1
    return leaf.transpose(axis, other).contiguous()


CARRIES = {
    "not detached": (not_detached, "gradient crosses the cut"),
    "reset at every batch": (of_tensors(lambda leaf, axis: torch.zeros_like(leaf)), "state is not carried"),
    "averaged": (
        of_tensors(lambda leaf, axis: leaf.mean(axis, keepdim=True).expand_as(leaf).contiguous()),
        "lanes are mixed",
    ),
    "rolled": (of_tensors(lambda leaf, axis: leaf.roll(1, axis)), "lanes are mixed"),
    "transposed": (of_tensors(_transposed), "lanes are mixed"),
    "mask on the features": (over_the_features, "reset is incomplete"),
    "incomplete reset": (without_a_field, "reset is incomplete"),
    "exchanged": (exchanged, "chunks differ from the whole"),
    "scaled": (of_tensors(lambda leaf, axis: 0.9 * leaf), "chunks differ from the whole"),
}
# Two widths never fit into one another, and a call of one step has no whole to compare with.
IMPOSSIBLE = {
    ("awd-lstm-lm", "transposed"), ("awd-lstm-lm", "mask on the features"),
    ("silero-vad", "exchanged"), ("silero-vad", "scaled"),
}  # fmt: skip
CASES = [(name, mistake) for name in HANDED for mistake in CARRIES if (name, mistake) not in IMPOSSIBLE]


@pytest.mark.parametrize(("name", "mistake"), CASES)
def test_a_mistake_in_the_hand_over_is_named(name, mistake):
    model, glue = make(name)
    carry, fault = CARRIES[mistake]
    axis = LANE_AXES.get(name, 1)
    found = probe(model, **glue, carry=lambda state, starts: carry(state, starts, axis))
    assert fault in found.faults
    assert "failed" not in found.faults
    if fault in ("gradient crosses the cut", "state is not carried", "chunks differ from the whole"):
        assert found.faults == (fault,)


@pytest.mark.parametrize("name", HANDED)
def test_a_right_carry_of_ones_own_is_right(name):
    model, glue = make(name)
    axis = LANE_AXES.get(name, 1)
    assert probe(model, **glue, carry=lambda state, starts: reset(detach_state(state), starts, axis)).faults == ()


@pytest.mark.parametrize("mistake", ["exchanged", "scaled"])
def test_a_call_of_one_step_has_no_whole(mistake):
    model, glue = make("silero-vad")
    carry, _ = CARRIES[mistake]
    found = probe(model, **glue, carry=lambda state, starts: carry(state, starts, 1))
    assert any("two chunks give what the whole gives: the inputs have no axis for the steps" in line
               for line in found.unknown)  # fmt: skip


# --- a state on the module: the mistakes stand in the module ------------------------------------------------------

KEEPS = {
    "not detached": (lambda part: part, "gradient crosses the cut"),
    "reset at every batch": (torch.zeros_like, "state is not carried"),
    "averaged": (lambda part: part.mean(1, keepdim=True).expand_as(part).contiguous().detach(), "lanes are mixed"),
    "rolled": (lambda part: part.roll(1, 1).detach(), "lanes are mixed"),
    "scaled": (lambda part: 0.9 * part.detach(), "chunks differ from the whole"),
    "transposed": (
        lambda part: (part.transpose(1, 2) if part.shape[1] == part.shape[2] else part).contiguous().detach(),
        "lanes are mixed",
    ),
}


def nested(change, state):
    return with_leaves(state, [change(leaf) for leaf in leaves_of(state)])


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("mistake", KEEPS)
def test_a_mistake_in_what_the_module_keeps_is_named(name, mistake):
    model, glue = make(name)
    change, fault = KEEPS[mistake]
    model.keep = lambda state: nested(change, state)
    assert probe(model, **glue).faults == (fault,)


def _exchanged_on_the_module(model, state):
    pairs = [state] if isinstance(state[0], torch.Tensor) else state
    pairs = [(cell.detach(), hidden.detach()) for hidden, cell in pairs]
    return pairs if isinstance(state, list) else pairs[0]


@pytest.mark.parametrize("name", HELD)
def test_exchanged_fields_on_the_module(name):
    model, glue = make(name)
    model.keep = lambda state: _exchanged_on_the_module(model, state)
    assert probe(model, **glue).faults == ("chunks differ from the whole",)


@pytest.mark.parametrize("name", HELD)
def test_a_reset_of_the_module_that_forgets_a_field(name):
    model, glue = make(name)
    right = type(model).reset if name == "fastai" else type(model).reset_states
    attribute = "hidden" if name == "fastai" else "memory"

    def incomplete():
        before = getattr(model, attribute)
        lanes = getattr(model, "lanes", 1)
        right(model)
        if name == "fastai" and lanes > 1:
            model.lanes, model.hidden = lanes, [before[0], *model.first(lanes)[1:]]
        elif name == "Keras":
            model.memory = None if before is None else (before[0], torch.zeros_like(before[1]))

    setattr(model, "reset" if name == "fastai" else "reset_states", incomplete)
    assert probe(model, **glue).faults == ("reset is incomplete",)


# --- axes that are confused --------------------------------------------------------------------------------------


def lanes_first(lanes, steps):
    return torch.randint(foreign.WORDS, (lanes, steps))


def steps_first(lanes, steps):
    return torch.randint(foreign.WORDS, (steps, lanes))


@pytest.mark.parametrize("name", ["word_language_model LSTM", "word_language_model GRU", "awd-lstm-lm"])
def test_lanes_first_where_the_model_reads_steps_first(name):
    model, _ = make(name)
    assert "rows are mixed" in probe(model, inputs=lanes_first).faults
    assert probe(model, inputs=steps_first).faults == ()


@pytest.mark.parametrize("name", ["fastai", "Keras", "LSTMCell", "torchrl"])
def test_steps_first_where_the_model_reads_lanes_first(name):
    model, glue = make(name)
    inputs = {
        "fastai": steps_first,
        "torchrl": lambda lanes, steps: {k: v.transpose(0, 1) for k, v in foreign.observations(lanes, steps).items()},
    }.get(name, lambda lanes, steps: torch.randn(steps, lanes, 3))
    assert {"rows are mixed", "failed"} & set(probe(model, **{**glue, "inputs": inputs}).faults)


def test_time_that_runs_backwards():
    both_ways = foreign.TimeFirstLanguageModel(bidirectional=True)
    assert "time runs backwards" in probe(both_ways).faults
    flipped = {
        name: lambda model, inputs, state, axis=axis: turned(model(inputs.flip(axis), state), axis)
        for name, axis in {"LSTMCell": 1, "awd-lstm-lm": 0}.items()
    }
    for name, call in flipped.items():
        model, _ = make(name)
        found = probe(model, call=call, inputs=None if name == "awd-lstm-lm" else lambda n, t: torch.randn(n, t, 3))
        assert found.faults == ("time runs backwards",)


def turned(found, axis):
    return found[0].flip(axis), found[1]


def test_flattened_outputs_of_either_order():
    class LanesMajor(foreign.TimeFirstLanguageModel):
        def forward(self, symbols, hidden):
            logits, hidden = super().forward(symbols, hidden)
            steps, lanes = symbols.shape
            return logits.view(steps, lanes, -1).transpose(0, 1).flatten(0, 1), hidden

    assert probe(LanesMajor()).faults == ()
