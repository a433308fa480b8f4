"""A user's own model at work: its lists and its stream are answered as its evaluation is, whatever its state is."""

import io
import sys

import pytest
import torch
from support import runs

from echo_torch import EchoLSTM, EchoPredictor, OnlineEcho, RunDirectory, train
from echo_torch.cli import main
from echo_torch.errors import RuleError
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import most_likely

MODELS = ("GRU", "Nested", "Half")


def untrained(name, mode="aligned", **options):
    configuration = runs.short(mode, vocabulary_size=10, model=f"support.own_models:{name}", **options)
    return EchoPredictor(configuration, strong(Plan(configuration).model()))


def strong(model):
    """Weights so large that its answers hang on its state."""
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=2, generator=torch.Generator().manual_seed(weight.numel()))
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["lag", "masked", "whole", "sequence", "aligned"])
def test_lists_are_answered(name, mode):
    predictor = untrained(name, mode)
    symbols = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
    answers = predictor.answers(symbols, top_k=3)
    assert predictor.predict(symbols) == [answer.symbol for answer in answers]
    assert all(answer.top[0][0] == answer.symbol for answer in answers)
    assert len(predictor.explain(symbols)) == 10
    if mode == "aligned":
        logits, _ = predictor.model(torch.tensor([symbols]), predictor.model.initial_state(1))
        assert [answer.symbol for answer in answers] == most_likely(logits)[0, 1:].tolist()


@pytest.mark.parametrize("name", MODELS)
def test_a_stream_is_a_sequence_for_each_lane(name):
    """One number at a time as all at once; a lane that is reset begins anew, its neighbour goes on."""
    model = untrained(name).model
    online = OnlineEcho(model, 2, vocabulary_size=10)
    one, other = [3, -1, 4, 1, 5, 9], [2, 6, 5, 3, -1, 8]
    said = [online.step(pair) for pair in zip(one, other, strict=True)]
    for lane, symbols in enumerate((one, other)):
        logits, _ = model(torch.tensor([symbols]), model.initial_state(1))
        assert [pair[lane] for pair in said] == most_likely(logits)[0].tolist()
    online.reset([0])
    again = [online.step(pair) for pair in zip(one, other, strict=True)]
    assert [pair[0] for pair in again] == [pair[0] for pair in said]
    logits, _ = model(torch.tensor([other + other]), model.initial_state(1))
    assert [pair[1] for pair in again] == most_likely(logits)[0, 6:].tolist()
    online.reset()
    assert [online.step(pair) for pair in zip(one, other, strict=True)] == said


class InPlace(torch.nn.Module):
    """Writes into the state it is given, as a cache does."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def initial_state(self, num_lanes):
        return torch.zeros(num_lanes)

    def forward(self, symbols, state):
        state += symbols.clamp(min=0).sum(1)
        return torch.nn.functional.one_hot(state.long() % 10, 10)[:, None].float() * self.weight, state


@pytest.mark.parametrize("window", [None, 3])
def test_a_model_may_write_into_its_state(window):
    online = OnlineEcho(InPlace(), window_length=window, vocabulary_size=10)
    first = [online.step([3])[0] for _ in range(4)]
    assert first == ([3, 6, 9, 2] if window is None else [3, 6, 9, 9])
    online.reset()
    assert [online.step([3])[0] for _ in range(4)] == first


def test_a_vocabulary_that_nobody_names():
    with pytest.raises(
        RuleError, match="`vocabulary_size` must say how many symbols there are where the model does not"
    ):
        OnlineEcho(InPlace())
    assert OnlineEcho(EchoLSTM(7)).vocabulary_size == 7


def test_a_network_here_whose_forward_is_another_is_asked_by_it():
    class Contrary(EchoLSTM):
        def forward(self, symbols, state):
            logits, state = super().forward(symbols, state)
            return -logits, state

    torch.manual_seed(1)
    model = strong(Contrary(10, 8))
    logits, _ = model(torch.tensor([[3, 4]]), model.initial_state(1))
    online = OnlineEcho(model)
    assert [online.step([3])[0], online.step([4])[0]] == most_likely(logits)[0].tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "own"
    configuration = runs.short("aligned", vocabulary_size=10, updates=12, model="support.own_models:Nested")
    train(configuration, RunDirectory(path))
    return str(path)


@pytest.mark.parametrize("command", ["evaluate", "predict 1 2 3 --top 2 --explain --ahead", "stream"])
def test_commands_answer_when_the_model_is_named_again(run, capsys, monkeypatch, command):
    name, *rest = command.split()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"1\n2\nreset\n3\n")))
    assert main([name, *rest, "--run", run]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("--model must repeat support.own_models:Nested, the class that ")
    assert said.err.endswith("Give --model support.own_models:Nested if it is to be run.\n")
    assert main([name, *rest, "--run", run, "--model", "support.own_models:Nested"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert len(said.out.splitlines()) >= 3
