"""`watch` beside what compiles, records or maps: it steps aside, changes nothing and says so."""

import warnings

import pytest
import torch
from support.loops import Reader, detached, train
from torch import nn

from echo_torch import watch

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


def batches(number=6):
    return torch.randn(number, 4, 2, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:Using .torch.compile.module.. when there are global hooks:UserWarning")
@pytest.mark.parametrize("when", ["before", "before, not named", "inside"])
def test_what_is_compiled_is_left_alone(when):
    """A compiler would go through hooks too: none is there, and a sentence says so."""
    compile_before, model = torch.compile, Reader()
    compiled = None if when == "inside" else torch.compile(model, backend="eager")
    with watch(compiled if when == "before" else None) as seen:
        compiled = torch.compile(model, backend="eager") if compiled is None else compiled
        assert bool(torch.nn.modules.module._has_any_global_hook()) == (when == "before, not named")
        for batch in batches():
            compiled(batch, None)
    assert torch.compile is compile_before
    assert seen.faults == []
    assert seen.unknown[0].startswith("The script compiles by torch.compile")


class Core(nn.Module):
    """An LSTM as torch.jit compiles it."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 5)

    def forward(self, read: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]):
        return self.lstm(read, state)


def test_a_layer_that_jit_has_compiled_is_not_seen():
    """Nor is it taken for a recurrence that is written by hand."""
    model = Reader()
    model.core = torch.jit.script(Core())
    with watch() as seen:
        train(model, batches(), state=(torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)))
    assert seen.faults == []
    assert [text.split(",")[0] for text in seen.unknown] == ["core: it is compiled by torch.jit"]


def traced(model):
    """A traced model, and the warnings of that."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        return torch.jit.trace(model, batches()[0], check_trace=False), [str(one.message) for one in said]


def test_a_traced_layer():
    """Reading what it is given would be recorded with it."""
    model = nn.Sequential(nn.GRU(3, 4)).eval()
    plain, warned = traced(model)
    with watch() as seen:
        found, warned_too = traced(model)
        assert seen._calls.calls == []
        found(batches()[1])
    kinds, kinds_too = ([node.kind() for node in one.inlined_graph.nodes()] for one in (plain, found))
    assert (kinds, warned) == (kinds_too, warned_too)
    assert [text.split(",")[0] for text in seen.unknown] == ["Sequential: it is compiled by torch.jit"]


def test_a_layer_whose_weights_are_a_function_s_argument():
    """As torch.func differentiates it: its tensors are wrapped ones."""
    cell = nn.GRUCell(3, 4)
    weights = dict(cell.named_parameters())

    def loss(weights, sample):
        return torch.func.functional_call(cell, weights, (sample,)).mean()

    with watch() as seen:
        found = torch.func.grad(loss)(weights, batches()[0][0])
    assert (seen.fault, seen._calls.calls) == (None, [])
    assert all(found[name].shape == weights[name].shape for name in weights)


def test_what_follows_is_seen_again():
    model = Reader()
    with watch() as seen:
        torch.jit.trace(nn.Linear(3, 3), batches()[0], check_trace=False)
        train(model, batches(), hand_on=lambda state: detached(state) * 2)
    assert [finding.kind for finding in seen.faults] == ["foreign-state"]
