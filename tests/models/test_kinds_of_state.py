"""The contracts over every kind of state, with as many lanes as each other size: there a wrong axis is silent."""

import pytest
import torch
from support import contracts
from support.kinds_of_state import KINDS, SYMBOLS, make
from support.trainers import quiet_trainer

from echo_torch import EchoModule, EchoStream, LaneLayout, RandomSymbols, detach_state, evaluate
from echo_torch.diagnosis.probing.probes import probe
from echo_torch.lab.console import quiet_lightning
from echo_torch.models.encoding import count_asked, loss_sum, most_likely
from echo_torch.models.state import StateForm, leaves_of, names_of, reset_state, with_leaves

AXES = {
    "nn.GRU": [1],
    "nn.RNN": [1],
    "nn.LSTM": [1, 1],
    "LSTMCell": [0, 0],
    "list": [1, 1, 1, 1, None, None],
    "dict": [1, 0],  # fast, slow: in the order of the names
    "learned start": [1],
    "cache of rank 4": [0, 0, 0],
    "complex": [0],
}


def sizes(kind):
    """Every size in the state of two lanes, beside one that nothing else has."""
    found = {size for leaf in contracts.tensors(make(kind).initial_state(7)) for size in leaf.shape}
    return sorted(found - {1})


CASES = [(kind, num_lanes) for kind in KINDS for num_lanes in sizes(kind)]
every_case = pytest.mark.parametrize(("kind", "num_lanes"), CASES)


def symbols_for(num_lanes, num_steps=6):
    return torch.randint(-1, SYMBOLS, (num_lanes, num_steps), generator=torch.Generator().manual_seed(3))


def stream(num_lanes, num_chunks=None, split="training"):
    """Lanes that reset at different chunks."""
    layout = LaneLayout(num_lanes, 3, 1, reset_every=7, first_steps=[lane % 7 for lane in range(num_lanes)])
    return EchoStream(layout, RandomSymbols(SYMBOLS, split=split), num_chunks=num_chunks)


def read_lane_by_lane(model, chunk, states):
    """Each lane alone, with a state of its own and no axis to be mistaken; the logits of all lanes."""
    rows = []
    for lane, row in enumerate(chunk.symbols):
        state = model.initial_state(1) if lane not in states or chunk.starts[lane] else states[lane]
        logits, state = model(row[None], state)
        states[lane] = detach_state(state)
        rows.append(logits)
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_the_axes_are_found(kind):
    random_before = torch.get_rng_state()
    assert list(StateForm(make(kind).initial_state).lane_axes) == AXES[kind]
    torch.manual_seed(1)
    random_before = torch.get_rng_state()
    assert StateForm(lambda lanes: torch.rand(lanes, 3)).lane_axes == (0,)
    assert torch.equal(torch.get_rng_state(), random_before)


@every_case
def test_contracts(kind, num_lanes):
    model, symbols = make(kind), symbols_for(num_lanes)
    starts = torch.arange(num_lanes) % 2 == 1
    contracts.check_any_chunking(model, symbols, [1, 3, 2])
    contracts.check_reset_is_fresh(model, symbols, starts)
    contracts.check_lanes_do_not_touch(model, symbols, num_lanes - 1)
    contracts.check_no_gradient_across_a_detach(model, symbols)


@every_case
def test_types_stay_and_reset_values_are_those_of_the_start(kind, num_lanes):
    model = make(kind)
    _, state = model(symbols_for(num_lanes), model.initial_state(num_lanes))
    starts = torch.arange(num_lanes) == 1
    found = reset_state(detach_state(state), starts, model.initial_state)
    assert names_of(found) == names_of(state)
    assert type(found) is type(state)
    parts = (leaves_of(found), leaves_of(state), leaves_of(model.initial_state(num_lanes)), AXES[kind])
    for after, before, fresh, axis in zip(*parts, strict=True):
        if axis is None:
            assert after == before
            continue
        assert torch.equal(after.movedim(axis, 0)[starts], fresh.movedim(axis, 0)[starts])
        assert torch.equal(after.movedim(axis, 0)[~starts], before.movedim(axis, 0)[~starts])
    assert reset_state(state, torch.zeros(num_lanes, dtype=torch.bool), model.initial_state) is state


@every_case
def test_a_training_is_that_of_each_lane_alone(kind, num_lanes):
    expected, states, losses = make(kind), {}, []
    is_fused = not any(weights.is_complex() for weights in expected.parameters())
    optimizer = torch.optim.Adam(expected.parameters(), fused=is_fused)
    for chunk in stream(num_lanes, 8):
        logits = read_lane_by_lane(expected, chunk, states)
        loss = loss_sum(logits, chunk.targets) / count_asked(chunk.targets).clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    module = EchoModule(make(kind))
    with quiet_lightning():
        quiet_trainer(max_steps=8).fit(module, stream(num_lanes).loader())
    for one, two in zip(expected.parameters(), module.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@every_case
def test_an_evaluation_is_that_of_each_lane_alone(kind, num_lanes):
    model, states, correct = make(kind), {}, 0
    with torch.no_grad():
        for chunk in stream(num_lanes, 8):
            correct += int(most_likely(read_lane_by_lane(model, chunk, states)).eq(chunk.targets).sum())
    found = evaluate(model, stream(num_lanes, 8))
    assert found.asked > 0
    assert found.correct == correct


@every_case
def test_the_probe_finds_nothing(kind, num_lanes):
    found = probe(make(kind), SYMBOLS, num_lanes=num_lanes, num_steps=4)
    assert found.faults == ()
    assert not found.gradient_crosses


@pytest.mark.parametrize("kind", KINDS)
def test_the_probe_sees_a_wrong_axis(kind):
    """With as many lanes as features it works without an error, and mixes the lanes up."""
    axis = next(axis for axis in AXES[kind] if axis is not None)
    leaf = contracts.tensors(make(kind).initial_state(2))[0]
    other = max((place for place in range(leaf.ndim) if place != axis), key=lambda place: leaf.shape[place])

    def transposed(state, starts):
        return _swap_first(detach_state(state), axis, other)

    found = probe(make(kind), SYMBOLS, carry=transposed, num_lanes=leaf.shape[other], num_steps=3)
    assert found.faults


def _swap_first(state, axis, other):
    """The first tensor with two of its axes exchanged."""
    leaves, is_done = [], False
    for leaf in leaves_of(state):
        is_first = isinstance(leaf, torch.Tensor) and not is_done
        is_done |= is_first
        leaves.append(leaf.transpose(axis, other).contiguous() if is_first else leaf)
    return with_leaves(state, leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_is_the_same_to_the_bit(kind, tmp_path):
    def data(module):
        unbounded = stream(4)
        unbounded.start = module.cursor
        return unbounded.loader()

    whole, first, second = EchoModule(make(kind)), EchoModule(make(kind)), EchoModule(make(kind, seed=9))
    with quiet_lightning():
        quiet_trainer(max_steps=12).fit(whole, stream(4).loader())
        trainer = quiet_trainer(max_steps=5)
        trainer.fit(first, stream(4).loader())
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        late = stream(4)
        late.start = 5
        quiet_trainer(max_steps=12).fit(second, late.loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(leaves_of(whole.carry), leaves_of(second.carry), strict=True):
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    assert second.cursor == 12


def test_a_learned_start_learns():
    """A gradient reaches it from the lanes that were reset, and from no other."""
    model = make("learned start")
    form = StateForm(model.initial_state)
    _, state = model(symbols_for(3), model.initial_state(3))
    logits, _ = model(symbols_for(3), form.reset(detach_state(state), torch.tensor([False, True, False])))
    by_lane = [torch.autograd.grad(row.sum(), model.start, retain_graph=True, allow_unused=True)[0] for row in logits]
    assert [gradient.abs().sum() > 0 for gradient in by_lane] == [False, True, False]
    before = model.start.detach().clone()
    with quiet_lightning():
        quiet_trainer(max_steps=3).fit(EchoModule(model), stream(3).loader())
    assert not torch.equal(model.start, before)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("kind", ["nn.GRU", "LSTMCell", "dict", "cache of rank 4"])
def test_precisions(kind, precision, tmp_path):
    module = EchoModule(make(kind))
    with quiet_lightning():
        trainer = quiet_trainer(max_steps=5, precision=precision)
        trainer.fit(module, stream(4).loader())
        trainer.save_checkpoint(tmp_path / "half.ckpt")
        late = stream(4)
        late.start = 5
        again, whole = EchoModule(make(kind)), EchoModule(make(kind))
        resumed = quiet_trainer(max_steps=8, precision=precision)
        resumed.fit(again, late.loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
        quiet_trainer(max_steps=8, precision=precision).fit(whole, stream(4).loader())
    expected = {"bf16-true": torch.bfloat16, "64-true": torch.float64, "bf16-mixed": torch.float32}[precision]
    assert {weights.dtype for weights in module.parameters()} == {expected}
    for one, two in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.isfinite().all()
