"""What the symbols that are read add to the gates of the lowest layer, and its gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from echo_torch.models.kernels.flat_weights import FlatWeights
from echo_torch.models.kernels.layer import LSTMLayer, aligned


class LookedUp:
    """What symbols add to the gates of the lowest layer: for each a row of the input weights is looked up.

    Args:
        weights: The values of all weights.
        gradients: Where their gradients go.
        layer: The lowest one.
    """

    def __init__(self, weights: FlatWeights, gradients: FlatWeights, layer: LSTMLayer) -> None:
        self._layer = layer
        self._rows, self._row_gradients = weights.rows, gradients.rows
        self._gradients, self._zero_rows = gradients["lstm.weight_ih_l0"], gradients.zero_rows

    def forward(self, rows: Tensor) -> None:
        """Fill the layer's `gates`; rows as of `LSTMKernel.forward`."""
        gates = self._layer.gates
        gates.copy_(self._rows.index_select(0, rows.flatten()).view(gates.shape))

    def backward(self, rows: Tensor) -> None:
        """Add the gradients of the gates to those of the rows that were added to them."""
        self._gradients.zero_()
        order = rows.transpose(0, 1).flatten()  # as the gradients stand
        self._row_gradients.index_add_(0, order, self._layer.all_gradients.flatten(0, 1))
        self._zero_rows.zero_()  # what reads nothing changes no weight


class Multiplied:
    """The same by products with vectors that hold a 1 for each digit.

    Of digits it is quicker. And a GPU adds to rows in any order, so with other last bits each time, which products do
    not. Arguments as of `LookedUp`.
    """

    def __init__(self, weights: FlatWeights, gradients: FlatWeights, layer: LSTMLayer) -> None:
        self._layer = layer
        self._rows_per_member = weights.rows_per_member
        self._rows = weights["lstm.weight_ih_l0"].transpose(1, 2)
        self._row_gradients = gradients["lstm.weight_ih_l0"].transpose(1, 2)
        members, places = layer.all_gradients.shape[:2]
        self._ones = aligned(weights.values, (members,), (places, 1 + weights.encoding.size))
        self._read = self._ones[..., :-1]  # without what is read where nothing is read

    def forward(self, rows: Tensor) -> None:
        """As of `LookedUp`."""
        own = (rows % self._rows_per_member).transpose(0, 1).flatten(1, 2)
        self._ones.zero_().scatter_(2, own, 1)
        self._layer.multiply(self._read, self._rows)

    def backward(self, rows: Tensor) -> None:
        """As of `LookedUp`, of the symbols that were read last."""
        torch.bmm(self._read.transpose(1, 2), self._layer.all_gradients, out=self._row_gradients)


def reader_of(weights: FlatWeights, gradients: FlatWeights, layer: LSTMLayer) -> LookedUp | Multiplied:
    """The quicker of the two that gives the same bits each time; arguments as of `LookedUp`."""
    is_looked_up = weights.encoding.num_digits == 1 and not weights.values.is_cuda
    return (LookedUp if is_looked_up else Multiplied)(weights, gradients, layer)
