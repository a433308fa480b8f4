import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import EXPERIMENTS, EchoLSTM, RandomSymbols, configure
from echo_torch.data.random_symbols import missing
from echo_torch.diagnosis.data_path.reaching import reach
from echo_torch.lab import plan
from echo_torch.lab.plan import Plan

small = st.integers(1, 12)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 20), st.integers(1, 7), st.integers(0, 3))
def test_padding_does_not_touch_the_answer(length, batch_size, lag):
    """The padded rows of `whole` give what each prefix gives alone."""
    if lag >= length:
        return
    torch.manual_seed(0)
    model = EchoLSTM(10, 5)
    c = configure("whole", length=length, batch_size=batch_size, lag=lag, vocabulary_size=10)
    sequence = torch.from_numpy(RandomSymbols(10)(np.array(0), np.arange(length)))
    asked = 0
    for chunk in itertools.islice(Plan(c).training(), Plan(c).num_updates // c.reading.sequences):
        assert chunk.starts.all()
        logits, _ = model(chunk.symbols, model.initial_state(len(chunk.symbols)))
        for lane, column in (chunk.targets >= 0).nonzero().tolist():
            alone, _ = model(sequence[None, : column + 1], model.initial_state(1))
            torch.testing.assert_close(logits[lane, column], alone[0, -1])
            assert chunk.targets[lane, column] == sequence[column - lag]
            asked += 1
    assert asked == length - lag


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(sorted(EXPERIMENTS)), st.floats(0.05, 0.9), st.integers(0, 5))
def test_a_missing_symbol_is_missing_everywhere_and_asked_all_the_same(mode, share, seed):
    plain = configure(mode, seed=seed, vocabulary_size=10)
    lossy = configure(mode, seed=seed, vocabulary_size=10, missing=share)
    for whole, chunk in itertools.islice(zip(Plan(plain).training(), Plan(lossy).training(), strict=False), 8):
        lost = torch.from_numpy(missing(seed, "training", chunk.sequence[:, None].numpy(), chunk.step.numpy(), share))
        assert torch.equal(chunk.symbols, whole.symbols.masked_fill(lost, -1))
        assert torch.equal(chunk.targets, whole.targets)
        assert torch.equal(chunk.step, whole.step)


def test_whole_sequences_side_by_side():
    c = configure("sequence", batch_size=3, length=8)
    chunks = list(itertools.islice(Plan(c).training(), 2))
    assert [chunk.sequence.tolist() for chunk in chunks] == [[0, 1, 2], [3, 4, 5]]
    assert all(chunk.symbols.shape == (3, 8) and chunk.starts.all() for chunk in chunks)


def test_the_share_that_is_missing_and_its_ceiling():
    lost = missing(1, "training", np.arange(1000)[:, None], np.arange(200), 0.3)
    assert abs(lost.mean() - 0.3) < 5 * (0.3 * 0.7 / lost.size) ** 0.5
    for mode in ("lag", "masked", "whole", "sequence", "aligned"):
        assert Plan(configure(mode, missing=0.3)).reach().gap == 0
        c = configure(mode, missing=0.3)
        read = asked = 0
        for chunk in Plan(c).evaluation():
            asked += int((chunk.targets >= 0).sum())
            places = chunk.step[chunk.targets >= 0] - 1
            sequences = chunk.sequence[:, None].expand_as(chunk.step)[chunk.targets >= 0]
            read += int((~missing(1, "evaluation", sequences.numpy(), places.numpy(), 0.3)).sum())
        assert Plan(c).evaluation_ceiling() == pytest.approx(read / asked + (1 - read / asked) / 100)


@pytest.mark.parametrize("mode", EXPERIMENTS)
@pytest.mark.parametrize("missing", [0, 0.3])
def test_the_ceiling_is_that_of_the_whole_evaluation(mode, missing):
    """Also where one sequence is looked at for all of them."""
    c = configure(mode, missing=missing, **({"lag": 6} if mode == "stateful" else {}))
    stream = Plan(c).evaluation()
    whole = reach(stream, c.reading.lag, vocabulary_size=c.vocabulary_size, max_chunks=stream.num_chunks)
    assert Plan(c).evaluation_ceiling() == whole.ceiling


def test_a_long_lag_costs_the_ceiling_nothing(monkeypatch):
    asked_for = []
    monkeypatch.setattr(plan, "reach", lambda *given, **options: asked_for.append(options["max_lag"]) or Found())
    Plan(configure("aligned", lanes=1, chunk=1, lag=1000, updates=1)).evaluation_ceiling()
    assert asked_for == [0]


class Found:
    ceiling = 1.0


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([mode for mode in sorted(EXPERIMENTS) if mode != "aligned"]), st.integers(2, 100), small)
def test_every_length_works_or_says_why(mode, length, batch_size):
    try:
        c = configure(mode, length=length, batch_size=batch_size, vocabulary_size=10)
    except ValueError as error:
        assert length < 6 and "`length` must be at least" in str(error)  # noqa: PT017, PT018
        return
    asked = sum(int((chunk.targets >= 0).sum()) for chunk in Plan(c).evaluation(num_sequences=3))
    first = {"stateful": 1, "lag": 5, "echo": 0}.get(mode, 1)
    assert asked == 3 * (length - first)
