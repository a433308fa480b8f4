import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import contracts

from echo_torch import EchoLSTM, LSTMState
from echo_torch.experiments.configuration import configure, count_parameters
from echo_torch.lab.plan import Plan
from echo_torch.models.networks import EchoGRU, EchoMLP, EchoRNN

MODELS = {
    "lstm": lambda: EchoLSTM(11, 6, num_layers=2),
    "lstm, digits": lambda: EchoLSTM(11, 6, base=3),
    "gru": lambda: EchoGRU(11, 6, num_layers=2),
    "rnn": lambda: EchoRNN(11, 6, num_layers=2),
    "mlp": lambda: EchoMLP(11, 6, window_length=5),
    "memoryless": lambda: EchoMLP(11, 6, window_length=1),
}


@pytest.fixture(scope="module", params=MODELS)
def any_model(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(scope="module", params=[name for name in MODELS if name != "memoryless"])
def model_with_memory(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MODELS["lstm"]()


def draw_symbols(lanes, steps, seed=0):
    return torch.randint(-1, 11, (lanes, steps), generator=torch.Generator().manual_seed(seed))


def test_shapes(model):
    logits, state = model(draw_symbols(3, 5), model.initial_state(3))
    assert logits.shape == (3, 5, 11)
    assert state.hidden.shape == state.cell.shape == (2, 3, 6)
    assert isinstance(state, LSTMState)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 99))
def test_any_chunking(any_model, lanes, lengths, seed):
    contracts.check_any_chunking(any_model, draw_symbols(lanes, sum(lengths), seed), lengths)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.booleans(), min_size=1, max_size=7))
def test_reset_is_fresh(any_model, starts):
    contracts.check_reset_is_fresh(any_model, draw_symbols(len(starts), 4), torch.tensor(starts))


def test_lanes_do_not_touch(model_with_memory):
    contracts.check_lanes_do_not_touch(model_with_memory, draw_symbols(6, 4), lane=2)


def test_no_gradient_across_a_detach(model_with_memory):
    contracts.check_no_gradient_across_a_detach(model_with_memory, draw_symbols(3, 2))


def test_one_hot_is_the_meaning():
    """Inside is nn.LSTM with an input for each symbol: feeding it one-hot vectors gives the same."""
    model = EchoLSTM(7, 4)
    symbols = torch.tensor([[0, 6, 3]])
    output, _ = model.lstm(torch.nn.functional.one_hot(symbols, 7).float())
    assert model.lstm.input_size == 7
    assert torch.equal(model(symbols, model.initial_state(1))[0], model.head(output))


@pytest.mark.parametrize(
    "options",
    [
        *({"layers": layers, "init": init} for layers in (1, 2, 3) for init in ("torch", "keras")),
        {"model": "gru", "layers": 2},
        {"model": "rnn", "encoding": "digits", "base": 3},
        {"model": "mlp"},
        {"model": "mlp", "mlp_window": 2, "encoding": "digits"},
        {"model": "memoryless"},
    ],
)
def test_parameters_are_counted_right(options):
    configuration = configure("lag", vocabulary_size=13, hidden_size=7, **options)
    model = Plan(configuration).model()
    assert count_parameters(configuration) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_mlp_sees_its_window_and_nothing_before():
    torch.manual_seed(0)
    model, symbols = EchoMLP(11, 6, window_length=3), draw_symbols(1, 8).clamp(min=0)
    logits, _ = model(symbols, model.initial_state(1))
    for changed in range(8):
        other = symbols.clone()
        other[0, changed] = (other[0, changed] + 1) % 11
        moved = (model(other, model.initial_state(1))[0] != logits).any(dim=-1)[0]
        assert moved.nonzero().flatten().tolist() == [step for step in range(changed, changed + 3) if step < 8]


def test_keras_init_by_its_statistics():
    torch.manual_seed(0)
    model = EchoLSTM(100, 50, 2, init="keras")
    for layer, width in ((0, 100), (1, 50)):
        kernel = getattr(model.lstm, f"weight_ih_l{layer}")
        limit = (6 / (width + 200)) ** 0.5
        assert kernel.abs().max() <= limit
        assert kernel.abs().max() > 0.99 * limit
        assert abs(kernel.mean()) < 0.05 * limit
        assert abs(kernel.std() / (limit / 3**0.5) - 1) < 0.05
        recurrent = getattr(model.lstm, f"weight_hh_l{layer}")
        torch.testing.assert_close(recurrent.T @ recurrent, torch.eye(50), rtol=0, atol=1e-5)
        bias = getattr(model.lstm, f"bias_ih_l{layer}")
        assert torch.equal(bias, torch.cat([torch.zeros(50), torch.ones(50), torch.zeros(100)]))
        second = getattr(model.lstm, f"bias_hh_l{layer}")
        assert not second.requires_grad
        assert not second.any()
    assert not model.head.bias.any()
    assert 0.99 < model.head.weight.abs().max() / (6 / 150) ** 0.5 <= 1


def test_symbols_are_checked(model):
    state = model.initial_state(2)
    with pytest.raises(ValueError, match=r"0\.\.10.*Got 11"):
        model(torch.tensor([[11], [0]]), state)
    with pytest.raises(ValueError, match="must be integers"):
        model(torch.zeros(2, 3), state)
    with pytest.raises(ValueError, match=r"two axes, \(lanes, steps\).*Got shape \(3,\)"):
        model(torch.zeros(3, dtype=torch.int64), state)
    with pytest.raises(ValueError, match="at least one step"):
        model(torch.zeros(2, 0, dtype=torch.int64), state)


def test_state_is_checked(model):
    symbols = draw_symbols(6, 20)
    with pytest.raises(ValueError, match=r"`state` belongs to 8 lanes but `symbols` has 6, .* Got state.hidden of"):
        model(symbols, model.initial_state(8))
    with pytest.raises(ValueError, match="must be of type LSTMState"):
        model(symbols, tuple(model.initial_state(6)))
    wide = LSTMState(torch.zeros(2, 6, 6), torch.zeros(2, 6, 7))
    with pytest.raises(ValueError, match=r"\(layers, lanes, hidden_size\) = \(2, 6, 6\). Got state.cell"):
        model(symbols, wide)


@pytest.mark.parametrize("name", ["vocabulary_size", "hidden_size", "num_layers"])
def test_sizes_are_checked(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1"):
        EchoLSTM(**{name: 0})
    with pytest.raises(ValueError, match="`init` must be one of torch, keras"):
        EchoLSTM(init="random")
    with pytest.raises(ValueError, match="`num_lanes`"):
        EchoLSTM().initial_state(0)


@pytest.mark.gpu
def test_contracts_on_cuda(model):
    on_device = EchoLSTM(11, 6, 2).cuda()
    symbols = draw_symbols(4, 6).cuda()
    contracts.check_any_chunking(on_device, symbols, [1, 2, 3])
    contracts.check_reset_is_fresh(on_device, symbols, torch.tensor([True, False, True, False], device="cuda"))
