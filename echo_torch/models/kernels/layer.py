"""One layer of many LSTMs side by side: the forward and the backward pass, written out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.models.kernels.flat_weights import FlatWeights

_AT_ONCE = 64  # a multiple of what any processor computes at once, and of what it reads at once


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


def aligned(like: Tensor, outer: Sequence[int], inner: Sequence[int], *, with_gap: bool = False) -> Tensor:
    """Zeros (*outer, *inner), in which each block of shape `inner` begins where a processor's widest reads do.

    Where numbers lie side by side, 32 or so are computed at once, and the last few of a row alone: by other
    instructions, which can give other last bits. A product's last bits can hang on where in memory its matrices begin.
    Neither must depend on how many members there are.

    Args:
        like: What gives type and device.
        outer: Members, or steps and members.
        inner: What a member has: lanes and width, or all its steps, lanes and width.
        with_gap: Whether something stands between two blocks always. So it must in what a batched product writes to:
            where results have gaps, the members' matrices are multiplied by the same procedure as one alone, and where
            they have none by another, with other last bits on some processors.
    """
    numbers = math.prod(inner)
    of_block = -(-(numbers + with_gap) // _AT_ONCE) * _AT_ONCE
    return like.new_zeros(*outer, of_block)[..., :numbers].view(*outer, *inner)


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

    What the elementwise operations of one step write to has the steps first; what products read over all steps has the
    members first, and there steps and lanes can be read as one axis.

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
        gate_gradients: float (members, steps, lanes, 4 * hidden_size): da, after `backward`; `multiply` writes over it.
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
        new, outer, of_gates, lanes = weights.values, (num_steps, num_members), (num_lanes, 4 * size), (num_lanes, size)
        self.gates = aligned(new, outer, of_gates, with_gap=True)
        self._slopes = aligned(new, outer, of_gates)
        self.hidden = aligned(new, (num_members,), (1 + num_steps, *lanes))
        self.cell = aligned(new, (1 + num_steps, num_members), lanes)
        self.gate_gradients = aligned(new, (num_members,), (num_steps, *of_gates), with_gap=True)
        self._candidate, self._shown_cell, self._cell_slope = (aligned(new, outer, lanes) for _ in range(3))
        self._hidden_gradient, self._cell_gradient = aligned(new, (2, num_members), lanes, with_gap=True)
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

    def multiply(self, read: Tensor, transposed: Tensor) -> None:
        """Fill `gates` with W_ih x.

        Args:
            read: x, float (members, steps * lanes, width).
            transposed: W_ih^T, float (members, width, 4 * hidden_size).
        """
        torch.bmm(read, transposed, out=self.all_gradients)  # nobody needs those of the last chunk any more
        self.gates.copy_(self.gate_gradients.transpose(0, 1))  # the steps first

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
