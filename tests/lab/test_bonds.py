"""Processes of one training do not outlive each other, also where what they wait for does not tell them."""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from support import processes

from echo_torch.lab import bonds
from echo_torch.lab.bonds import Bonds
from echo_torch.ranks import Launch

GRACE = 0.5


class Notes:
    """A store of torch's, as far as it is needed: notes in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def set(self, key, value):
        note = self.folder / f"{key}.new"
        note.write_text(value)
        note.rename(self.folder / key)

    def get(self, key):
        while not (self.folder / key).exists():
            time.sleep(0.01)
        return (self.folder / key).read_bytes()


def one_of_three(rank, folder, what):
    """Works for a minute, unless it is told to do something else; it would not notice by itself what the others do."""
    bonds._GRACE_SECONDS = GRACE
    own = Bonds(Launch(rank, rank, 3, "127.0.0.1", 1, 3), Notes(folder))
    with contextlib.suppress(ZeroDivisionError), own.hold(lambda: os._exit(7)):
        Path(folder, f"works-{rank}").touch()
        while len(list(Path(folder).glob("works-*"))) < 3:
            time.sleep(0.01)
        time.sleep(0.3)  # by now each has heard of the others
        if what == "fails":
            raise ZeroDivisionError
        time.sleep({"ends": 0, "is done": 0, "waits": 60, "is slow": 1.5}[what])
    if what in ("fails", "is done"):
        time.sleep(60)
    sys.exit(0)


@pytest.fixture
def start(tmp_path):
    """Begins three of them, and ends those that are left."""
    started = []

    def begin(*whats):
        for rank, what in enumerate(whats):
            process = processes.SPAWN.Process(target=one_of_three, args=(rank, str(tmp_path), what))
            process.start()
            started.append(process)
        assert processes.wait_until(lambda: len(list(tmp_path.glob("works-*"))) == 3, started[0])
        return started

    yield begin
    for process in started:
        process.kill()
        process.join()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1, 2])
def test_a_killed_process_ends_those_that_wait_for_it(start, killed):
    """Whether it is the first, which all know, or another, of which the first tells."""
    all_of_them = start("waits", "waits", "waits")
    time.sleep(0.3)
    os.kill(all_of_them[killed].pid, signal.SIGKILL)
    codes = [processes.finish(process, 20) for process in all_of_them]
    assert codes == [-9 if rank == killed else 7 for rank in range(3)]


@pytest.mark.slow
def test_one_that_an_error_has_ended_is_no_more_waited_for(start):
    """Although its process lives on, as that of somebody who catches the error."""
    first, failed, third = start("waits", "fails", "waits")
    assert [processes.finish(first, 20), processes.finish(third, 20)] == [7, 7]
    assert failed.is_alive()


@pytest.mark.slow
def test_the_first_tells_of_another_also_when_it_is_done_itself(start):
    first, killed, third = start("is done", "waits", "waits")
    time.sleep(0.5)
    os.kill(killed.pid, signal.SIGKILL)
    assert processes.finish(third, 20) == 7
    assert first.is_alive()


@pytest.mark.slow
def test_one_that_is_done_ends_nobody(start):
    """The others may have something left to do, the first one above all."""
    assert [processes.finish(process, 20) for process in start("is slow", "ends", "is slow")] == [0, 0, 0]


def test_without_a_connection_there_is_no_bond(tmp_path):
    """Nobody is at the port; what is there may be a wall."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        Notes(tmp_path).set("bond", f"{server.getsockname()[1]} secret")
    own = Bonds(Launch(1, 1, 2, "127.0.0.1", 1, 2), Notes(tmp_path))
    with own.hold(lambda: pytest.fail("it was ended")):
        pass


def test_a_stranger_is_no_process_of_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(bonds, "_GRACE_SECONDS", 0.0)
    ended = []
    own = Bonds(Launch(0, 0, 2, "127.0.0.1", 1, 2), Notes(tmp_path))
    port, secret = Notes(tmp_path).get("bond").decode().split()
    with own.hold(lambda: ended.append(1)):
        with socket.create_connection(("127.0.0.1", int(port))) as stranger:
            stranger.sendall(b"x" * len(secret) + b"w")
        with socket.create_connection(("127.0.0.1", int(port))) as other:
            other.sendall(secret.encode() + b"w")
            assert other.recv(1) == b"w"
            assert ended == []
        deadline = time.monotonic() + 20
        while not ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with pytest.raises(OSError, match="refused"):  # nobody else is awaited
        socket.create_connection(("127.0.0.1", int(port)))
