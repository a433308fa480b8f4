"""Runs a tool that looks for faults on a program, and reads what it found."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError


@dataclasses.dataclass
class Tool:
    """A command that looks for faults in a program.

    Args:
        command: Its words, with `{json}` for the file that it writes and `{script}` for the program. The first word
            "python" is this Python. No shell reads it.
        timeout: Seconds that it may take for a program.

    Raises:
        RuleError: If the command does not say where the program and the file stand, or no time is given.
    """

    command: str
    timeout: float = 120.0
    _running: set[subprocess.Popen[bytes]] = dataclasses.field(default_factory=set)

    def __post_init__(self) -> None:
        for place in ("{json}", "{script}"):
            if place not in self.command:
                reason = "because a tool is told what to read and where to write"
                raise RuleError("tool", f"$tool must hold {place}", self.command, reason=reason)
        if not self.timeout > 0:
            raise RuleError("timeout", "$timeout must be more than 0 seconds", self.timeout)

    def findings(self, path: Path) -> list[dict[str, Any]]:
        """Run it on a copy of a program in a directory of its own.

        The copy is called program.py and has blank lines in place of its docstring, because names and docstrings tell
        the fault; the lines keep their numbers.

        Raises:
            ToolError: If it takes too long, or writes no findings.
        """
        with tempfile.TemporaryDirectory() as folder:
            script, found = Path(folder, "program.py"), Path(folder, "found.json")
            script.write_text(without_docstring(path.read_text()))
            said = self._run(self._words(script, found), Path(folder))
            if not found.exists():
                raise ToolError(f"it writes no findings ({said})")
            return read_findings(found)

    def _words(self, script: Path, found: Path) -> list[str]:
        words = [
            word.replace("{json}", str(found)).replace("{script}", str(script)) for word in shlex.split(self.command)
        ]
        return [sys.executable if words[0] == "python" else words[0], *words[1:]]

    def _run(self, words: list[str], folder: Path) -> str:
        """Run it to its end, whatever its exit code: three programs end in the error of their fault."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # several run at a time
        with (folder / "said").open("w+b") as said:
            try:
                process = subprocess.Popen(
                    words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=said, start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise ToolError(f"it cannot be started: {error}") from error
            self._running.add(process)
            try:
                code = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                kill(process)
                raise ToolError(f"it takes more than {self.timeout:g} s") from None
            finally:
                self._running.discard(process)
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            return ", ".join([f"exit code {code}", *last])

    def end(self) -> None:
        """Kill what still runs."""
        for process in list(self._running):
            kill(process)


class ToolError(Exception):
    """A tool that does not say what it found."""


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a tool and what it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def without_docstring(text: str) -> str:
    r"""A program with blank lines in place of its docstring.

    >>> without_docstring('"A fault."\nprint(1)\n')
    '\nprint(1)\n'
    """
    module = ast.parse(text)
    if ast.get_docstring(module) is None:
        return text
    first = module.body[0]
    lines = text.splitlines(keepends=True)
    lines[first.lineno - 1 : first.end_lineno] = ["\n"] * ((first.end_lineno or 1) - first.lineno + 1)
    return "".join(lines)


def read_findings(path: Path) -> list[dict[str, Any]]:
    """The findings in a file of a tool.

    Raises:
        ToolError: If they are not `{"findings": [{"kind": ...}, ...]}`.
    """
    try:
        findings = json.loads(path.read_text())["findings"]
        if isinstance(findings, list) and all(isinstance(finding["kind"], str) for finding in findings):
            return findings
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ToolError('what it writes is not {"findings": [{"kind": ...}, ...]}')
