"""A small state space model: a linear recurrence of complex numbers, each of which turns and decays at its own rate.

    python train.py --mode aligned --model examples.state_space:StateSpace --model-options "width=64"

Its state is one complex tensor (lanes, width): the lanes stand on axis 0, and nobody has to say so.
"""

import torch
from torch import Tensor, nn

from echo_torch import one_hot_encode


class StateSpace(nn.Module):
    """h(t) = turn * h(t-1) + input(x(t)); the answer is read off h(t) by two linear layers.

    Args:
        vocabulary_size: Number of different symbols.
        width: Complex numbers in the state.
    """

    def __init__(self, vocabulary_size: int, width: int = 64):
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.input = nn.Parameter(torch.randn(vocabulary_size, width, dtype=torch.complex64))
        self.decay = nn.Parameter(torch.linspace(-3, 3, width))  # as a logit
        self.angle = nn.Parameter(torch.linspace(0, torch.pi, width))
        self.read = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, vocabulary_size))

    def initial_state(self, num_lanes: int) -> Tensor:
        """Complex zeros, (lanes, width)."""
        return self.input.new_zeros(num_lanes, self.input.shape[1])

    def forward(self, symbols: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Symbols (lanes, steps) to logits (lanes, steps, vocabulary_size) and the state after the last step."""
        inputs = one_hot_encode(symbols, self.vocabulary_size).to(self.input.dtype) @ self.input
        turn = torch.polar(self.decay.sigmoid(), self.angle)
        states = []
        for step in inputs.unbind(dim=1):
            state = turn * state + step
            states.append(state)
        found = torch.stack(states, dim=1)
        return self.read(torch.cat([found.real, found.imag], dim=-1)), state
