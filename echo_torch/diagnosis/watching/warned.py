"""Warnings of functions that are followed: they name the line of the script that called, as without a watch."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import Any

import torch.overrides

_OVERRIDES = torch.overrides.__file__


class Warned:
    """Puts warnings right that would name a line of this program, when they are shown: before that nothing is done.

    So what is ignored of everybody, and wanted of the script alone, stays ignored.

    Args:
        own: Where functions are called in the script's place.
    """

    def __init__(self, *own: CodeType) -> None:
        self._own = own
        self._warnings: Any = warnings
        self._before: Callable[[Any], None] | None = None

    def begin(self) -> None:
        """Look at warnings from now on."""
        self._before = getattr(self._warnings, "_showwarnmsg", None)
        if self._before is not None:
            self._warnings._showwarnmsg = self._show

    def end(self) -> None:
        """Leave them as they were; where somebody has wrapped this meanwhile, it only hands on."""
        if self._before is not None and self._warnings._showwarnmsg == self._show:
            self._warnings._showwarnmsg = self._before
            self._before = None

    def _show(self, warning: Any) -> None:
        codes = [code for code in self._own if code.co_filename == warning.filename]
        own = _frame_of(codes) if codes else None
        caller = None if own is None else _caller_of(own)
        if own is not None and caller is not None:
            _warn_again(warning, own, caller)
        elif self._before is not None:
            self._before(warning)


def _frame_of(codes: Sequence[CodeType]) -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame


def _caller_of(own: FrameType) -> FrameType | None:
    """Who has called the function. One that is written in Python is there twice: by itself, and followed."""
    frame, is_in_python = own.f_back, False
    while frame is not None and frame.f_code.co_filename == _OVERRIDES:
        frame, is_in_python = frame.f_back, True
    return frame.f_back if frame is not None and is_in_python else frame


def _warn_again(warning: Any, own: FrameType, caller: FrameType) -> None:
    """In the name of the script, as filters tell modules apart and remember lines; that it was shown is forgotten."""
    own.f_globals.get("__warningregistry__", {}).clear()
    warnings.warn_explicit(
        warning.message,
        warning.category,
        caller.f_code.co_filename,
        caller.f_lineno,
        module=caller.f_globals.get("__name__"),
        registry=caller.f_globals.setdefault("__warningregistry__", {}),
        source=warning.source,
    )
