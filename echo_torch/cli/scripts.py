"""Somebody's script or module, run as Python itself would run it."""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from echo_torch.errors import RuleError, plain

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN = tuple(os.path.join(_PACKAGE, *folders, "") for folders in (("cli",), ("diagnosis", "watching")))
_IMPORTS = "<frozen importlib."
_OVERRIDES = os.path.join("torch", "overrides.py")
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed", "mpirun", "mpiexec", "srun", "horovodrun", "sh", "bash", "zsh")
_LAUNCHING_MODULES = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")
_TORCHRUN = "torchrun --nproc-per-node 2 -m echo_torch watch train.py"
_kept: list[ModuleType] = []  # the module whose place the script takes; its functions are still at work


class Script:
    """What `python` is asked to run: a file, or with -m a module.

    Args:
        words: A file and its arguments, or "-m", a module and its arguments.

    Raises:
        RuleError: If there is no such file, or it is no Python.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.is_module = words[:1] == ["-m"]
        self.name, self.arguments = words[self.is_module], list(words[self.is_module + 1 :])
        self._source = b"" if self.is_module else _read(self.name)
        if self.is_module and self.name in _LAUNCHING_MODULES:
            raise _launcher(self.name)

    def load(self) -> None:
        """Find and compile it; of a module the packages above it are imported.

        Raises:
            RuleError: If there is no such module.
        """
        sys.argv[:] = ["-m" if self.is_module else self.name, *self.arguments]
        if not sys.flags.safe_path:
            sys.path[0] = os.getcwd() if self.is_module else os.path.dirname(os.path.realpath(self.name))
        with _tracebacks_cleaned():
            found = self._module() if self.is_module else self._file()
        if found is None:
            raise RuleError(
                "module", "-m must name a module, or a package with a module __main__", repr(self.name),
                reason="so that there is something to run",
            )  # fmt: skip
        self._main, self._code = found

    def run(self) -> None:
        """Run it as `__main__`, which it stays until the process ends.

        What it raises goes on; the traceback that is printed at last has no frame of this program.
        """
        _kept.append(sys.modules["__main__"])
        sys.modules["__main__"] = sys.modules["__mp_main__"] = self._main
        with _tracebacks_cleaned():
            exec(self._code, self._main.__dict__)

    def _file(self) -> tuple[ModuleType, CodeType]:
        path = os.path.join(os.getcwd(), self.name)
        code = compile(self._source, path, "exec", dont_inherit=True)
        return _main(path, SourceFileLoader("__main__", path), None), code

    def _module(self) -> tuple[ModuleType, CodeType] | None:
        spec = _find(self.name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = _find(f"{self.name}.__main__")
        loader: Any = spec.loader if spec is not None else None
        code = loader.get_code(spec.name) if spec is not None and hasattr(loader, "get_code") else None
        if spec is None or code is None:
            return None
        sys.argv[0] = spec.origin or self.name
        return _main(spec.origin, loader, spec), code


def _main(path: str | None, loader: Any, spec: ModuleSpec | None) -> ModuleType:
    main = ModuleType("__main__")
    found = {"__file__": path, "__loader__": loader, "__spec__": spec, "__package__": spec.parent if spec else None}
    main.__dict__.update(found, __annotations__={}, __builtins__=builtins, __cached__=spec.cached if spec else None)
    return main


def _find(name: str) -> ModuleSpec | None:
    if name.startswith("."):
        return None
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise
    except ValueError:  # a module that has no spec
        return None


# --- what is no Python ------------------------------------------------------------------------------------------


def _read(name: str) -> bytes:
    """The source of a script.

    Raises:
        RuleError: If it cannot be read, or is something else.
    """
    word = os.path.basename(name)
    if word in _LAUNCHERS or word.endswith((".sh", ".bash", ".zsh")):
        raise _launcher(name)
    if re.fullmatch(r"pythonw?[\d.]*", word):
        raise RuleError("script", _RULE, repr(name), way_out="leave the word out: this runs it with the Python it has")
    try:
        with open(name, "rb") as file:
            source = file.read()
    except OSError as error:
        raise RuleError("script", _RULE, f"{name!r}: {error.strerror or error}") from None
    first = source.partition(b"\n")[0]
    if first.startswith(b"#!") and b"python" not in first and not word.endswith(".py"):  # those of uv name no Python
        raise _launcher(name)
    if word.endswith(".ipynb"):
        raise RuleError("script", _RULE, f"the notebook {name!r}", way_out=plain(_IN_A_CELL))
    if b"\0" in source:
        raise RuleError("script", _RULE, f"{name!r}, which is no text")
    return source


_RULE = "the script must be a file of Python source"
_IN_A_CELL = "watch inside of it: with echo_torch.watch(model) as seen"


def _launcher(name: str) -> RuleError:
    reason = "because only the process that trains can be watched"
    way_out = f"put the launcher first, as in: {_TORCHRUN}"
    return RuleError("script", _RULE, f"the launcher {name!r}", reason=reason, way_out=way_out)


# --- tracebacks -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _tracebacks_cleaned() -> Iterator[None]:
    """Whatever hook is there prints what is raised inside without frames of this program."""
    try:
        yield
    except SystemExit:
        raise
    except BaseException:
        hook = sys.excepthook

        def excepthook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            sys.excepthook = hook
            without_own_frames(error)
            sys.last_traceback = error.__traceback__
            hook(kind, error, error.__traceback__)

        sys.excepthook = excepthook
        raise


def without_own_frames(error: BaseException) -> None:
    """Take the frames of this program out of the traceback of an error, and of those that led to it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
        one.__traceback__ = _rebuilt(_others(_behind_this_program(one.__traceback__)))


def _behind_this_program(traceback: TracebackType | None) -> list[TracebackType]:
    """All entries, or, where this program has run the script, those behind its own beginning."""
    entries: list[TracebackType] = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    starts = [number for number, entry in enumerate(entries) if entry.tb_frame.f_code in _BEGINNINGS]
    return entries[starts[0] :] if starts else entries


_BEGINNINGS = (Script.load.__code__, Script.run.__code__)


def _others(entries: Sequence[TracebackType]) -> list[TracebackType]:
    """The entries of others, and without those by which torch or the import system came to an own one."""
    kept: list[TracebackType] = []
    is_behind_own = False
    for entry in entries:
        if _path_of(entry).startswith(_OWN):
            is_behind_own = True
            while kept and (_path_of(kept[-1]).startswith(_IMPORTS) or _path_of(kept[-1]).endswith(_OVERRIDES)):
                kept.pop()
            continue
        if is_behind_own and kept and kept[-1].tb_frame.f_code is entry.tb_frame.f_code:
            kept.pop()  # a function of torch, which is called once more where its call is followed
        is_behind_own = False
        kept.append(entry)
    return kept


def _path_of(entry: TracebackType) -> str:
    return entry.tb_frame.f_code.co_filename


def _rebuilt(entries: Sequence[TracebackType]) -> TracebackType | None:
    traceback: TracebackType | None = None
    for entry in reversed(entries):
        traceback = TracebackType(traceback, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return traceback
