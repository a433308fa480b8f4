import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from echo_torch import Chunk, EchoStream, RandomSymbols, WindowLayout, frame_windows, generate_sequence
from echo_torch.data import stream

ROOT = Path(__file__).parents[2]


def make_stream(*, length=25, window=5, lag=1, batch_size=5, seed=1, dropped=1, cut="chunk", **options):
    layout = WindowLayout(frame_windows(length, window, lag, num_dropped=dropped), length, batch_size, cut=cut)
    return EchoStream(layout, RandomSymbols(100, seed), **options)


def same(one: Chunk, two: Chunk) -> bool:
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(one, two, strict=True))


def test_shapes_and_types():
    chunk = next(iter(make_stream(batch_size=6)))
    assert chunk.symbols.shape == chunk.targets.shape == chunk.step.shape == (6, 5)
    assert chunk.starts.shape == chunk.sequence.shape == (6,)
    assert {field.dtype for field in chunk[:2] + chunk[3:5]} == {torch.int64}
    assert chunk.starts.dtype == torch.bool
    assert chunk.index == 0


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 60), st.integers(1, 6), st.integers(0, 9), st.integers(1, 8), st.sampled_from(["chunk", "sequence"])
)
def test_targets_are_the_symbols_lag_steps_ago(length, window, lag, batch_size, cut):
    if length < window:
        return
    stream = make_stream(length=length, window=window, lag=lag, batch_size=batch_size, dropped=0, cut=cut)
    sequences = [generate_sequence(length, sequence=number) for number in range(3)]
    num_asked = 0
    for chunk in itertools.islice(stream, 3 * stream.layout.chunks_per_sequence):
        for lane, number in enumerate(chunk.sequence.tolist()):
            for symbol, target, step in zip(
                chunk.symbols[lane].tolist(), chunk.targets[lane].tolist(), chunk.step[lane].tolist(), strict=True
            ):
                assert symbol == (-1 if step < 0 else sequences[number][step])
                if target != -100:
                    num_asked += 1
                    assert target == sequences[number][step - lag]
    assert num_asked == 3 * max(0, length - max(lag, window - 1))


@pytest.mark.parametrize("start", [1, 3, 4, 1000])
def test_start_at_k_is_skip_k(start):
    skipped = itertools.islice(make_stream(), start, start + 9)
    started = itertools.islice(make_stream(start=start), 9)
    assert all(same(one, two) for one, two in zip(skipped, started, strict=True))


def test_start_far_away_costs_nothing():
    chunk = next(iter(make_stream(start=4 * 10**15)))
    assert chunk.sequence[0] == 10**15
    assert chunk.symbols[0].tolist() == generate_sequence(6, sequence=10**15)[1:]


KILLED = """
import multiprocessing, os, sys
from echo_torch.experiments.configuration import configure
from echo_torch.lab.plan import Plan
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    chunks = iter(Plan(configure("lag")).training().loader(num_workers=2))
    next(chunks)
    print(*(worker.pid for worker in chunks._workers), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_with_a_killed_training(tmp_path, method):
    """Of a server that has forked them they are the children, and it lives on."""
    (tmp_path / "killed.py").write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "killed.py", method]
    found = subprocess.run(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, timeout=100, text=True)
    workers = found.stdout.split()
    assert (found.returncode, len(workers)) == (-signal.SIGKILL, 2)
    deadline = time.monotonic() + 30
    while any(Path("/proc", worker).exists() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("num_workers", [0, 1, 2, 3, 4])
def test_any_number_of_workers_gives_the_same_chunks(num_workers):
    expected = list(make_stream(num_chunks=4001, start=3990))
    found = list(make_stream(num_chunks=4001, start=3990).loader(num_workers=num_workers))
    assert len(found) == 11
    assert all(same(one, two) for one, two in zip(expected, found, strict=True))


@pytest.mark.parametrize(("num_ranks", "batch_size"), [(1, 6), (2, 6), (2, 5), (4, 6), (3, 2)])
def test_ranks_share_the_lanes(num_ranks, batch_size):
    whole = list(make_stream(batch_size=batch_size, num_chunks=9))
    shares = [
        list(make_stream(batch_size=batch_size, num_chunks=9, rank=r, num_ranks=num_ranks)) for r in range(num_ranks)
    ]
    for expected, *parts in zip(whole, *shares, strict=True):
        assert len({part.symbols.shape for part in parts}) == 1
        assert all(part.index == expected.index for part in parts)
        for name in ("symbols", "targets", "sequence", "step", "starts"):
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined[:batch_size], getattr(expected, name))
        extra = torch.cat([part.sequence for part in parts])[batch_size:]
        assert (extra == -1).all()


def test_batch_size_does_not_change_the_data():
    def asked(batch_size):
        chunks = make_stream(batch_size=batch_size, num_chunks=2 * -(-20 // batch_size))
        rows = [
            (int(sequence), int(step[-1]), int(target[-1]))
            for chunk in chunks
            for sequence, step, target in zip(chunk.sequence, chunk.step, chunk.targets, strict=True)
            if sequence >= 0
        ]
        return sorted(rows)

    assert asked(5) == asked(3) == asked(20) == asked(50)


def test_ends_where_it_should():
    assert len(list(make_stream(num_chunks=7))) == 7
    assert list(make_stream(num_chunks=7, start=7)) == []
    assert list(make_stream(num_chunks=0)) == []


def test_loader_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    next(iter(make_stream().loader()))
    assert torch.equal(before, torch.get_rng_state())


def test_a_users_own_source():
    table = np.arange(50).reshape(2, 25)

    def source(sequence, step):
        return np.where(step < 0, -1, table[sequence % 2, np.maximum(step, 0)])

    layout = WindowLayout(frame_windows(25, 5, 1), 25, 5)
    chunk = next(iter(EchoStream(layout, source)))
    assert chunk.symbols[0].tolist() == [0, 1, 2, 3, 4]
    assert chunk.targets[0, -1] == 3


@pytest.mark.parametrize("options", [{"start": -1}, {"num_chunks": -1}, {"rank": 2, "num_ranks": 2}, {"rank": -1}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="Got"):
        make_stream(**options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_outlive_a_signal_to_all(number):
    """The one that trains can end its update, also on a machine that has other things to do."""
    chunks = iter(make_stream().loader(num_workers=1))
    next(chunks)
    (worker,) = chunks._workers
    os.kill(worker.pid, number)
    for _ in range(20):
        next(chunks)
    assert worker.is_alive()


def test_a_worker_that_is_ended_does_not_live_for_ever(monkeypatch):
    monkeypatch.setattr(stream, "_SECONDS_AFTER_SIGTERM", 1)
    chunks = iter(make_stream().loader(num_workers=1))
    next(chunks)
    (worker,) = chunks._workers
    worker.terminate()
    with contextlib.suppress(RuntimeError):  # the loader may notice it first
        worker.join(60)
    worker.join(60)
    assert not worker.is_alive()
