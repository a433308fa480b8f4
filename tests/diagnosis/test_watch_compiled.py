"""`watch` beside what compiles, records or maps: it steps aside, changes nothing and says so."""

import copy
import warnings

import pytest
import torch
from support.loops import Reader, detached, train
from torch import nn

from echo_torch import watch
from echo_torch.diagnosis.watching.compiled import BY_FUNC, BY_SHAPES

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


@pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")  # as torch.export says of any recurrent layer
@pytest.mark.parametrize("strict", [False, True])
def test_what_is_exported_is_left_alone(strict):
    export_before, model, batch = torch.export.export, Reader(), batches()[0]
    with watch() as seen:
        train(model, batches())
        exported = torch.export.export(model, (batch,), strict=strict)
        assert not torch.nn.modules.module._has_any_global_hook()
    assert torch.export.export is export_before
    assert torch.equal(exported.module()(batch)[0], model(batch)[0])
    assert (seen.faults, seen.fault) == ([], None)
    assert seen.unknown[0].startswith("The script exports a model by torch.export")


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
    assert [text.split(",")[0] for text in seen.unknown] == ["core: compiled by torch.jit"]


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
    assert [text.split(",")[0] for text in seen.unknown] == ["Sequential: compiled by torch.jit"]


def test_a_layer_whose_weights_are_a_function_s_argument():
    """As torch.func differentiates it: its tensors are wrapped ones."""
    cell = nn.GRUCell(3, 4)
    weights = dict(cell.named_parameters())

    def loss(weights, sample):
        return torch.func.functional_call(cell, weights, (sample,)).mean()

    with watch() as seen:
        found = torch.func.grad(loss)(weights, batches()[0][0])
    assert (seen.fault, seen._calls.calls) == (None, [])
    assert seen.unknown == [f"GRUCell: {BY_FUNC}"]
    assert all(found[name].shape == weights[name].shape for name in weights)


class Stacked(nn.Module):
    """Two cells, stepped one above the other."""

    def __init__(self):
        super().__init__()
        self.below, self.above, self.head = nn.GRUCell(3, 4), nn.RNNCell(4, 4), nn.Linear(4, 1)

    def forward(self, steps):
        below = above = steps.new_zeros(steps.shape[1], 4)
        for step in steps:
            below = self.below(step, below)
            above = self.above(below, above)
        return self.head(above)


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("is_asked", [False, True])
def test_several_models_as_one(is_asked):
    """As of an ensemble by vmap; of its layers one sentence is said, and none that no layer was called."""
    models = [Stacked() for _ in range(2)]
    weights, buffers = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")

    def answer(weights, buffers, steps):
        return torch.func.functional_call(base, (weights, buffers), (steps,))

    with watch(base if is_asked else None) as seen:
        torch.func.vmap(answer, in_dims=(0, 0, None))(weights, buffers, batches()[0])
    assert seen.lines() == ["No fault was seen.", f"unknown: below, above: {BY_FUNC}"]
    with watch(models[0]) as seen:
        torch.func.vmap(answer, in_dims=(0, 0, None))(weights, buffers, batches()[0])
    assert seen.unknown == ["No recurrent layer of torch.nn was called, so nothing is known of any state."]


def test_a_model_that_is_mapped_beside_one_that_is_not():
    """Both have layers of the same names. Without torch.func weights from elsewhere are no reason not to look."""
    model, other = Stacked(), Stacked()
    with watch() as seen:
        torch.func.functional_call(model, dict(other.named_parameters()), (batches()[0],))
        torch.func.grad(lambda steps: other(steps).sum())(batches()[0])
    assert seen.layers == ["below of the first Stacked", "above of the first Stacked"]
    assert seen.unknown == [f"below of the second Stacked, above of the second Stacked: {BY_FUNC}"]


def test_a_layer_that_is_both_seen_and_mapped():
    model = Stacked()
    with watch() as seen:
        model(batches()[0])
        torch.func.grad(lambda steps: model(steps).sum())(batches()[0])
    assert seen.layers == ["below", "above"]
    assert seen.unknown == [f"below, above: {BY_FUNC}"]


@pytest.mark.parametrize("is_called", [False, True])
def test_shapes_alone(is_called):
    """Which is not worth a word where the model is called with values too."""
    with watch() as seen:
        Stacked().to("meta")(batches()[0].to("meta"))
        if is_called:
            Stacked()(batches()[0])
    assert seen.layers == (["below", "above"] if is_called else [])
    assert seen.unknown == ([] if is_called else [f"below, above: {BY_SHAPES}"])


def test_what_follows_is_seen_again():
    model = Reader()
    with watch() as seen:
        torch.jit.trace(nn.Linear(3, 3), batches()[0], check_trace=False)
        train(model, batches(), hand_on=lambda state: detached(state) * 2)
    assert [finding.kind for finding in seen.faults] == ["foreign-state"]
