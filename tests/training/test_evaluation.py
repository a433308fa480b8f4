import itertools

import pytest
import torch

from echo_torch import EchoLSTM, EchoStream, LaneLayout, LSTMState, RandomSymbols, evaluate
from echo_torch.experiments.configuration import configure
from echo_torch.intervals import wilson_interval
from echo_torch.lab.plan import Plan
from echo_torch.training.evaluation import answers, num_chunks_of, read, reset_at_every_chunk
from echo_torch.training.joined import joined


class Oracle:
    """Answers x(t-1) from its state; its first answer after a reset is symbol 0."""

    def __init__(self, size):
        self.size = size

    def initial_state(self, num_lanes):
        return LSTMState(torch.zeros(1, num_lanes, 1), torch.zeros(1, num_lanes, 1))

    def __call__(self, symbols, state):
        history = torch.cat([state.hidden[0].long(), symbols], dim=1)
        logits = torch.nn.functional.one_hot(history[:, :-1].clamp(min=0), self.size).float()
        hidden = history[None, :, -1:].float()
        return logits, LSTMState(hidden, hidden)


def test_an_oracle_is_right_wherever_the_answer_was_read():
    found = evaluate(Oracle(100), Plan(configure("lag")).evaluation())
    assert (found.correct, found.asked) == (20000, 20000)
    assert found.accuracy == 1


def test_and_at_chance_where_it_was_not():
    found = evaluate(Oracle(100), Plan(configure("stateful")).evaluation())
    assert found.asked == 24000
    assert abs(found.correct - 240) < 4 * (24000 * 0.01 * 0.99) ** 0.5


@pytest.mark.parametrize("mode", ["echo", "stateful", "lag"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"carry": "keep", "cut": "sequence"}])
def test_reading_sequences_side_by_side_changes_nothing(mode, options):
    configuration = configure(mode, **options)
    model = Plan(configuration).model()
    together = evaluate(model, Plan(configuration).evaluation(num_sequences=20))
    apart = [0, 0, 0.0]
    stream = Plan(configuration).evaluation(num_sequences=1)
    per_sequence = stream.num_chunks
    for number in range(20):
        stream.start, stream.num_chunks = number * per_sequence, (number + 1) * per_sequence
        one = evaluate(model, stream)
        apart = [apart[0] + one.correct, apart[1] + one.asked, apart[2] + one.loss_sum]
    assert (together.correct, together.asked) == (apart[0], apart[1])
    assert together.loss_sum == pytest.approx(apart[2], rel=1e-5)


def test_the_state_is_reset_where_a_chunk_says_so():
    """One sequence after another gives what each gives alone."""
    configuration = configure("stateful")
    model = Plan(configuration).model()
    stream = Plan(configuration).training()
    chunks = list(itertools.islice(stream, 8))
    both = evaluate(model, chunks)
    alone = [evaluate(model, chunks[:4]), evaluate(model, chunks[4:])]
    assert both.loss_sum == pytest.approx(sum(one.loss_sum for one in alone), rel=1e-7)  # float32, in another order


@pytest.mark.parametrize("mode", ["echo", "stateful", "lag", "masked", "whole", "sequence"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 7}])
def test_chunks_of_a_sequence_are_told_apart(mode, options):
    """Against one sequence after another, its k-th chunk picked out by hand."""
    configuration = configure(mode, hidden_size=8, vocabulary_size=10, **options)
    model = Plan(configuration).model()
    stream = Plan(configuration).evaluation(num_sequences=6)
    found = evaluate(model, stream)
    per_sequence = Plan(configuration).evaluation(num_sequences=1).num_chunks
    expected = [[0, 0] for _ in range(per_sequence)]
    for number in range(6):
        stream = Plan(configuration).evaluation(num_sequences=1)
        stream.start, stream.num_chunks = number * per_sequence, (number + 1) * per_sequence
        for place, (chunk, logits) in enumerate(read(model, stream)):
            expected[place][0] += int(logits.argmax(-1).eq(chunk.targets).sum())
            expected[place][1] += int((chunk.targets != -100).sum())
    assert found.by_chunk == tuple(map(tuple, expected))
    assert sum(asked for _, asked in found.by_chunk) == found.asked


def test_lanes_tell_ten_chunks_apart_and_lose_none():
    configuration = configure("aligned", chunk=2)
    model = Plan(configuration).model()
    found, whole = Plan(configuration).evaluate(model), evaluate(model, Plan(configuration).evaluation())
    assert len(found.by_chunk) == 10
    assert found.by_chunk[:9] == whole.by_chunk[:9]
    assert found.by_chunk[9] == tuple(map(sum, zip(*whole.by_chunk[9:], strict=True)))
    short = configure("aligned", chunk=2, reset_every=6, stagger=True)
    assert len(Plan(short).evaluate(model).by_chunk) == 3


def test_a_reset_evaluation_asks_the_same_of_an_empty_state():
    """The oracle of lag 1 answers the first step of a chunk from its state, the others from the chunk."""
    chunks = list(Plan(configure("aligned")).evaluation())
    carried, reset = evaluate(Oracle(100), chunks), evaluate(Oracle(100), reset_at_every_chunk(chunks))
    assert (carried.accuracy, carried.asked) == (1, reset.asked)
    first_steps = sum(int((chunk.targets[:, 0] != -100).sum()) for chunk in chunks)
    right_by_chance = sum(int((chunk.targets[:, 0] == 0).sum()) for chunk in chunks)
    assert reset.asked - reset.correct == first_steps - right_by_chance


def test_the_cut_of_training_is_none_of_an_evaluation():
    """Batch by batch and all of a sequence at once give the same answers."""
    model = Plan(configure("lag", lag=4)).model()
    assert len(Plan(configure("lag", lag=4, cut="sequence")).evaluate(model).by_chunk) == 4
    at_once = evaluate(model, itertools.islice(Plan(configure("lag", lag=4, cut="sequence")).training(), 50))
    apart = evaluate(model, itertools.islice(Plan(configure("lag", lag=4)).training(), 200))
    assert at_once.loss_sum == pytest.approx(apart.loss_sum, rel=1e-5)


def test_max_chunks_is_at_least_one():
    with pytest.raises(ValueError, match=r"`max_chunks` must be at least 1.*Got 0"):
        evaluate(EchoLSTM(), [], max_chunks=0)


def test_nothing_asked():
    found = evaluate(EchoLSTM(), [])
    assert (found.asked, found.accuracy, found.loss, found.interval) == (0, None, None, None)
    assert found.accuracy_by_chunk == []


def test_answers_come_in_the_order_of_the_steps():
    configuration = configure("lag", batch_size=7, cut="sequence")
    expected, predicted = answers(Oracle(100), Plan(configuration).evaluation(num_sequences=1))
    stream = Plan(configuration).evaluation(num_sequences=1)
    import numpy as np

    symbols = stream.source(np.array(0), np.arange(25)).tolist()
    assert expected == predicted == symbols[4:24]


def test_training_mode_and_gradients_are_left_alone():
    model = EchoLSTM(10, 4)
    evaluate(model, Plan(configure("lag", vocabulary_size=10)).evaluation(num_sequences=1))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_wilson_interval_against_known_values():
    """Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for correct, asked, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)):
        assert wilson_interval(correct, asked) == pytest.approx((low, high), abs=1e-4)
    assert wilson_interval(29, 29)[1] == 1.0


def test_many_chunks_of_one_sequence_cost_each_the_same(monkeypatch):
    """The counts by chunk grow with room to spare, not by a copy of all of them at every chunk."""
    stream = EchoStream(LaneLayout(1, 1, 0), RandomSymbols(3), num_chunks=600)
    cat, copied = torch.cat, []
    monkeypatch.setattr(torch, "cat", lambda parts, *rest, **more: copied.append(1) or cat(parts, *rest, **more))
    found = evaluate(EchoLSTM(3, 1), stream)
    assert len(copied) < 20
    assert [asked for _, asked in found.by_chunk] == [1] * 600


def test_it_is_known_how_many_chunks_an_evaluation_reads():
    stream = EchoStream(LaneLayout(2, 3, 1), RandomSymbols(3), num_chunks=7, start=2)
    assert num_chunks_of(stream) == num_chunks_of(reset_at_every_chunk(stream)) == num_chunks_of(list(stream)) == 5
    assert num_chunks_of(iter(stream)) is None
    assert num_chunks_of(EchoStream(LaneLayout(2, 3, 1), RandomSymbols(3))) is None


class ChunkByChunk:
    """A network that is no `EchoModel`, so that it reads each chunk by itself."""

    def __init__(self, model):
        self.initial_state, self.encoding, self._model = model.initial_state, model.encoding, model
        self.shapes = []

    def __call__(self, symbols, state):
        self.shapes.append(tuple(symbols.shape))
        return self._model(symbols, state)


class EverySecond(EchoStream):
    """A stream that iterates over other chunks than its blocks hold."""

    def __iter__(self):
        return itertools.islice(super().__iter__(), 0, None, 2)


def test_a_stream_that_iterates_over_other_chunks_is_asked_these():
    stream = EverySecond(LaneLayout(num_lanes=4, chunk_length=3, lag=0), RandomSymbols(10), num_chunks=8)
    model = EchoLSTM(10, 4)
    for chunks in (stream, reset_at_every_chunk(stream)):
        assert evaluate(model, chunks) == evaluate(model, list(chunks))
        assert evaluate(model, chunks).asked == 4 * 12


@pytest.mark.parametrize("source", [list, lambda stream: stream], ids=["chunks", "stream"])
@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("lag", {"batch_size": 7, "missing": 0.2}),
        ("stateful", {}),
        ("lag", {"cut": "sequence"}),
        ("whole", {"length": 9}),
        ("aligned", {"lanes": 4, "reset_every": 17}),
        ("aligned", {"lanes": 4, "reset_every": 17, "stagger": True}),
        ("aligned", {"chunk": 1, "lanes": 3, "model": "mlp", "mlp_window": 3}),
        ("sequence", {"lag": 3, "encoding": "digits"}),
    ],
)
def test_chunks_that_are_joined_are_answered_alike(monkeypatch, mode, options, is_reset, source):
    monkeypatch.setattr("echo_torch.training.evaluation._NUMBERS_AT_A_TIME", 20_000)  # so that there are several
    plan = Plan(configure(mode, vocabulary_size=20, hidden_size=8, **options))
    model = plan.model().eval()
    stream = plan.training()
    stream.num_chunks = 60
    chunks = reset_at_every_chunk(source(stream)) if is_reset else source(stream)
    alone = ChunkByChunk(model)
    found, expected = evaluate(model, chunks), evaluate(alone, chunks)
    assert (found.correct, found.asked, found.by_chunk) == (expected.correct, expected.asked, expected.by_chunk)
    assert found.loss_sum == pytest.approx(expected.loss_sum, rel=1e-6)
    assert len(alone.shapes) == 60
    together = list(joined(chunks, 1000))
    some_lane_always_starts = "stagger" in options and not is_reset
    assert len(together) <= 60 * (1 if some_lane_always_starts else 0.8)
    assert sum(one.number for one in together) == 60
    assert sum(one.chunk.symbols.numel() for one in together) == sum(chunk.symbols.numel() for chunk in chunks)


def test_no_more_chunks_are_held_than_are_joined():
    taken = []
    some = itertools.islice(Plan(configure("lag")).training(), 30)  # of 25 symbols
    chunks = (taken.append(chunk) or chunk for chunk in some)
    assert next(joined(chunks, 100)).number == 4
    assert len(taken) == 5  # with one more it is seen that there are enough


def test_what_is_joined_stands_where_it_stood():
    """Two of three sequences of two chunks side by side, in one row each."""
    chunks = list(itertools.islice(Plan(configure("stateful", batch_size=12)).training(), 6))
    one, last = joined(chunks, 1000)
    assert (one.number, last.number) == (4, 2)  # with the state of the last another chunk might go on
    assert one.place.tolist() == [[0, 1]] * 24
    assert torch.equal(
        one.chunk.step, torch.cat([torch.cat([a.step, b.step], 1) for a, b in (chunks[:2], chunks[2:4])])
    )
    assert one.chunk.sequence.tolist() == [0] * 12 + [1] * 12
    assert one.chunk.starts.all()
