"""A mode of torch's functions that rests where nothing is to be seen, and costs nothing then."""

from __future__ import annotations

import os
import weakref

from torch._C import _len_torch_function_stack
from torch.overrides import TorchFunctionMode, _get_current_function_mode

_OPEN: weakref.WeakSet[RestingMode] = weakref.WeakSet()


def _rest_in_child() -> None:
    for mode in _OPEN:
        mode.is_paused = True


os.register_at_fork(after_in_child=_rest_in_child)  # a loader worker makes batches, of which nobody asks it


class RestingMode(TorchFunctionMode):
    """Is begun and ended from outside, and rests in between, beside other modes that somebody may begin meanwhile.

    Attributes:
        is_paused: Whether nothing is followed: while an optimiser works, and when all has been watched.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_paused = False
        self._is_open = self._is_resting = False
        self._depth = 0  # of other modes that were open before

    def begin(self) -> None:
        """Follow from now on."""
        self.is_paused = False
        self._depth = _len_torch_function_stack()
        self._open()
        _OPEN.add(self)

    @property
    def is_open(self) -> bool:
        """Whether it is the mode of torch's functions, or will be again after a rest."""
        return self._is_open or self._is_resting

    def begin_again(self) -> bool:
        """Follow again, after the end, where no other mode was begun meanwhile; return whether that is so."""
        self.is_paused = False
        if not self._is_open and _len_torch_function_stack() == self._depth:
            self._open()
            _OPEN.add(self)
        return self._is_open

    def _open(self) -> None:
        self._is_open, self._is_resting = True, False
        self.__enter__()  # type: ignore[no-untyped-call]

    def rest(self) -> None:
        """Be no mode for a while, which costs nothing then, unless another one was begun meanwhile."""
        self.is_paused = True
        if self._is_open and _get_current_function_mode() is self:  # type: ignore[no-untyped-call]
            self._is_open, self._is_resting = False, True
            self.__exit__(None, None, None)

    def go_on(self) -> None:
        """Follow again, after a rest."""
        self.is_paused = False
        if self._is_resting and _len_torch_function_stack() == self._depth:
            self._open()

    def end(self, *, is_forced: bool = True) -> None:
        """Follow no more.

        Args:
            is_forced: If not, and another mode was begun meanwhile, this one only rests until that has ended.
        """
        self.is_paused = True
        is_uppermost = _get_current_function_mode() is self  # type: ignore[no-untyped-call]
        if self._is_open and (is_forced or is_uppermost):
            self._is_open = False
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._is_resting = False
        _OPEN.discard(self)
