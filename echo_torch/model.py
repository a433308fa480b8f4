"""The network: nn.LSTM over one-hot symbols and a linear head, its state an explicit value."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from echo_torch.encoding import one_hot_encode
from echo_torch.state import LSTMState

INITS = ("torch", "keras")


class EchoLSTM(nn.Module):
    """One-hot symbols -> nn.LSTM -> linear head -> one logit for each symbol.

    The state goes in and comes out; the module stores none. Reading a sequence whole, in chunks or one step at
    a time gives the same result, as long as each call gets the state of the one before.

        state = model.initial_state(num_lanes=8)
        logits, state = model(symbols, state)

    Args:
        vocabulary_size: Number of different symbols, at least 1.
        hidden_size: Width of the hidden and the cell state, at least 1.
        num_layers: LSTM layers on top of each other, at least 1.
        init: "torch" draws the weights as nn.LSTM and nn.Linear do. "keras" draws them as Keras does:
            Glorot-uniform kernels, orthogonal recurrent kernels, biases 0 but 1 for the forget gate; the second
            bias that PyTorch has and Keras has not is 0 and stays 0.

    Raises:
        ValueError: If a size is below 1 or `init` is unknown.
    """

    def __init__(
        self, vocabulary_size: int = 100, hidden_size: int = 50, num_layers: int = 1, *, init: str = "torch"
    ) -> None:
        super().__init__()
        sizes = {"vocabulary_size": vocabulary_size, "hidden_size": hidden_size, "num_layers": num_layers}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1: a network has no empty part. Got {size}.")
        if init not in INITS:
            raise ValueError(f"`init` must be one of {', '.join(INITS)}. Got {init!r}.")
        self.vocabulary_size = vocabulary_size
        self.lstm = nn.LSTM(vocabulary_size, hidden_size, num_layers, batch_first=True)
        self.head = nn.Linear(hidden_size, vocabulary_size)
        if init == "keras":
            _init_as_keras(self)

    def forward(self, symbols: Tensor, state: LSTMState) -> tuple[Tensor, LSTMState]:
        """Read some steps and answer at each of them.

        Args:
            symbols: int64 (lanes, steps); -1 reads nothing: a zero vector enters and time passes.
            state: What the lanes remember, from `initial_state` or from the call before.

        Returns:
            Logits, float32 (lanes, steps, vocabulary_size), and the state after the last step.

        Raises:
            TypeError: If the symbols are not integers or the state is no LSTMState.
            ValueError: If a symbol lies outside the vocabulary, a shape is wrong, or the state belongs to another
                number of lanes.
        """
        self._check(symbols, state)
        output, (hidden, cell) = self.lstm(one_hot_encode(symbols, self.vocabulary_size), (state.hidden, state.cell))
        logits: Tensor = self.head(output)
        return logits, LSTMState(hidden, cell)

    def initial_state(self, num_lanes: int) -> LSTMState:
        """The state of lanes that have read nothing yet: zeros (layers, lanes, hidden_size)."""
        if num_lanes < 1:
            raise ValueError(f"`num_lanes` must be at least 1. Got {num_lanes}.")
        like = self.head.weight
        shape = (self.lstm.num_layers, num_lanes, self.lstm.hidden_size)
        return LSTMState(like.new_zeros(shape), like.new_zeros(shape))

    def _check(self, symbols: Tensor, state: LSTMState) -> None:
        if symbols.ndim != 2 or not symbols.shape[1]:
            raise ValueError(
                "`symbols` must have two axes, (lanes, steps), with at least one step. "
                f"Got shape {tuple(symbols.shape)}. One sequence is one lane: `symbols.unsqueeze(0)`."
            )
        if not isinstance(state, LSTMState):
            raise TypeError(
                f"`state` must be an LSTMState, because its two tensors are told apart by name. Got "
                f"{type(state).__name__}. Start with `model.initial_state(lanes)`, or wrap a pair in LSTMState."
            )
        num_lanes = symbols.shape[0]
        expected = (self.lstm.num_layers, num_lanes, self.lstm.hidden_size)
        for name, field in zip(state._fields, state, strict=True):
            if field.shape == expected:
                continue
            if field.ndim == 3 and field.shape[1] != num_lanes:
                rule = (
                    f"`state` belongs to {field.shape[1]} lanes but `symbols` has {num_lanes}; "
                    "a state is never padded or cut to fit."
                )
            else:
                rule = f"`state` must have the shape (layers, lanes, hidden_size) = {expected}."
            raise ValueError(
                f"{rule} Got state.{name} of shape {tuple(field.shape)} and symbols of shape {tuple(symbols.shape)}. "
                f"Start again with `model.initial_state({num_lanes})`."
            )


@torch.no_grad()
def _init_as_keras(model: EchoLSTM) -> None:
    hidden_size = model.lstm.hidden_size
    for name, parameter in model.lstm.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        elif name.startswith("bias_ih"):
            parameter.zero_()
            parameter[hidden_size : 2 * hidden_size] = 1.0  # gates stand in the order i, f, g, o
        else:
            parameter.zero_()
            parameter.requires_grad_(False)  # training two biases would move their sum twice as far
    nn.init.xavier_uniform_(model.head.weight)
    nn.init.zeros_(model.head.bias)
