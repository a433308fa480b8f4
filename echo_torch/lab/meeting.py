"""How the processes that a launcher has started find each other, and for how long they wait."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from echo_torch.errors import Interrupted, RuleError, UserError
from echo_torch.lab.bonds import Bonds
from echo_torch.lab.processes import part_at_exit
from echo_torch.ranks import Launch, check_launcher, launch

RENDEZVOUS_TIMEOUT = 60.0
_LONGEST = 1e6
_POLL_SECONDS = 0.05
_SILENCE_SECONDS = 2.0  # after which it is said what is waited for
_EXIT_CODE = 2  # as of all that only the user can mend
_TOGETHER = timedelta(minutes=30)  # for one that the others wait for while they train; as Lightning has it


class MeetingError(UserError):
    """The others did not come; each process says so, because none of them knows whether the first one is there."""


class MeetingInterrupted(Interrupted):
    """Ctrl-C or SIGTERM while the others were waited for; said by each process, as `MeetingError` is."""


def check_timeout(seconds: object) -> float:
    """A number of seconds that a process may wait for the others.

    Raises:
        RuleError: If it is none.
    """
    try:
        number = (
            float(seconds) if isinstance(seconds, (str, int, float)) and not isinstance(seconds, bool) else math.nan
        )
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 < number <= _LONGEST:
        rule = f"$rendezvous_timeout must be a number of seconds above 0, at most {_LONGEST:,.0f}"
        got = repr(seconds) if isinstance(seconds, str) else seconds
        raise RuleError("rendezvous_timeout", rule, got, reason="because nobody waits for ever")
    return number


def meet(backend: str, seconds: float, say: Callable[[str], None] = lambda line: None) -> None:
    """Find the processes that were started with this one; where there are none, or they are found already, go on.

    Args:
        backend: What they talk by: "gloo" or "nccl".
        seconds: How long the others are waited for. Once all are there it has no effect any more.
        say: Is told in a sentence, once, that others are waited for.

    Raises:
        MeetingError: If they do not come in time, or are lost on the way.
        MeetingInterrupted: At Ctrl-C and SIGTERM.
    """
    import torch

    own = check_launcher()
    if own is None or own.num_ranks == 1 or torch.distributed.is_initialized():
        return
    try:
        store = _Meeting(own, seconds, say).store()
        device = torch.device("cuda", own.local_rank) if backend == "nccl" else None
        if device is not None:
            torch.cuda.set_device(device)  # else all on a machine would talk over its first one
        bonds = Bonds(own, store)
        torch.distributed.init_process_group(
            backend, store=store, rank=own.rank, world_size=own.num_ranks, timeout=_TOGETHER, device_id=device
        )
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        sentence = f"Interrupted while {own.num_ranks} processes were to meet at {_place(own)}; nothing was begun."
        raise MeetingInterrupted(number, sentence) from None
    except RuntimeError as error:
        raise _lost(own, error) from None
    part_at_exit()
    _bonds.append(bonds)


_bonds: list[Bonds] = []  # of the one meeting that a process can have


class LostError(MeetingError):
    """Another process is gone, perhaps the first one, so each of those that are left says so."""


@contextlib.contextmanager
def together(kept: Callable[[str], UserError]) -> Iterator[None]:
    """While the processes of a training that a launcher has started work together: none outlives the others.

    Args:
        kept: What is wrong -> the error that also says what is kept.

    Raises:
        LostError: If another one has ended. Where this process is not told so by what it waits for, it is ended.
    """
    if (own := launch()) is None or own.num_ranks == 1:
        yield
        return

    def lost() -> LostError:
        error = kept(f"Another one of the {own.num_ranks} processes that train together has ended, or is out of reach.")
        return LostError(error.message, error.way_out)

    def end() -> None:
        with contextlib.suppress(Exception):  # nobody may read it
            print(lost().message, file=sys.stderr, flush=True)
        os._exit(_EXIT_CODE)

    try:
        with _bonds[0].hold(end) if _bonds else contextlib.nullcontext():
            yield
    except RuntimeError as error:
        if is_lost_connection(error):
            raise lost() from None
        raise


def is_lost_connection(error: Exception) -> bool:
    """Whether it says that another process does not answer any more."""
    import torch

    # What Gloo throws has no class of its own.
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def wait_for_the_first() -> None:
    """Go on when the first process is ready: it may find something wrong that the others do not see.

    Raises:
        UserError: If another process has ended instead.
    """
    import torch

    if launch() is None or not torch.distributed.is_initialized() or torch.distributed.get_backend() != "gloo":
        return
    try:
        torch.distributed.barrier()
    except RuntimeError:
        raise UserError("Another one of the processes has ended before the training began.") from None


class _Meeting:
    """The store that all processes of a training write their names into."""

    def __init__(self, own: Launch, seconds: float, say: Callable[[str], None]) -> None:
        self._own, self._seconds, self._say = own, seconds, say
        self._begin = time.monotonic()
        self._found: Any = None
        self._error: Exception | None = None
        self._is_over = threading.Event()  # nobody waits for a connection any more
        self._is_said = False

    def store(self) -> Any:
        """The store, when all are there."""
        # Torch waits in C++, where no signal is heard, and a stranger that is silent at this port it awaits for ever.
        threading.Thread(target=self._connect, daemon=True).start()
        try:
            while self._found is None:
                if self._error is not None:
                    raise _lost(self._own, self._error)
                what = f"nobody answers at {_place(self._own)}, where the first of {self._own.num_ranks} is awaited"
                self._wait(what)
        finally:
            self._is_over.set()
        meeting_round = _Round(self._found, self._own)
        while not meeting_round.is_complete():
            self._wait(meeting_round.who_is_missing())
        self._found.set_timeout(_TOGETHER)
        return meeting_round.store

    def _wait(self, what: str) -> None:
        """Let a moment pass.

        Raises:
            MeetingError: If it was the last one.
        """
        waited = time.monotonic() - self._begin
        if waited > self._seconds:
            raise MeetingError(
                f"After {self._seconds:g} seconds {what}; nothing was begun.",
                "Start the others in time, or wait longer with $rendezvous_timeout, or "
                f"{self._own.way_to_be_alone} to train alone.",
            )
        if waited > _SILENCE_SECONDS and not self._is_said:
            self._say(f"{what[0].upper()}{what[1:]}; they are awaited for {self._seconds:g} seconds.")
            self._is_said = True
        time.sleep(_POLL_SECONDS)

    def _connect(self) -> None:
        from torch import distributed

        own = self._own
        is_host = own.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        try:
            if is_host:
                socket.create_server(("", own.port)).close()  # torch would write pages where the port is taken
            elif not self._is_answered():
                return
            left = timedelta(seconds=max(1.0, self._begin + self._seconds - time.monotonic()))
            self._found = distributed.TCPStore(  # type: ignore[attr-defined]
                own.address, own.port, own.num_ranks, is_host, left, wait_for_workers=False, multi_tenant=True
            )
        except Exception as error:  # of torch or of the operating system; it is said by who waits for it
            self._error = error

    def _is_answered(self) -> bool:
        """Whether somebody answers at the address while it is waited for; torch would write pages of each try."""
        while not self._is_over.wait(_POLL_SECONDS):
            with contextlib.suppress(OSError):
                socket.create_connection((self._own.address, self._own.port), timeout=1).close()
                return True
        return False


class _Round:
    """One try to meet. A store of torchrun outlives them, and what it holds may be of processes that were killed.

    The first process opens a round, the others write their names into the newest one, and it begins as soon as the
    first has read all names. So nobody takes names of a round before for those of the living. How often torchrun has
    started anew, by which it could be told too, its machines count each for itself.

    Attributes:
        store: What the processes of this round write into.
    """

    def __init__(self, store: Any, own: Launch) -> None:
        self._all, self._own, self._name = store, own, uuid.uuid4().hex
        self._number = 0
        self.store: Any = None

    def is_complete(self) -> bool:
        """Whether all are there; to be asked again and again."""
        if self._own.rank != 0:
            self._join(self._all.add("echo_torch/rounds", 0))
            return self._has_begun() and self._name in self.store.get("begun").decode().split()
        if self.store is None:
            self._join(self._all.add("echo_torch/rounds", 1))
        if len(here := self._here()) == self._own.num_ranks:
            self.store.set("begun", " ".join(self.store.get(key).decode() for key in here))
            return True
        return False

    def who_is_missing(self) -> str:
        """What is waited for, a clause."""
        if self._number == 0 or self._has_begun():
            return f"the first of {self._own.num_ranks} processes has not come to {_place(self._own)}"
        return f"only {len(self._here())} of {self._own.num_ranks} processes are at {_place(self._own)}"

    def _join(self, number: int) -> None:
        if number == self._number:
            return
        from torch import distributed

        self._number = number
        self.store = distributed.PrefixStore(f"echo_torch/{number}", self._all)  # type: ignore[attr-defined]
        if not self._has_begun():
            self.store.set(f"here/{self._own.rank}", self._name)

    def _here(self) -> list[str]:
        keys = [f"here/{rank}" for rank in range(self._own.num_ranks)]
        return [key for key in keys if self.store.check([key])]

    def _has_begun(self) -> bool:
        return self.store is not None and bool(self.store.check(["begun"]))


def _place(own: Launch) -> str:
    return f"{own.address}:{own.port}"


def _lost(own: Launch, error: Exception) -> MeetingError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        what = f"The first of {own.num_ranks} processes cannot wait at {_place(own)}: the port is in use"
        return MeetingError(f"{what}.", "Set another MASTER_PORT for all of them.")
    line = " ".join(str(error).split("\n")[0].split())[:200]
    what = f"The {own.num_ranks} processes that were to meet at {_place(own)} have lost each other"
    return MeetingError(f"{what} ({type(error).__name__}: {line}); nothing was begun.", "Start them all again.")
