"""The end of another process of a training, noticed by connections of our own: Gloo sometimes waits for the dead."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from echo_torch.ranks import Launch

_GRACE_SECONDS = 10.0  # that a process has to notice it by itself, as it mostly does, and to say more than is said here
_CONNECT_SECONDS = 5.0
_WORKS, _IS_DONE, _HAS_LEFT = b"w", b"d", b"l"  # what a process says of itself; it has left where an error ended it
_KEY = "bond"


class Bonds:
    """Connections of the first process with each other one, which the operating system cuts when either ends.

    Args:
        own: This process among all.
        store: What all of them read and write.
    """

    def __init__(self, own: Launch, store: Any) -> None:
        self._lock = threading.RLock()
        self._said: dict[socket.socket, bytes] = {}
        self._lost: set[socket.socket] = set()
        self._own = _IS_DONE
        self._end: Callable[[], None] = lambda: None
        os.register_at_fork(after_in_child=self._let_go)  # a loader process would hold them for one that was killed
        if own.rank == 0:
            self._await_others(own, store)
        else:
            self._join_first(own, store)

    @contextlib.contextmanager
    def hold(self, end: Callable[[], None]) -> Iterator[None]:
        """While this process works with the others: when one of them is gone and it goes on waiting, end it.

        Args:
            end: Ends this process; called in another thread.
        """
        self._end = end
        self._say(_WORKS)
        self._look()
        try:
            yield
        except BaseException:
            self._say(_HAS_LEFT)
            raise
        self._say(_IS_DONE)

    def _await_others(self, own: Launch, store: Any) -> None:
        secret = uuid.uuid4().hex
        try:
            listener = _listener(own.address)
        except OSError:
            store.set(_KEY, "")
            return
        store.set(_KEY, f"{listener.getsockname()[1]} {secret}")
        threading.Thread(target=self._accept, args=(listener, secret, own.num_ranks - 1), daemon=True).start()

    def _join_first(self, own: Launch, store: Any) -> None:
        if not (place := store.get(_KEY).decode()):
            return
        port, secret = place.split()
        try:
            connection = socket.create_connection((own.address, int(port)), timeout=_CONNECT_SECONDS)
            connection.sendall(secret.encode())
        except OSError:
            return
        self._tie(connection)

    def _accept(self, listener: socket.socket, secret: str, num_others: int) -> None:
        with listener:
            while num_others:
                connection, _ = listener.accept()
                connection.settimeout(_CONNECT_SECONDS)
                with contextlib.suppress(OSError):
                    if connection.recv(len(secret), socket.MSG_WAITALL) == secret.encode():
                        self._tie(connection)
                        num_others -= 1
                        continue
                connection.close()

    def _tie(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        # Of a machine without power no word comes.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        with self._lock:
            self._said[connection] = _IS_DONE
            with contextlib.suppress(OSError):
                connection.sendall(self._own)
        threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while said := connection.recv(1):
                self._hear(connection, said)
        self._hear(connection, b"")

    def _hear(self, connection: socket.socket, said: bytes) -> None:
        with self._lock:
            if said == _HAS_LEFT or (not said and self._said[connection] == _WORKS):
                self._lost.add(connection)
                self._tell(_HAS_LEFT, but=connection)  # the others know only the first one
            elif said:
                self._lost.discard(connection)
            self._said[connection] = said
        self._look()

    def _look(self) -> None:
        if self._lost and self._own == _WORKS:
            timer = threading.Timer(_GRACE_SECONDS, self._end_if_it_waits)
            timer.daemon = True
            timer.start()

    def _end_if_it_waits(self) -> None:
        if self._lost and self._own == _WORKS:
            self._end()

    def _say(self, word: bytes) -> None:
        with self._lock:
            self._own = word
            self._tell(word)

    def _tell(self, word: bytes, but: socket.socket | None = None) -> None:
        for connection in self._said:
            if connection is not but:
                with contextlib.suppress(OSError):  # it is gone
                    connection.sendall(word)

    def _let_go(self) -> None:
        for connection in self._said:
            with contextlib.suppress(OSError):
                os.close(connection.detach())
        self._said = {}


def _listener(address: str) -> socket.socket:
    """A listener where the others look for the first process; where that is no address of this machine, anywhere."""
    try:
        return socket.create_server((address, 0))
    except OSError:
        return socket.create_server(("", 0))
