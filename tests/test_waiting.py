import io
import os
import sys
import threading
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from echo_torch import waiting
from echo_torch.waiting import Waiting, in_words


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "_REFRESH_SECONDS", 0.001)


@pytest.fixture
def err(monkeypatch):
    stream = io.StringIO()
    # Not `sys.stderr` itself, which pytest sets anew when the test begins.
    monkeypatch.setattr(waiting, "sys", SimpleNamespace(stderr=stream))
    return stream


def until(is_so):
    """Wait for the thread, without a limit of its own: a test that hangs is seen."""
    pause = threading.Event()
    while not is_so():
        pause.wait(0.001)


def test_who_waits_is_told_once_for_what_and_how_long(err):
    found = Waiting("Evaluating", 5000, "chunks", progress="line")
    found.done = 12
    with found:
        until(lambda: found.is_over)
        found.done = 13
    (line,) = err.getvalue().splitlines()
    assert line.startswith("Evaluating: 12 of 5,000 chunks in 0 s, about ")
    assert line.endswith(" in all.")


def test_a_first_step_that_takes_long_is_said_and_the_estimate_when_it_can_be_made(err):
    with Waiting("Training", 2, "updates", progress="line", step="1 row of 1,000,000 steps") as found:
        until(err.getvalue)
        assert not found.is_over
        found.done = 1
        until(lambda: found.is_over)
    first, second = err.getvalue().splitlines()
    assert first.startswith(
        "Training: the first of 2 updates, each 1 row of 1,000,000 steps, is not done after 0 s; how"
    )
    assert second.startswith("Training: 1 of 2 updates in 0 s, about ")


def test_where_nobody_knows_how_much_there_is(err):
    with Waiting("Drawing curve.png", None, "pictures", progress="line") as found:
        until(lambda: found.is_over)
    assert err.getvalue() == "Drawing curve.png: it is not done after 0 s, and how long it takes is not known.\n"


def test_the_estimate_is_what_it_took_so_far_for_each(monkeypatch):
    found = Waiting("Evaluating", 5000, "chunks", progress="line")
    monkeypatch.setattr(waiting.time, "monotonic", lambda: 2.0)
    found.done = 12
    assert found.sentence() == "Evaluating: 12 of 5,000 chunks in 2 s, about 14 minutes in all."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (119, "119 s"),
        (120, "2 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (10**6, "12 days"),
        (1e9, "11,574 days"),
    ],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_bar_moves_with_what_is_done_and_goes_when_it_ends(err):
    with Waiting("Evaluating", 50, "chunks", progress=True, step="3 rows of 7 steps") as found:
        until(lambda: "0/50 [00:00<?, ? chunks/s, each 3 rows of 7 steps]" in err.getvalue())
        found.done = 20
        until(lambda: "20/50" in err.getvalue())
    assert err.getvalue().endswith("\r")
    assert err.getvalue().split("\r")[-2].strip() == ""


def test_nothing_is_said_of_what_is_done_soon_or_to_nobody(err, monkeypatch):
    before = threading.active_count()
    with Waiting("Evaluating", 5, "chunks", progress=False):
        assert threading.active_count() == before
    monkeypatch.setattr(waiting, "PATIENCE_SECONDS", 3600)
    for progress in (True, "line"):
        with Waiting("Evaluating", 5, "chunks", progress=progress) as found:
            found.done = 5
        assert found.is_over
    assert err.getvalue() == ""
    monkeypatch.setattr(waiting.sys, "stderr", None)
    with Waiting("Evaluating", 5, "chunks", progress=True) as found:
        assert found.is_over


def test_a_reader_that_has_gone_ends_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    for progress in (True, "line"):
        with os.fdopen(os.dup(writer), "w", buffering=1) as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with Waiting("Evaluating", 5, "chunks", progress=progress) as found:
                until(lambda found=found: found.is_over)
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what it still holds
    os.close(writer)


def test_a_reader_that_goes_while_a_bar_moves_leaves_no_lock(monkeypatch):
    """Where a write fails, tqdm keeps its lock, and the next bar of another thread would wait for ever."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with Waiting("Evaluating", 5, "chunks", progress=True) as found:
            assert os.read(reader, 1)
            os.close(reader)
            until(lambda: found.is_over)
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what it still holds
    for lock in tqdm.get_lock().locks:
        assert lock.acquire(timeout=1)
        lock.release()


def test_an_error_ends_it_too(err):
    with pytest.raises(ZeroDivisionError), Waiting("Evaluating", 5, "chunks", progress="line") as found:
        raise ZeroDivisionError
    assert found.is_over


def test_what_is_shown_is_one_of_three():
    with pytest.raises(ValueError, match=r"`progress` must be True, False or 'line'\. Got 'lines'"):
        Waiting("Evaluating", 5, "chunks", progress="lines")
