"""An update that is derived by hand is the one that autograd and torch.optim.Adam make."""

import copy
import itertools

import pytest
import torch

from echo_torch import EchoLSTM, configure
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import count_asked, count_correct, loss_sum
from echo_torch.training.direct import DirectUpdate


def make_models(num_members, seed=1, **options):
    generator = torch.Generator().manual_seed(seed)
    return [EchoLSTM(**options, generator=generator) for _ in range(num_members)]


def some_chunks(num_chunks, num_members, num_lanes, num_steps, vocabulary_size, seed=3):
    """Symbols, targets and starts in which anything is missing, unasked or reset."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_chunks, num_members, num_lanes, num_steps)
    symbols = torch.randint(-1, vocabulary_size, shape, generator=generator)
    targets = torch.randint(vocabulary_size, shape, generator=generator)
    targets[torch.rand(shape, generator=generator) < 0.4] = -100
    targets[1:3] = -100  # a chunk in which nothing is asked, and one with a single target
    targets[2, :, 0, -1] = 1
    return symbols, targets, torch.rand(shape[:-1], generator=generator) < 0.3


def by_autograd(model, symbols, targets, starts, *, epsilon=1e-8, clip_norm=None):
    """The counts of each update of one network: (loss, correct, asked)."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, eps=epsilon)
    state, num_digits, found = model.initial_state(symbols.shape[1]), model.encoding.num_digits, []
    for read, asked, begins in zip(symbols, targets, starts, strict=True):
        state = type(state)(*(field.detach().masked_fill(begins.view(1, -1, 1), 0) for field in state))
        logits, state = model(read, state)
        loss, number = loss_sum(logits, asked, num_digits), int(count_asked(asked))
        found.append((loss.item(), int(count_correct(logits, asked, num_digits)), number))
        optimizer.zero_grad()
        (loss / max(1, number)).backward()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, clip_norm)
        optimizer.step()
    return found, optimizer


@pytest.mark.parametrize("clip_norm", [None, 0.3])
@pytest.mark.parametrize(
    "options",
    [
        {"vocabulary_size": 11, "hidden_size": 7},
        {"vocabulary_size": 11, "hidden_size": 7, "num_layers": 2, "init": "keras"},
        {"vocabulary_size": 120, "hidden_size": 5, "num_layers": 3, "base": 5},
    ],
)
def test_updates_are_those_of_autograd(options, clip_norm):
    """Weights, counts and what Adam remembers, in float64; each network as if it were alone."""
    epsilon = 1e-7 if options.get("init") == "keras" else 1e-8
    models = [model.double() for model in make_models(3, **options)]
    references = copy.deepcopy(models)
    symbols, targets, starts = some_chunks(8, 3, 4, 5, options["vocabulary_size"])
    update = DirectUpdate(models, num_lanes=4, num_steps=5, epsilon=epsilon, clip_norm=clip_norm)
    counts = update.make(symbols, targets, starts)
    for member, reference in enumerate(references):
        each = (symbols[:, member], targets[:, member], starts[:, member])
        expected, optimizer = by_autograd(reference, *each, epsilon=epsilon, clip_norm=clip_norm)
        assert [int(number) for number in counts.asked[:, member]] == [asked for *_, asked in expected]
        assert [int(number) for number in counts.correct[:, member]] == [correct for _, correct, _ in expected]
        assert counts.loss[:, member].tolist() == pytest.approx([loss for loss, *_ in expected], rel=1e-8)
        remembered = optimizer.state_dict()["state"]
        names = [name for name, parameter in reference.named_parameters() if parameter.requires_grad]
        for number, name in enumerate(names):
            torch.testing.assert_close(update.weights[name][member], reference.get_parameter(name), atol=1e-9, rtol=0)
            for moment, key in ((update.moments.mean, "exp_avg"), (update.moments.square, "exp_avg_sq")):
                torch.testing.assert_close(moment[name][member], remembered[number][key], atol=1e-10, rtol=1e-6)
        assert update.moments.step == remembered[0]["step"] == 8


@pytest.mark.parametrize("options", [{"hidden_size": 50}, {"hidden_size": 9, "num_layers": 2, "base": 7}])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize(("num_lanes", "num_steps"), [(3, 4), (1, 7), (5, 1), (10, 3), (32, 5)])
def test_bits_do_not_depend_on_the_company(options, clip_norm, num_lanes, num_steps):
    """Alone, the second of two, the last of nine: the same weights, counts and state after some updates.

    Processors multiply matrices of some sizes, and at some places in memory, in other ways than others.
    """
    symbols, targets, starts = some_chunks(5, 9, num_lanes, num_steps, 30)
    found = []
    for members, own in ((slice(8, 9), 0), (slice(7, 9), 1), (slice(0, 9), 8)):
        models = make_models(9, vocabulary_size=30, **options)[members]
        update = DirectUpdate(models, num_lanes=num_lanes, num_steps=num_steps, clip_norm=clip_norm)
        counts = update.make(symbols[:, members], targets[:, members], starts[:, members])
        state = torch.stack([field[:, own] for field in update.state])
        found.append((*(field[:, own] for field in counts), state, update.weights.values[own].clone()))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_the_length_of_a_block_changes_no_bit():
    found = []
    for lengths in ([12], [1] * 12, [5, 1, 6]):
        models = make_models(1, vocabulary_size=30, hidden_size=20)
        update = DirectUpdate(models, num_lanes=3, num_steps=4)
        blocks = zip(*(field.split(lengths) for field in some_chunks(12, 1, 3, 4, 30)), strict=True)
        counts = [update.make(*block) for block in blocks]
        found.append((torch.cat([each.loss for each in counts]), update.weights.values.clone()))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def test_only_the_last_columns_are_answered():
    """What is asked nowhere costs nothing and changes nothing."""
    symbols, targets, starts = some_chunks(6, 1, 4, 5, 20)
    targets[..., :3] = -100
    models, others = (make_models(1, vocabulary_size=20, hidden_size=8) for _ in range(2))
    for one in (models, others):
        one[0].double()
    DirectUpdate(models, num_lanes=4, num_steps=5, num_answered=2).make(symbols, targets, starts)
    DirectUpdate(others, num_lanes=4, num_steps=5).make(symbols, targets, starts)
    for one, other in zip(models[0].parameters(), others[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["lag", "aligned"])
def test_two_thousand_updates_beside_autograd(mode):
    """From the same weights in float32: the same losses at first, within rounding, and as much learned at the end."""
    plan = Plan(configure(mode))
    model = plan.model()
    direct, reference = copy.deepcopy(model), copy.deepcopy(model)
    chunks = list(itertools.islice(plan.training(), 2000))
    symbols, targets, starts = (torch.stack([chunk[field] for chunk in chunks]) for field in range(3))
    num_lanes, num_steps = symbols.shape[1:]
    update = DirectUpdate([direct], num_lanes=num_lanes, num_steps=num_steps, num_answered=plan.num_answered)
    counts = update.make(symbols[:, None], targets[:, None], starts[:, None])
    expected, _ = by_autograd(reference, symbols, targets, starts)
    mean = (counts.loss / counts.asked.clamp(min=1))[:100, 0]
    expected_mean = torch.tensor([loss / max(1, asked) for loss, _, asked in expected[:100]], dtype=torch.float64)
    assert (mean - expected_mean).abs().max() <= 1e-5
    found, other = plan.evaluate(direct.eval()), plan.evaluate(reference.eval())
    assert found.interval[0] <= other.accuracy <= found.interval[1]
    assert other.interval[0] <= found.accuracy <= other.interval[1]
