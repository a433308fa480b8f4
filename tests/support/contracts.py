"""What every model with an explicit state must do, written once."""

import torch

from echo_torch.models.state import StateForm, detach_state, leaves_of, with_leaves


def run(model, symbols, state, lengths):
    """Read the symbols in pieces of the given lengths, the state handed on."""
    outputs = []
    for piece in symbols.split(lengths, dim=1):
        logits, state = model(piece, state)
        outputs.append(logits)
    return torch.cat(outputs, dim=1), state


def tensors(state):
    """The tensors of a state."""
    return [leaf for leaf in leaves_of(state) if isinstance(leaf, torch.Tensor)]


def hand_over(model, state, starts):
    """Detach, and reset the lanes that start."""
    return StateForm(model.initial_state).reset(detach_state(state), starts)


def check_any_chunking(model, symbols, lengths):
    """Whole sequence = any chunking = one step at a time: values, final state and gradients."""
    state = model.initial_state(len(symbols))
    results = []
    for split in ([symbols.shape[1]], lengths, [1] * symbols.shape[1]):
        model.zero_grad()
        logits, final = run(model, symbols, state, split)
        logits.square().mean().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        results.append((logits, *tensors(final), *gradients))
    for other in results[1:]:
        for expected, found in zip(results[0], other, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def check_reset_is_fresh(model, symbols, starts):
    """A reset lane equals a fresh lane, the others go on as if nothing had happened."""
    with torch.no_grad():
        _, state = model(symbols, model.initial_state(len(symbols)))
        kept, _ = model(symbols, state)
        fresh, _ = model(symbols, model.initial_state(len(symbols)))
        found, _ = model(symbols, hand_over(model, state, starts))
    torch.testing.assert_close(found[starts], fresh[starts])
    torch.testing.assert_close(found[~starts], kept[~starts])


def check_lanes_do_not_touch(model, symbols, lane):
    """A lane full of NaN leaves its neighbours exactly as they were."""
    with torch.no_grad():
        state = model.initial_state(len(symbols))
        expected, _ = model(symbols, state)
        poisoned = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves_of(state)]
        for leaf, axis in zip(poisoned, StateForm(model.initial_state).lane_axes, strict=True):
            if isinstance(leaf, torch.Tensor) and leaf.dtype != torch.bool:
                leaf.select(axis, lane).fill_(float("nan"))
        found, _ = model(symbols, with_leaves(state, poisoned))
    others = torch.arange(len(symbols)) != lane
    assert torch.equal(found[others], expected[others])
    assert found[lane].isnan().all()


def check_no_gradient_across_a_detach(model, symbols):
    """Exactly zero gradient reaches the state before a detach; without it some does."""
    with torch.no_grad():  # a state that holds something: a cache looks at nothing else
        _, first = model(symbols, model.initial_state(len(symbols)))
    leaves = [
        leaf.detach().clone().requires_grad_(leaf.dtype != torch.bool) if isinstance(leaf, torch.Tensor) else leaf
        for leaf in leaves_of(first)
    ]
    fields = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    _, carried = model(symbols[:, :1], with_leaves(first, leaves))
    logits, _ = model(symbols, detach_state(carried))
    assert all(g is None for g in torch.autograd.grad(logits.sum(), fields, allow_unused=True))
    logits, _ = model(symbols, carried)
    gradients = torch.autograd.grad(logits.sum(), fields, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)
