"""A process in which a script is watched: from the import of torch to the report at its end."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_torch.cli.imports import AfterImport
from echo_torch.cli.sigterm import Sigterm
from echo_torch.errors import RuleError, UserError
from echo_torch.files import write_text
from echo_torch.lab.pictures import form_of
from echo_torch.ranks import launch

if TYPE_CHECKING:
    from echo_torch.diagnosis.watching.watcher import Watch

EXIT_FOUND = 1
_LOADER_WORKERS = "torch.utils.data._utils.worker"
_NO_TORCH = "The script has not imported torch, so there was nothing to watch."


@dataclass(frozen=True)
class Asked:
    """What is asked of the watch.

    Attributes:
        updates: So many optimiser steps are watched.
        intended: Kinds of findings that are meant.
        fail_on: Kinds by which the process fails; "any" is each of them.
        json: The file for the findings.
        plot: The file for a picture of what was seen.
        is_stopped: Whether the script ends after the updates that are watched.
        is_forced: Whether a file may be overwritten.
    """

    updates: int
    intended: tuple[str, ...] = ()
    fail_on: tuple[str, ...] = ()
    json: str | None = None
    plot: str | None = None
    is_stopped: bool = False
    is_forced: bool = False


class Watched:
    """Watches what the script of this process trains, says at the end what was seen, and never gets in its way.

    Args:
        asked: What is asked.

    Raises:
        RuleError: If a file cannot be written, or would be overwritten.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked, self._launch = asked, launch()
        self._json = None if asked.json is None else self._free("json", asked.json)
        self._plot = None if asked.plot is None else self._free("plot", asked.plot)
        if self._json is not None and self._json == self._plot:
            raise RuleError("plot", "$plot must name another file than $json", repr(asked.plot))
        if asked.plot is not None:
            form_of(asked.plot)
        self._seen: Watch | None = None
        self._process, self._children, self._is_starting_one = os.getpid(), 0, False
        self._has_failed = self._has_ended = False
        self._imports = AfterImport({"torch": self._watch, "multiprocessing.process": self._count_children})

    def begin(self) -> None:
        """Be there when torch is imported, when processes are started, and when this one ends."""
        atexit.register(self._end)  # before the script can, so it comes last
        os.register_at_fork(after_in_parent=self._has_forked, after_in_child=self._leave_alone)
        Sigterm(self._end).begin()
        self._imports.begin()

    def fails(self) -> bool:
        """Whether a kind was found by which the process is to fail."""
        if not self._asked.fail_on or self._seen is None or os.getpid() != self._process:
            return False
        found: set[str] = set()
        with self._own_faults():
            found = {finding.kind for finding in self._seen.faults}
        return bool(found) if "any" in self._asked.fail_on else not found.isdisjoint(self._asked.fail_on)

    # --- while the script runs ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        with self._own_faults():
            from echo_torch.diagnosis.watching.watcher import Watch

            asked = self._asked
            seen = Watch(updates=asked.updates, intended=asked.intended, when_over=_stop if asked.is_stopped else None)
            self._seen = seen.__enter__()

    def _has_forked(self) -> None:
        self._children += not self._is_starting_one

    def _count_children(self) -> None:
        """Count processes where multiprocessing starts them, because not all are forked from this one.

        A worker of a loader makes batches and trains nothing, so nothing is missed there.
        """
        with self._own_faults():
            from multiprocessing.process import BaseProcess

            start = BaseProcess.start

            @functools.wraps(start)
            def counted(process: BaseProcess) -> None:
                loads_data, self._is_starting_one = _loads_data(process), True
                try:
                    start(process)
                    self._children += not loads_data
                finally:
                    self._is_starting_one = False

            processes: Any = BaseProcess
            processes.start = counted

    def _leave_alone(self) -> None:
        """In a forked child: watch nothing. That it says nothing at its end follows from its number."""
        with contextlib.suppress(Exception):
            self._imports.end()
            if self._seen is not None:
                self._seen.step_aside()

    # --- its end --------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self._has_ended or os.getpid() != self._process:
            return
        self._has_ended = True
        try:
            self._tell()
        except KeyboardInterrupt:
            _say("echo_torch watch was interrupted before it had told all.")

    def _tell(self) -> None:
        with self._own_faults():
            if self._seen is not None:
                self._seen.__exit__(None, None, None)
            lines, data = self._result()
            if not self._has_failed and not (self._seen is not None and self._seen.fault is not None):
                which = "" if self._launch is None else f", rank {self._launch.rank}"
                _say("\n".join([f"echo_torch watch{which}:", *(f"  {line}" for line in lines)]))
            self._write_files(data)

    def _result(self) -> tuple[list[str], dict[str, Any]]:
        """What was seen, for people and for programs."""
        if self._seen is None:
            sentence = _NO_TORCH if "torch" not in sys.modules else "The watch could not begin."
            return [sentence], {"findings": [], "unknown": [sentence]}
        data = self._seen.findings
        lines = self._seen.lines() if self._seen.has_calls or data["findings"] else data["unknown"]
        if self._children:
            several = f"{self._children:,} processes" if self._children > 1 else "a process"
            sentence = f"The script has started {several} of its own, of which nothing was seen."
            data["unknown"] = [*data["unknown"], sentence]
            lines = [*lines, f"unknown: {sentence}"] if self._seen.has_calls else lines
        return lines, data

    def _write_files(self, data: dict[str, Any]) -> None:
        """All files that were asked for."""
        if self._json is not None:
            self._check_free("json", self._json)  # the script may have made it meanwhile
            write_text(self._json, json.dumps(data, indent=2) + "\n")
        if self._plot is not None:
            self._check_free("plot", self._plot)
            if self._seen is None or not self._seen.has_calls:
                _say("echo_torch watch: no call of a recurrent layer was seen, so there is no picture.")
                return
            from echo_torch.lab.watch_figure import draw_watch

            draw_watch(self._seen, self._plot)

    def _free(self, name: str, file: str) -> Path:
        """The absolute path of a file that may be written, with the number of the rank if there are several."""
        path = Path(os.path.abspath(file))
        if self._launch is not None:
            path = path.with_name(f"{path.stem}-rank{self._launch.rank}{path.suffix}")
        if not file or path.is_dir() or file.endswith(("/", os.sep)):
            raise RuleError(name, f"${name} must name a file, not a directory", repr(file))
        self._check_free(name, path)
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise RuleError(name, f"${name} must name a file in a directory that can be written to", repr(file))
        return path

    def _check_free(self, name: str, path: Path) -> None:
        if path.exists() and not self._asked.is_forced:
            raise RuleError(
                name, f"${name} must name a file that is not there yet", repr(str(path)),
                reason="because nothing is overwritten", way_out="take another name, or say $force",
            )  # fmt: skip

    @contextlib.contextmanager
    def _own_faults(self) -> Iterator[None]:
        """Whatever goes wrong here is a line, and no business of the script."""
        try:
            yield
        except UserError as error:
            _say(f"echo_torch watch: {error.wording(lambda name: f'--{name}')}")
        except Exception as error:
            if not self._has_failed:
                _say(f"echo_torch watch broke off by a fault of its own ({type(error).__name__}: {error}).")
            self._has_failed = True


def _loads_data(process: Any) -> bool:
    """Whether a process is to be a worker of a loader of torch; once it is started, it does not tell any more."""
    return getattr(getattr(process, "_target", None), "__module__", "") == _LOADER_WORKERS


def _stop() -> None:
    raise SystemExit(0)


def _say(text: str) -> None:
    """Print to standard error as it was at the beginning, if it is there."""
    try:
        if sys.__stderr__ is not None:
            print(text, file=sys.__stderr__, flush=True)
    except RuntimeError:  # a signal has come while the script was printing
        os.write(2, f"{text}\n".encode())
    except (OSError, ValueError):  # nobody reads it, or it is closed
        return
