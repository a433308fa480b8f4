"""Many LSTMs with a linear head, side by side: a chunk forward, and its gradient backward."""

from __future__ import annotations

import torch
from torch import Tensor

from echo_torch.models.kernels.flat_weights import FlatWeights
from echo_torch.models.kernels.layer import LSTMLayer, aligned
from echo_torch.models.kernels.symbols import reader_of


class LSTMKernel:
    """Several `EchoLSTM` of one shape, a chunk forward and its gradient backward, in torch operations alone.

    It computes what `EchoLSTM.forward` and autograd do, up to rounding, and a network's bits do not depend on those
    beside it. A symbol's one-hot vector times W_ih is a column of W_ih, so it is looked up, and its gradient is added
    to that column alone. Digits are multiplied: there are few columns, and each symbol reads several. Above the layers
    stands z = W h + b, so that from dz come dW = dz h^T, db = dz and dh = W^T dz.

    Args:
        weights: The values of all weights.
        num_layers: Layers of each network.
        num_steps: Columns of a chunk.
        num_lanes: Rows of a chunk.
        num_answered: So many of the last columns are answered; the head does not look at those before.

    Attributes:
        gradients: The gradients of all weights, after `backward`.
    """

    def __init__(
        self, weights: FlatWeights, *, num_layers: int, num_steps: int, num_lanes: int, num_answered: int
    ) -> None:
        self.gradients = gradients = weights.like()
        self.layers = [LSTMLayer(n, weights, gradients, num_steps, num_lanes) for n in range(num_layers)]
        self._symbols = reader_of(weights, gradients, self.layers[0])
        names = [f"lstm.weight_ih_l{number}" for number in range(1, num_layers)]
        self._between = [(weights[name], weights[name].transpose(1, 2), gradients[name]) for name in names]
        self._head, self._head_bias = weights["head.weight"], weights["head.bias"][:, None]
        self._head_transposed = self._head.transpose(1, 2)
        self._head_gradient, self._head_bias_gradient = gradients["head.weight"], gradients["head.bias"]
        self._first_answered = num_steps - num_answered
        top = self.layers[-1].hidden[:, 1 + self._first_answered :]
        self._top = top.flatten(1, 2)  # what the head reads: (members, answered steps * lanes, hidden_size)
        outer, places = top.shape[:1], self._top.shape[1]
        self._logits, self._logit_gradients = (
            aligned(top, outer, (places, self._head.shape[1]), with_gap=True) for _ in range(2)
        )
        # What is asked of h: of the highest layer by the head, of the others by the layer above.
        self._asked = [aligned(top, outer, layer.hidden[0, 1:].shape, with_gap=True) for layer in self.layers[:-1]]
        self._asked.append(aligned(top, outer, top.shape[1:], with_gap=True))

    @property
    def state(self) -> tuple[Tensor, Tensor]:
        """What the last chunk has left, h and c, each float (layers, members, lanes, hidden_size)."""
        hidden = torch.stack([layer.hidden[:, -1] for layer in self.layers])
        return hidden, torch.stack([layer.cell[-1] for layer in self.layers])

    @state.setter
    def state(self, state: tuple[Tensor, Tensor]) -> None:
        for layer, hidden, cell in zip(self.layers, *state, strict=True):
            layer.hidden[:, -1].copy_(hidden)
            layer.cell[-1].copy_(cell)

    def begin(self, starts: Tensor | None) -> None:
        """Begin a chunk with the state that the last one has left.

        Args:
            starts: bool (members, lanes, 1), which lanes begin with zeros; None: none of them.
        """
        for layer in self.layers:
            layer.begin(starts)

    def forward(self, rows: Tensor) -> Tensor:
        """Read a chunk.

        Args:
            rows: int64 (steps, members, lanes, digits), which rows of `weights.rows` a symbol's digits are.

        Returns:
            Logits, float (members, answered steps * lanes, size); the next call writes over them.
        """
        self._symbols.forward(rows)
        self.layers[0].forward()
        for below, layer, (_, transposed, _) in zip(self.layers, self.layers[1:], self._between, strict=False):
            layer.multiply(below.hidden_after, transposed)
            layer.forward()
        return torch.bmm(self._top, self._head_transposed, out=self._logits).add_(self._head_bias)

    def backward(self, rows: Tensor, logit_gradients: Tensor) -> None:
        """Fill `gradients` with those of a loss of the last chunk.

        Args:
            rows: As `forward` was given.
            logit_gradients: float (members, answered steps * lanes, size), the loss's derivatives by the logits.
        """
        gradients, asked = self._logit_gradients.copy_(logit_gradients), self._asked[-1]
        torch.bmm(gradients.transpose(1, 2), self._top, out=self._head_gradient)
        torch.sum(gradients, dim=1, out=self._head_bias_gradient)
        torch.bmm(gradients, self._head, out=asked.flatten(1, 2))
        first = self._first_answered
        for number in reversed(range(1, len(self.layers))):
            layer, below = self.layers[number], self.layers[number - 1]
            layer.backward(asked, first)
            weight, _, gradient = self._between[number - 1]
            torch.bmm(layer.all_gradients.transpose(1, 2), below.hidden_after, out=gradient)
            asked, first = self._asked[number - 1], 0
            torch.bmm(layer.all_gradients, weight, out=asked.flatten(1, 2))
        self.layers[0].backward(asked, first)
        self._symbols.backward(rows)
