"""The probe on healthy models of many kinds: how they are called, where their state is."""

from dataclasses import dataclass

import pytest
import pytorch_lightning
import torch
from support.kinds_of_state import example
from support.probed_models import Keeping, LanguageModel, ManyToOne, Pooled
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from echo_torch import EchoLSTM
from echo_torch.diagnosis.probing.probes import probe


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


@dataclass
class Result:
    logits: torch.Tensor
    h_n: tuple[torch.Tensor, torch.Tensor]


class OutputsInADataclass(LanguageModel):
    def forward(self, symbols, state=None):
        return Result(*super().forward(symbols, state))


class OfBefore(LanguageModel):
    def forward(self, symbols, h_prev=None, c_prev=None):
        logits, (h, c) = super().forward(symbols, None if h_prev is None else (h_prev, c_prev))
        return logits, h, c


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
    "outputs in a dataclass": OutputsInADataclass,
    "of before": OfBefore,
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
