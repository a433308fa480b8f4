"""What a probed model reads: inputs of any nesting, like an example, and of one size only."""

import pytest
import torch
from support import foreign_models as foreign
from support.probed_models import LanguageModel, of_zeros
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from echo_torch.diagnosis.probing.probes import probe


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


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_batch_of_inputs_and_answers(kind):
    found = probe(LanguageModel(), inputs=kind([torch.randint(9, (20, 30)), torch.randint(9, (20, 30))]))
    assert found.faults == ()
    assert "the first part of the example, lanes first, because the model raises otherwise" in found.took[1]


def test_lengths_in_an_example_are_as_long_as_the_steps():
    class Packing(LanguageModel):
        def forward(self, symbols, lengths, state=None):
            packed = pack_padded_sequence(self.words(symbols), lengths, batch_first=True, enforce_sorted=False)
            features, state = self.core(packed, state)
            return pad_packed_sequence(features, batch_first=True)[0], state

    batch = {"symbols": torch.randint(9, (4, 8)), "lengths": torch.tensor([3, 8, 5, 2])}
    found = probe(Packing(), inputs=batch, call=lambda model, inputs, state: model(**inputs, state=state))
    assert found.faults == ()


class CellOverSteps(nn.Module):
    """Steps first, which a cell does not tell."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRUCell(3, 6)

    def init_hidden(self, lanes):
        return torch.zeros(lanes, 6)

    def forward(self, inputs, hidden):
        outputs = []
        for one in inputs:
            hidden = self.cell(one, hidden)
            outputs.append(hidden)
        return torch.stack(outputs), hidden


def test_an_example_with_the_other_axis_first():
    found = probe(CellOverSteps(), inputs=torch.randn(9, 4, 3))
    assert found.faults == ()
    assert "steps first, because the model raises otherwise" in found.took[1]


def test_a_square_example_is_not_turned():
    """As many lanes as steps: there the training raises nothing, so the axes must be as they are given."""
    assert "rows are mixed" in probe(CellOverSteps(), inputs=torch.randn(4, 4, 3)).faults


def test_a_cell_that_is_called_for_each_step():
    class OneStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.GRUCell(3, 6), nn.Linear(6, 2)

        def forward(self, inputs, hidden):
            hidden = self.cell(inputs, hidden)
            return self.head(hidden), hidden

    found = probe(OneStep())
    assert found.faults == ()
    assert "floats (lanes, 3), as `cell` reads them, because the model raises at steps" in found.took[1]


# --- models that read one size only -------------------------------------------------------------------------------


class OneSize(LanguageModel):
    """Raises at any other number of lanes or steps."""

    def __init__(self, lanes=None, steps=None):
        super().__init__()
        self.only = lanes, steps

    def forward(self, symbols, state=None):
        for size, only in zip(symbols.shape, self.only, strict=True):
            if only is not None and size != only:
                raise ValueError(f"needs {only}")
        return super().forward(symbols, state)


def test_one_number_of_steps():
    assert probe(OneSize(steps=11), num_steps=11).faults == ()
    found = probe(OneSize(steps=11), inputs=torch.randint(9, (6, 11)))
    assert found.faults == ()
    assert "steps: 11, as the example has, because 4 and 5 raise" in found.took
    assert probe(OneSize(steps=11), num_steps=11, carry=of_zeros).faults == ("state is not carried",)


def test_one_number_of_lanes():
    found = probe(OneSize(lanes=7), num_lanes=7)
    assert found.faults == ()
    assert any(text.startswith("the reset of single lanes: 2 and 3 lanes would tell") for text in found.unknown)
    assert probe(OneSize(lanes=7), num_lanes=7, carry=of_zeros).faults == ("state is not carried",)
    assert probe(OneSize(7, 11), inputs=torch.randint(9, (7, 11))).faults == ()


def test_one_size_that_is_not_known():
    assert "`num_lanes` and `num_steps` if it reads no others" in probe(OneSize(lanes=7)).error


def test_a_state_that_must_not_be_none():
    class Needing(LanguageModel):
        def forward(self, symbols, hidden):
            return super().forward(symbols, (hidden[0], hidden[1]))

    assert "`state=lambda lanes: ...` if `hidden` must not be None" in probe(Needing()).error
    assert "must not be None" not in probe(LanguageModel(), num_steps=2, vocabulary_size=50).error
