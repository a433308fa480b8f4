"""The forward and the backward pass of an LSTM with a linear head, written out, for many networks side by side."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.models.kernels.flat_weights import FlatWeights

_AT_ONCE = 64  # a multiple of what any processor computes at once


class _Step(NamedTuple):
    """What one step of one layer reads and writes, (members, lanes, ...) each: views, made once."""

    hidden_before: Tensor
    cell_before: Tensor
    gates: Tensor  # all four: in memory i, f, g, o stand side by side
    gate_i: Tensor
    gate_f: Tensor
    gate_g: Tensor
    gate_o: Tensor
    candidate: Tensor
    cell: Tensor
    shown_cell: Tensor
    hidden: Tensor
    cell_slope: Tensor
    slopes_ifg: Tensor  # (members, lanes, 3, hidden_size)
    slope_o: Tensor
    gradients: Tensor
    gradients_ifg: Tensor
    gradient_o: Tensor


def apart(like: Tensor, *shape: int) -> Tensor:
    """Zeros (steps, members, lanes, width) in which no operation takes the numbers of two members together.

    Where numbers lie side by side, 32 or so are computed at once, and the last few of a row alone: by other
    instructions, which can give other last bits. Which are the last must not depend on how many members there are.

    Args:
        like: What gives type and device.
        shape: Steps, members, lanes and width.
    """
    *outer, lanes, width = shape
    of_member = -(-lanes * width // _AT_ONCE) * _AT_ONCE
    return like.new_zeros(*outer, of_member)[..., : lanes * width].view(*outer, lanes, width)


class LSTMLayer:
    """One layer of several LSTMs: a chunk forward, and its gradient backward.

    A step reads x(t), what the layer is given, and h(t-1), c(t-1), what it remembers:

        a(t)    = W_ih x(t) + b_ih + W_hh h(t-1) + b_hh       four parts, one for each gate
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)    what is let in, kept, shown
        g       = tanh(a_g)                                   the candidate: what could be let in
        c(t)    = f c(t-1) + i g
        h(t)    = o tanh(c(t))

    Backward dh(t) and dc(t) are the loss's derivatives by h(t) and c(t), from the last step to the first:

        dh(t) = what is asked of h(t) from above + W_hh^T da(t+1)
        dc(t) = f(t+1) dc(t+1) + dh(t) o (1 - tanh(c(t))^2)
        da_i  = dc(t) g i (1 - i)             da_g = dc(t) i (1 - g^2)
        da_f  = dc(t) c(t-1) f (1 - f)        da_o = dh(t) tanh(c(t)) o (1 - o)

    and summed over steps and lanes dW_hh = da(t) h(t-1)^T and db = da(t). Nothing goes back beyond the first step of
    the chunk: the state is detached there. What stands beside dh and dc is known before the way back begins, so it is
    computed for all steps at once; that leaves five operations a step.

    A batched product is quick only where its result is contiguous, so what one writes to has the steps first; all else
    has the members first, and there steps and lanes can be read as one axis.

    Args:
        number: Of the layer; 0 is the lowest.
        weights: The values of all weights.
        gradients: Where their gradients go.
        num_steps: Columns of a chunk.
        num_lanes: Rows of a chunk.

    Attributes:
        gates: float (steps, members, lanes, 4 * hidden_size): before `forward` W_ih x, after it the gates.
        hidden: float (members, 1 + steps, lanes, hidden_size): h before the chunk, and after each step.
        cell: float (1 + steps, members, lanes, hidden_size): c, likewise.
        gate_gradients: float (members, steps, lanes, 4 * hidden_size): da, after `backward`.
        hidden_after: `hidden` without what was before the chunk, float (members, steps * lanes, hidden_size).
        all_gradients: `gate_gradients`, float (members, steps * lanes, 4 * hidden_size).
    """

    def __init__(
        self, number: int, weights: FlatWeights, gradients: FlatWeights, num_steps: int, num_lanes: int
    ) -> None:
        name = f"_l{number}"
        self._recurrent = weights[f"lstm.weight_hh{name}"]
        self._recurrent_transposed = self._recurrent.transpose(1, 2)
        self._recurrent_gradient = gradients[f"lstm.weight_hh{name}"]
        self._biases = [weights[f"lstm.bias_{kind}{name}"][:, None] for kind in ("ih", "hh")]
        trained = [f"lstm.bias_{kind}{name}" for kind in ("ih", "hh") if f"lstm.bias_{kind}{name}" in weights.trained]
        self._bias_gradients = [gradients[bias] for bias in trained]
        num_members, _, size = self._recurrent.shape
        new, shape = weights.values.new_zeros, (num_steps, num_members, num_lanes)
        self.gates, self._slopes = (apart(weights.values, *shape, 4 * size) for _ in range(2))
        self.hidden = new(num_members, 1 + num_steps, num_lanes, size)
        self.cell = apart(weights.values, 1 + num_steps, num_members, num_lanes, size)
        self.gate_gradients = new(num_members, num_steps, num_lanes, 4 * size)
        self._candidate, self._shown_cell, self._cell_slope = (apart(weights.values, *shape, size) for _ in range(3))
        self._hidden_gradient, self._cell_gradient = new(2, num_members, num_lanes, size)
        # Views are made here, once: to make one takes as long as to multiply two hundred numbers.
        self._steps = [self._step(step) for step in range(num_steps)]
        self._four_gates = self.gates.tensor_split(4, dim=-1)
        self._four_slopes = self._slopes.tensor_split(4, dim=-1)
        self._hidden_before, self._cell_before = self.hidden[:, :-1].flatten(1, 2), self.cell[:-1]
        self.hidden_after, self.all_gradients = self.hidden[:, 1:].flatten(1, 2), self.gate_gradients.flatten(1, 2)
        self._all_gradients_transposed = self.all_gradients.transpose(1, 2)
        self._borders = [(self.hidden[:, -1], self.hidden[:, 0]), (self.cell[-1], self.cell[0])]

    def _step(self, t: int) -> _Step:
        gates, slopes, gradients = self.gates[t], self._slopes[t], self.gate_gradients[:, t]
        size = self.cell.shape[-1]
        gate_i, gate_f, gate_g, gate_o = gates.tensor_split(4, dim=-1)
        return _Step(
            hidden_before=self.hidden[:, t],
            cell_before=self.cell[t],
            gates=gates,
            gate_i=gate_i,
            gate_f=gate_f,
            gate_g=gate_g,
            gate_o=gate_o,
            candidate=self._candidate[t],
            cell=self.cell[t + 1],
            shown_cell=self._shown_cell[t],
            hidden=self.hidden[:, t + 1],
            cell_slope=self._cell_slope[t],
            slopes_ifg=_in_three(slopes),
            slope_o=slopes[..., 3 * size :],
            gradients=gradients,
            gradients_ifg=_in_three(gradients),
            gradient_o=gradients[..., 3 * size :],
        )

    def begin(self, starts: Tensor | None) -> None:
        """Begin a chunk with the state that the last one has left, as `LSTMKernel.begin`."""
        for left, before in self._borders:
            before.copy_(left)
            if starts is not None:
                before.masked_fill_(starts, 0)

    def forward(self) -> None:
        """Read a chunk: what the inputs add to the gates stands in `gates`, the state before it in its place."""
        self.gates.add_(self._biases[0] + self._biases[1])
        for at in self._steps:
            at.gates.baddbmm_(at.hidden_before, self._recurrent_transposed)
            torch.tanh(at.gate_g, out=at.candidate)
            at.gates.sigmoid_()  # of g too, which costs less than to leave it out
            torch.mul(at.gate_f, at.cell_before, out=at.cell)
            at.cell.addcmul_(at.gate_i, at.candidate)
            torch.tanh(at.cell, out=at.shown_cell)
            torch.mul(at.gate_o, at.shown_cell, out=at.hidden)

    def backward(self, asked: Tensor, first_asked: int) -> None:
        """Fill the gradients of the recurrent weights, of the biases, and `gate_gradients`.

        Args:
            asked: float (members, steps, lanes, hidden_size), the loss's derivative by h as the layer above has it.
            first_asked: The step of the chunk that its first one belongs to; before it nothing is asked.
        """
        self._compute_slopes()
        hidden, cell = self._hidden_gradient, self._cell_gradient.zero_()
        hidden.copy_(asked[:, -1])
        for t in reversed(range(len(self._steps))):
            at = self._steps[t]
            cell.addcmul_(hidden, at.cell_slope)
            torch.mul(at.slopes_ifg, cell[:, :, None], out=at.gradients_ifg)
            torch.mul(at.slope_o, hidden, out=at.gradient_o)
            if t:
                cell.mul_(at.gate_f)
            if t > first_asked:
                torch.baddbmm(asked[:, t - 1 - first_asked], at.gradients, self._recurrent, out=hidden)
            elif t:
                torch.bmm(at.gradients, self._recurrent, out=hidden)
        torch.bmm(self._all_gradients_transposed, self._hidden_before, out=self._recurrent_gradient)
        first, *others = self._bias_gradients
        torch.sum(self.all_gradients, dim=1, out=first)
        for other in others:  # both biases are added to the gates alike
            other.copy_(first)

    def _compute_slopes(self) -> None:
        gate_i, _, _, gate_o = self._four_gates
        slope_i, slope_f, slope_g, slope_o = self._four_slopes
        torch.addcmul(self.gates, self.gates, self.gates, value=-1, out=self._slopes)
        slope_i.mul_(self._candidate)
        slope_f.mul_(self._cell_before)
        slope_o.mul_(self._shown_cell)
        torch.addcmul(gate_i, gate_i * self._candidate, self._candidate, value=-1, out=slope_g)
        torch.addcmul(gate_o, gate_o * self._shown_cell, self._shown_cell, value=-1, out=self._cell_slope)


def _in_three(gates: Tensor) -> Tensor:
    """The first three of four gates, (..., 4 * hidden_size) as (..., 3, hidden_size)."""
    return gates.view(*gates.shape[:-1], 4, -1)[..., :3, :]


class LSTMKernel:
    """Several `EchoLSTM` of one shape, a chunk forward and its gradient backward, in torch operations alone.

    It computes what `EchoLSTM.forward` and autograd do, up to rounding, and a network's bits do not depend on those
    beside it. A symbol's one-hot vector times W_ih is a column of W_ih, so it is looked up, and its gradient is added
    to that column alone; of digits the columns of all are added up. Above the layers stands z = W h + b, so that from
    dz come dW = dz h^T, db = dz and dh = W^T dz.

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
        self._rows, self._row_gradients, self._zero_rows = weights.rows, gradients.rows, gradients.zero_rows
        self._symbol_gradients = gradients["lstm.weight_ih_l0"]
        names = [f"lstm.weight_ih_l{number}" for number in range(1, num_layers)]
        self._between = [(weights[name], weights[name].transpose(1, 2), gradients[name]) for name in names]
        self._head, self._head_bias = weights["head.weight"], weights["head.bias"][:, None]
        self._head_transposed = self._head.transpose(1, 2)
        self._head_gradient, self._head_bias_gradient = gradients["head.weight"], gradients["head.bias"]
        self._first_answered = num_steps - num_answered
        top = self.layers[-1].hidden[:, 1 + self._first_answered :]
        self._top = top.flatten(1, 2)  # what the head reads: (members, answered steps * lanes, hidden_size)
        self._asked_shape = top.shape
        self._logits = top.new_zeros(*self._top.shape[:2], self._head.shape[1])

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
        lowest = self.layers[0]
        if rows.shape[-1] == 1:
            lowest.gates.copy_(self._rows.index_select(0, rows.flatten()).view(lowest.gates.shape))
        else:
            found = self._rows.index_select(0, rows.flatten()).view(*rows.shape, -1)
            torch.sum(found, dim=-2, out=lowest.gates)
        lowest.forward()
        for below, layer, (_, transposed, _) in zip(self.layers, self.layers[1:], self._between, strict=False):
            added = torch.bmm(below.hidden_after, transposed)
            layer.gates.copy_(added.view_as(layer.gate_gradients).transpose(0, 1))  # the steps first
            layer.forward()
        return torch.bmm(self._top, self._head_transposed, out=self._logits).add_(self._head_bias)

    def backward(self, rows: Tensor, logit_gradients: Tensor) -> None:
        """Fill `gradients` with those of a loss of the last chunk.

        Args:
            rows: As `forward` was given.
            logit_gradients: float (members, answered steps * lanes, size), the loss's derivatives by the logits.
        """
        torch.bmm(logit_gradients.transpose(1, 2), self._top, out=self._head_gradient)
        torch.sum(logit_gradients, dim=1, out=self._head_bias_gradient)
        asked, first = torch.bmm(logit_gradients, self._head).view(self._asked_shape), self._first_answered
        for number in reversed(range(1, len(self.layers))):
            layer, below = self.layers[number], self.layers[number - 1]
            layer.backward(asked, first)
            weight, _, gradient = self._between[number - 1]
            torch.bmm(layer.all_gradients.transpose(1, 2), below.hidden_after, out=gradient)
            asked, first = torch.bmm(layer.all_gradients, weight).view_as(below.hidden[:, 1:]), 0
        self.layers[0].backward(asked, first)
        self._backward_rows(rows)

    def _backward_rows(self, rows: Tensor) -> None:
        """Add the gradients of the lowest gates to those of the rows that were added to them."""
        by_member = rows.transpose(0, 1)  # as the gradients stand
        if rows.is_cuda:
            self._multiply_rows(by_member)
        else:
            gradients = self.layers[0].gate_gradients[..., None, :].expand(*by_member.shape, -1)
            self._symbol_gradients.zero_()
            self._row_gradients.index_add_(0, by_member.flatten(), gradients.flatten(0, -2))
        self._zero_rows.zero_()  # what reads nothing changes no weight

    def _multiply_rows(self, rows: Tensor) -> None:
        """The same as a product with one-hot vectors: a GPU adds to a row in any order, and so with other last bits."""
        gradients = self.layers[0].all_gradients
        num_rows = len(self._row_gradients) // len(gradients)
        own = (rows % num_rows).flatten(1, 2)
        hot = gradients.new_zeros(*own.shape[:2], 1 + self._symbol_gradients.shape[2])
        hot.scatter_(2, own, 1)
        added = torch.bmm(hot[..., :-1].transpose(1, 2), gradients)  # without the row of zeros
        self._symbol_gradients.copy_(added.transpose(1, 2))
