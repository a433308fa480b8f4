"""Several processes that train together: how they are started, watched and ended."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from echo_torch.errors import ENDINGS, Interrupted, UserError

_POLL_SECONDS = 0.5


_GRACE_SECONDS = 5.0  # that the others have to end when one has failed


class KilledError(UserError):
    """One of several processes was killed from outside, as a machine does that is out of memory."""


def raise_at_endings() -> None:
    """Let SIGTERM and SIGHUP end this process as Ctrl-C does, by an exception that cleans up on its way."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted(number)

    if threading.current_thread() is threading.main_thread():
        for number in ENDINGS:
            if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                signal.signal(number, interrupt)


def run_ranks(function: Callable[..., None], arguments: Sequence[Any], num_ranks: int) -> None:
    """Call a function in so many new processes, which find each other as if torchrun had started them.

    Ctrl-C, SIGTERM and SIGHUP are handed on to them as SIGTERM; a second one ends them at once. They end when this
    process ends.

    Args:
        function: Of a module, so that a new process can import it.
        arguments: Picklable.
        num_ranks: Processes.

    Raises:
        UserError: What the function raised in one of them; the others are ended.
        KilledError: If one was killed.
        Interrupted: The same.
        RuntimeError: If one ended in another way; the message is its traceback.
    """
    context = multiprocessing.get_context("spawn")
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(num_ranks)}
    common["TORCHELASTIC_USE_AGENT_STORE"] = "False"  # that of a torchrun, of which this process is left, is not theirs
    processes, reports = [], []
    with _ignore_ctrl_c():  # they inherit that: Ctrl-C reaches all processes of a terminal, and this one hands it on
        for rank in range(num_ranks):
            receiver, sender = context.Pipe(duplex=False)
            environment = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(num_ranks)}
            process = context.Process(target=_run_rank, args=(sender, os.getpid(), environment, function, arguments))
            process.start()
            sender.close()
            processes.append(process)
            reports.append(receiver)
    try:
        interrupt = _wait_for(processes)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.join()
    failures = [failure for failure in map(_read, reports) if failure is not None]
    if interrupt is not None and any(codes):
        messages = [failure.message for failure in failures if isinstance(failure, Interrupted)]
        raise Interrupted(interrupt, *messages[:1])
    # A rank that lost the others reports that alone; the reason is with the one that left them.
    reasons = [failure for failure in failures if not isinstance(failure, RuntimeError)]
    if reasons:
        raise reasons[0]
    for rank, code in enumerate(codes, start=1):
        if code is not None and code < 0:
            what = f"Process {rank} of {num_ranks} was killed by signal {-code}"
            raise KilledError(f"{what}, perhaps for want of memory.")
    if failures:
        raise failures[0]
    if any(codes):
        raise RuntimeError(f"The processes ended with exit codes {codes}.")


def _wait_for(processes: Sequence[Any]) -> int | None:
    """Wait until all have ended, or one has failed and the others had time to; return the signal that came."""
    deadline, interrupt = None, None
    while running := [process for process in processes if process.is_alive()]:
        try:
            wait([process.sentinel for process in running], timeout=_POLL_SECONDS)
            if deadline is None and any(process.exitcode for process in processes):
                deadline = time.monotonic() + _GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                break
        except KeyboardInterrupt as error:
            if interrupt is not None:
                raise
            interrupt = error.number if isinstance(error, Interrupted) else signal.SIGINT
        if interrupt is not None:  # again and again: one that has only begun to import does not listen yet
            for process in running:
                process.terminate()
    return interrupt


@contextlib.contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run_rank(
    report: Connection,
    parent: int,
    environment: dict[str, str],
    function: Callable[..., None],
    arguments: Sequence[Any],
) -> None:
    raise_at_endings()
    end_with_parent(parent)
    part_at_exit()
    os.environ.update(environment)
    try:
        function(*arguments)
    except (UserError, KeyboardInterrupt) as error:
        _send(report, error)
    except Exception as error:
        _send(report, RuntimeError("".join(traceback.format_exception(error))))


def _send(report: Connection, failure: BaseException) -> NoReturn:
    with contextlib.suppress(OSError):  # the parent may be gone
        report.send(failure)
    raise SystemExit(1)


def part_at_exit() -> None:
    """Leave the other processes before the interpreter ends, where this one was told to meet them and did not part.

    A thread of gloo that lets go of its last tensor later than that aborts the process (PyTorch's issue 190489).
    """

    def part() -> None:
        torch = sys.modules.get("torch")
        if torch is not None and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    atexit.register(part)


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, however that ended.

    Args:
        parent: Its process number.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read(report: Connection) -> BaseException | None:
    """What a rank that failed has sent."""
    try:
        failure: BaseException = report.recv()
    except (EOFError, OSError):
        return None
    return failure


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
    return port
