"""The states of a training on a GPU are known again as those on the CPU are."""

import pytest
import torch
from torch import nn

from echo_torch import watch

NUM_CHUNKS, LANES, STEPS = 12, 4, 5


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.core, self.head = nn.Embedding(9, 6), nn.LSTM(6, 8), nn.Linear(8, 9)

    def forward(self, symbols, state):
        output, state = self.core(self.embedding(symbols), state)
        return self.head(output), state


def healthy(state):
    return tuple(field.detach() for field in state)


WAYS = {
    "none": healthy,
    "state-lost": lambda state: None,
    "lanes-moved": lambda state: tuple(field.detach().roll(1, dims=1) for field in state),
    "fields-swapped": lambda state: tuple(field.detach() for field in reversed(state)),
    "not-detached": lambda state: state,
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", WAYS)
def test_a_fault_has_its_name(kind, device):
    model = Model().to(device)
    text = torch.randint(9, (NUM_CHUNKS * STEPS + 1, LANES), generator=torch.Generator().manual_seed(1)).to(device)
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), None
    with watch(model) as seen:
        for begin in range(0, NUM_CHUNKS * STEPS, STEPS):
            logits, state = model(text[begin : begin + STEPS], state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[begin + 1 : begin + STEPS + 1].flatten())
            optimizer.zero_grad()
            loss.backward(retain_graph=kind == "not-detached")
            with torch.no_grad():  # not by the optimiser's step in place, which a graph that is kept would notice
                optimizer.step() if kind != "not-detached" else None
            state = WAYS[kind](state)
    assert {finding["kind"] for finding in seen.findings["findings"]} == ({kind} - {"none"})
