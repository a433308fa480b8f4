"""Which faults of stateful training does a tool name, and what does it say of programs that have none?

    python benchmarks/faults/score.py [--tool COMMAND] [--only NAME ...] [--json FILE]

Runs a tool over the faulty and healthy programs of tests/reference/cases and over the mended twins beside this file.
README.md, here too, says what a tool must write and how it is scored.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from running import Tool, ToolError
from tqdm import tqdm

from echo_torch.errors import RuleError, UserError, suggest
from echo_torch.files import write_text
from echo_torch.lab.run_directory import check_new_file

FAULTS = Path(__file__).parent
CASES = FAULTS.parents[1] / "tests" / "reference" / "cases"
TOOL = "python -m echo_torch watch --json {json} {script}"


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that a tool is run on.

    Args:
        name: The case, as "01_one_step_windows"; a twin has the name of its case.
        role: "faulty", "mended" or "healthy".
        path: The file.
        right: Kinds of which naming one is right; empty where nothing has to be named.
        also: Further kinds that are true.
    """

    name: str
    role: str
    path: Path
    right: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Score:
    """What a tool says of a program, beside what is true of it.

    Args:
        kinds: The kinds that it names, each once, in the order in which it names them.
        right: Whether one of them is a right one; None where nothing has to be named.
        bonus: Whether one of them is true where nothing has to be named; None where nothing true can be named, or where
            something has to be.
        false_alarms: Those that are not true.
        failure: Why it says nothing; empty where it speaks.
    """

    kinds: tuple[str, ...] = ()
    right: bool | None = None
    bonus: bool | None = None
    false_alarms: tuple[str, ...] = ()
    failure: str = ""

    @property
    def verdict(self) -> str:
        """The score in words."""
        if self.failure:
            return f"failed: {self.failure}"
        words = []
        if self.right is not None:
            words.append("right" if self.right else "wrong")
        elif self.bonus is not None:
            words.append("bonus" if self.bonus else "no bonus")
        elif not self.false_alarms:
            words.append("right")
        if self.false_alarms:
            words.append(f"false alarm: {', '.join(self.false_alarms)}")
        return ", ".join(words)


def score(findings: Iterable[dict[str, Any]], expected: dict[str, Sequence[str]]) -> Score:
    """Compare the kinds that were named with those that are true.

    Right: a kind stands in `right`. A kind outside `right` and `also` is a false alarm.

    >>> score([{"kind": "rows-skip"}, {"kind": "axes"}], {"right": ["rows-skip"], "also": []}).verdict
    'right, false alarm: axes'
    >>> score([], {"right": ["rows-skip"], "also": []}).verdict
    'wrong'
    >>> score([], {"right": [], "also": []}).verdict
    'right'

    Args:
        findings: What the tool found, each with its `kind`; several may have the same.
        expected: `right` and `also`, as in expected.json; both are empty for a program without a fault.

    Returns:
        The score.
    """
    kinds = tuple(dict.fromkeys(finding["kind"] for finding in findings))
    right, also = expected["right"], expected["also"]
    return Score(
        kinds,
        right=any(kind in right for kind in kinds) if right else None,
        bonus=any(kind in also for kind in kinds) if also and not right else None,
        false_alarms=tuple(kind for kind in kinds if kind not in [*right, *also]),
    )


def programs(only: Sequence[str] = ()) -> list[Program]:
    """The cases in order, each faulty one with its mended twin after it.

    Args:
        only: Names of cases, whole or their first part, as "01"; empty: all.

    Raises:
        RuleError: If a name is that of no case.
    """
    cases = json.loads((CASES / "expected.json").read_text())
    names = [file.removesuffix(".py") for file in cases]
    for name in only:
        if not any(_is_named(known, name) for known in names):
            way_out = f"the cases are {', '.join(known.split('_')[0] for known in names)}"
            raise RuleError("only", "$only takes names of cases", f"{name!r}{suggest(name, names)}", way_out=way_out)
    found = []
    for name in names:
        if only and not any(_is_named(name, asked) for asked in only):
            continue
        file = f"{name}.py"
        right, also = (tuple(cases[file][kinds]) for kinds in ("right", "also"))
        is_healthy = not right and not also
        found.append(Program(name, "healthy" if is_healthy else "faulty", CASES / file, right, also))
        if not is_healthy:
            found.append(Program(name, "mended", FAULTS / "mended" / file))
    return found


def _is_named(name: str, asked: str) -> bool:
    return asked.removesuffix(".py") in (name, name.split("_")[0])


def scored(tool: Tool, program: Program) -> Score:
    """Run a tool on a program, and score what it says."""
    try:
        findings = tool.findings(program.path)
    except ToolError as error:
        return Score(failure=str(error))
    return score(findings, {"right": program.right, "also": program.also})


def run_all(tool: Tool, asked: Sequence[Program], jobs: int) -> Iterator[tuple[Program, Score]]:
    """Run a tool on programs, several at a time; yield the scores in the order of the programs."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(scored, tool, program) for program in asked]
        try:
            for _ in tqdm(
                as_completed(futures), total=len(futures), desc="programs", leave=False, disable=None, delay=2
            ):
                pass
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            tool.end()
            raise
    yield from zip(asked, (future.result() for future in futures), strict=True)


def totals(scores: Sequence[tuple[Program, Score]]) -> dict[str, tuple[int, int]]:
    """How many programs of how many.

    Returns:
        named rightly: faulty programs; false alarms: mended and healthy programs of which something is said; false
        alarms beside a fault: faulty programs of which something untrue is said; bonus; failed: all programs.
    """
    right = [score.right for program, score in scores if program.right]
    faulty = [bool(score.false_alarms) for program, score in scores if program.role == "faulty"]
    sound = [bool(score.false_alarms) for program, score in scores if program.role != "faulty"]
    bonus = [score.bonus for program, score in scores if program.also and not program.right]
    failed = [bool(score.failure) for _, score in scores]
    return {
        name: (sum(value is True for value in values), len(values))
        for name, values in {
            "named rightly": right,
            "false alarms": sound,
            "false alarms beside a fault": faulty,
            "bonus": bonus,
            "failed": failed,
        }.items()
    }


def table(scores: Sequence[tuple[Program, Score]]) -> list[str]:
    """A line for each program: its case and role, the kinds that are named, the verdict."""
    rows = [("program", "", "kinds named", "verdict")]
    rows += [(program.name, program.role, ", ".join(score.kinds) or "-", score.verdict) for program, score in scores]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]


def as_data(tool: Tool, scores: Sequence[tuple[Program, Score]]) -> dict[str, Any]:
    """The scores for --json."""
    return {
        "tool": tool.command,
        "programs": [
            {"name": program.name, "role": program.role, **dataclasses.asdict(score), "verdict": score.verdict}
            for program, score in scores
        ],
        "totals": {name: {"count": count, "of": of} for name, (count, of) in totals(scores).items()},
    }


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=TOOL, help="the tool to be scored (default: %(default)s)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="cases, as 01 or h1; their twins too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there too")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="programs at a time")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds that the tool may take for a program")
    arguments = parser.parse_args(words)
    try:
        if arguments.jobs < 1:
            raise RuleError("jobs", "$jobs must be at least 1", arguments.jobs)
        if arguments.json:
            check_new_file(arguments.json, "json")
        tool, asked = Tool(arguments.tool, arguments.timeout), programs(arguments.only)
        scores = list(run_all(tool, asked, arguments.jobs))
        if arguments.json:
            write_text(arguments.json, json.dumps(as_data(tool, scores), indent=2) + "\n")
    except UserError as error:
        print(error.wording(lambda name: f"--{name}"), file=sys.stderr)
        return 2
    print(*table(scores), "", *(f"{name}: {n} of {of}" for name, (n, of) in totals(scores).items()), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
