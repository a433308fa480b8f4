"""The networks: symbols in, one answer a step out, their state an explicit value."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from echo_torch.errors import RuleError
from echo_torch.models.encoding import Encoding, check_symbols
from echo_torch.models.state import HiddenState, LSTMState, WindowState

INITS = ("torch", "keras")
_Layer = TypeVar("_Layer", bound=nn.Module)


class EchoModel(nn.Module, ABC):
    """Encoded symbols -> a core with a state -> linear head -> logits: what all networks here have in common.

    The state goes in and comes out; the module stores none. Reading a sequence whole, in chunks or one step at
    a time gives the same result, as long as each call gets the state of the one before.

        state = model.initial_state(num_lanes=8)
        logits, state = model(symbols, state)

    Attributes:
        encoding: How symbols are written for the network.
        head: From the core's output to the logits.
    """

    state_type: ClassVar[type[Any]]

    def __init__(
        self,
        encoding: Encoding,
        core_name: str,
        core: nn.Module,
        hidden_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.add_module(core_name, core)
        self.head = _drawn(nn.Linear, generator, hidden_size, encoding.size)

    @property
    def vocabulary_size(self) -> int:
        """Number of different symbols."""
        return self.encoding.vocabulary_size

    def forward(self, symbols: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read some steps and answer at each of them.

        Args:
            symbols: int64 (lanes, steps); -1 reads nothing: a zero vector enters and time passes.
            state: What the lanes remember, from `initial_state` or from the call before.

        Returns:
            Logits, float32 (lanes, steps, size): with one-hot symbols the size is vocabulary_size, else that of the
            encoding's digits. And the state after the last step.

        Raises:
            RuleError: If the symbols are not integers or the state is of another model.
            RuleError: If a symbol lies outside the vocabulary, a shape is wrong, or the state belongs to another
                number of lanes.
        """
        self._check(symbols, state)
        check_symbols(symbols, self.vocabulary_size)
        return self.read_encoded(self.encoding.encode_checked(symbols, self.head.weight.dtype), state)

    def read_encoded(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """As `forward`, of symbols that are encoded already, (lanes, steps, encoding.size) of the weights' dtype."""
        output, state = self._read(inputs, state)
        logits: Tensor = self.head(output)
        return logits, state

    def initial_state(self, num_lanes: int) -> Any:
        """The state of lanes that have read nothing yet: zeros."""
        if num_lanes < 1:
            raise RuleError("num_lanes", "$num_lanes must be at least 1", num_lanes)
        shape = self._state_shape(num_lanes)
        return self.state_type(*(self.head.weight.new_zeros(shape) for _ in self.state_type._fields))

    @abstractmethod
    def _read(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """(lanes, steps, encoding.size) and a state to (lanes, steps, hidden_size) and the state after."""

    @abstractmethod
    def _state_shape(self, num_lanes: int) -> tuple[int, int, int]:
        """The shape of every tensor of the state."""

    _state_axes: ClassVar[str] = "(layers, lanes, hidden_size)"

    def _check(self, symbols: Tensor, state: Any) -> None:
        if symbols.ndim != 2 or not symbols.shape[1]:
            raise RuleError(
                "symbols",
                "$symbols must have two axes, (lanes, steps), with at least one step",
                f"shape {tuple(symbols.shape)}",
                way_out="one sequence is one lane: `symbols.unsqueeze(0)`",
            )
        if not isinstance(state, self.state_type):
            raise RuleError(
                "state",
                f"$state must be of type {self.state_type.__name__}",
                type(state).__name__,
                reason="because its tensors are told apart by name",
                way_out=f"start with `model.initial_state(lanes)`, or wrap the tensors in {self.state_type.__name__}",
            )
        num_lanes = symbols.shape[0]
        expected = self._state_shape(num_lanes)
        for name, field in state._asdict().items():
            if field.shape == expected:
                continue
            rule, reason = f"$state must have the shape {self._state_axes} = {expected}", ""
            if field.ndim == 3 and field.shape[1] != num_lanes:
                rule = f"$state belongs to {field.shape[1]} lanes but $symbols has {num_lanes}"
                reason = "and a state is never padded or cut to fit"
            raise RuleError(
                "state",
                rule,
                f"state.{name} of shape {tuple(field.shape)} and symbols of shape {tuple(symbols.shape)}",
                reason=reason,
                way_out=f"start again with `model.initial_state({num_lanes})`",
            )


class _Recurrent(EchoModel):
    """A core out of torch.nn: `core_name` is its attribute and `core_type` its class."""

    core_name: ClassVar[str]
    core_type: ClassVar[type[nn.RNNBase]]

    def __init__(
        self,
        vocabulary_size: int = 100,
        hidden_size: int = 50,
        num_layers: int = 1,
        *,
        base: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        _check_sizes(hidden_size=hidden_size, num_layers=num_layers)
        encoding = Encoding(vocabulary_size, base)
        core = _drawn(self.core_type, generator, encoding.size, hidden_size, num_layers, batch_first=True)
        super().__init__(encoding, self.core_name, core, hidden_size, generator)

    @property
    def core(self) -> nn.RNNBase:
        """The recurrent layers."""
        core: nn.RNNBase = getattr(self, self.core_name)
        return core

    def _state_shape(self, num_lanes: int) -> tuple[int, int, int]:
        return self.core.num_layers, num_lanes, self.core.hidden_size

    def _read(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        output, hidden = self.core(inputs, state.hidden)
        return output, HiddenState(hidden)


class EchoLSTM(_Recurrent):
    """Encoded symbols -> nn.LSTM -> linear head.

    Its state is an `LSTMState(hidden, cell)`, each (layers, lanes, hidden_size).

    >>> model = EchoLSTM(vocabulary_size=10, hidden_size=4)
    >>> logits, state = model(torch.tensor([[3, 1, 4]]), model.initial_state(1))
    >>> logits.shape
    torch.Size([1, 3, 10])

    Args:
        vocabulary_size: Number of different symbols, at least 1.
        hidden_size: Width of the hidden and the cell state, at least 1.
        num_layers: LSTM layers on top of each other, at least 1.
        init: "torch" draws the weights as nn.LSTM and nn.Linear do. "keras" draws them as Keras does:
            Glorot-uniform kernels, orthogonal recurrent kernels, biases 0 but 1 for the forget gate; the second
            bias that PyTorch has and Keras has not is 0 and stays 0.
        base: Symbols are written in digits of this base, see `Encoding`; None: one-hot.
        generator: Where the weights are drawn from; None: PyTorch's own, which all of a process share.

    Raises:
        RuleError: If a size is below 1 or `init` is unknown.
    """

    state_type = LSTMState
    core_name = "lstm"
    core_type = nn.LSTM
    lstm: nn.LSTM

    def __init__(
        self,
        vocabulary_size: int = 100,
        hidden_size: int = 50,
        num_layers: int = 1,
        *,
        init: str = "torch",
        base: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if init not in INITS:
            raise RuleError("init", f"$init must be one of {', '.join(INITS)}", repr(init))
        super().__init__(vocabulary_size, hidden_size, num_layers, base=base, generator=generator)
        if init == "keras":
            _init_as_keras(self, generator)

    def _read(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        output, (hidden, cell) = self.lstm(inputs, (state.hidden, state.cell))
        return output, LSTMState(hidden, cell)


class EchoGRU(_Recurrent):
    """Encoded symbols -> nn.GRU -> linear head.

    Its state is a `HiddenState(hidden)`, (layers, lanes, hidden_size). Arguments as of `EchoLSTM`, without `init`.

    >>> model = EchoGRU(vocabulary_size=10, hidden_size=4)
    >>> logits, state = model(torch.tensor([[3, 1, 4]]), model.initial_state(1))
    >>> logits.shape
    torch.Size([1, 3, 10])
    """

    state_type = HiddenState
    core_name = "gru"
    core_type = nn.GRU


class EchoRNN(_Recurrent):
    """Encoded symbols -> nn.RNN (tanh) -> linear head.

    Its state is a `HiddenState(hidden)`, (layers, lanes, hidden_size). Arguments as of `EchoLSTM`, without `init`.

    >>> model = EchoRNN(vocabulary_size=10, hidden_size=4)
    >>> logits, state = model(torch.tensor([[3, 1, 4]]), model.initial_state(1))
    >>> logits.shape
    torch.Size([1, 3, 10])
    """

    state_type = HiddenState
    core_name = "rnn"
    core_type = nn.RNN


class EchoMLP(EchoModel):
    """The last symbols side by side -> one hidden layer (ReLU) -> linear head: no recurrence.

    Its state is a `WindowState(inputs)`, the last `window_length - 1` inputs. It answers from the symbols of its
    window, whatever came before is gone. With a window of 1 it has no memory at all.

    >>> model = EchoMLP(vocabulary_size=10, hidden_size=4)
    >>> logits, state = model(torch.tensor([[3, 1, 4]]), model.initial_state(1))
    >>> logits.shape
    torch.Size([1, 3, 10])

    Args:
        vocabulary_size: Number of different symbols, at least 1.
        hidden_size: Width of the hidden layer, at least 1.
        window_length: Steps that an answer can depend on, the current one among them, at least 1.
        base: As of `EchoLSTM`.
        generator: As of `EchoLSTM`.

    Raises:
        RuleError: If a size is below 1.
    """

    state_type = WindowState
    hidden: nn.Conv1d
    _state_axes = "(window_length - 1, lanes, input_size)"

    def __init__(
        self,
        vocabulary_size: int = 100,
        hidden_size: int = 50,
        window_length: int = 5,
        *,
        base: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        _check_sizes(hidden_size=hidden_size, window_length=window_length)
        encoding = Encoding(vocabulary_size, base)
        # The same linear layer over every window: a convolution along the steps.
        hidden = _drawn(nn.Conv1d, generator, encoding.size, hidden_size, window_length)
        super().__init__(encoding, "hidden", hidden, hidden_size, generator)
        self.window_length = window_length

    def _state_shape(self, num_lanes: int) -> tuple[int, int, int]:
        return self.window_length - 1, num_lanes, self.encoding.size

    def _read(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        read = torch.cat([state.inputs.transpose(0, 1), inputs], dim=1)  # (lanes, steps, input_size)
        output = self.hidden(read.transpose(1, 2)).relu().transpose(1, 2)
        return output, WindowState(read[:, read.shape[1] - self.window_length + 1 :].transpose(0, 1))


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise RuleError(name, f"${name} must be at least 1: a network has no empty part", size)


def _drawn(kind: type[_Layer], generator: torch.Generator | None, *sizes: int, **options: Any) -> _Layer:
    """A layer of torch with the first weights that torch gives it, drawn from a generator.

    By itself it draws them while it is made, from the generator that all of a process share. So it is made without,
    and the same numbers are drawn here in the same order.
    """
    layer = kind.__new__(kind)
    layer.__dict__["reset_parameters"] = lambda: None
    layer.__init__(*sizes, **options)  # type: ignore[misc]  # of the very class that it is of
    del layer.__dict__["reset_parameters"]
    if isinstance(layer, nn.RNNBase):
        bound = 1 / math.sqrt(layer.hidden_size)
        for weight in layer.parameters():
            nn.init.uniform_(weight, -bound, bound, generator=generator)
        return layer
    weight, bias = layer.parameters()
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(weight[0].numel())
    nn.init.uniform_(bias, -bound, bound, generator=generator)
    return layer


@torch.no_grad()
def _init_as_keras(model: EchoLSTM, generator: torch.Generator | None) -> None:
    hidden_size = model.lstm.hidden_size
    for name, parameter in model.lstm.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(parameter, generator=generator)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter, generator=generator)
        elif name.startswith("bias_ih"):
            parameter.zero_()
            parameter[hidden_size : 2 * hidden_size] = 1.0  # gates stand in the order i, f, g, o
        else:
            parameter.zero_()
            parameter.requires_grad_(False)  # training two biases would move their sum twice as far
    nn.init.xavier_uniform_(model.head.weight, generator=generator)
    nn.init.zeros_(model.head.bias)
