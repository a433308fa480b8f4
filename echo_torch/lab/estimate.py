"""What a sweep will take, before it is begun: measured on a few updates of each shape, here and now."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from echo_torch.experiments.configuration import Configuration, count_parameters
from echo_torch.lab.kernels import adam_options
from echo_torch.lab.members import member_of
from echo_torch.lab.memory import size_in_words
from echo_torch.lab.plan import EVALUATION_SEQUENCES, Plan
from echo_torch.lab.stacks import BYTES_OF_PARAMETER, Work, shape_of, works_of
from echo_torch.training.evaluation import evaluate
from echo_torch.training.stacks import Stack
from echo_torch.waiting import Progress, Waiting, in_words

_FEW_UPDATES = 4
_FEW_SEQUENCES = 20
_FILES_OF_RUN = 5  # configuration, mark, metrics, checkpoint, result
_SMALL_FILES_BYTES = 4_000
_CHECKPOINT_BYTES = 25_000  # beside weights and moments: counters, random states
_BYTES_SAVED = 12  # of a parameter: itself and two moments


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take.

    Attributes:
        num_runs: How many there are.
        num_updates: Of all of them.
        stacks: Their numbers of members.
        num_alone: Runs that are trained alone.
        seconds: Of the stacks, on so many workers; None: there are none.
        num_workers: Workers that train at a time.
        memory_bytes: Of all workers.
        num_files: That are left, at least.
        num_bytes: Of these.
    """

    num_runs: int
    num_updates: int
    stacks: tuple[int, ...]
    num_alone: int
    seconds: float | None
    num_workers: int
    memory_bytes: float
    num_files: int
    num_bytes: float


def estimate(
    runs: Mapping[str, Configuration], num_workers: int, shard: tuple[int, int] = (1, 1), *, progress: Progress = False
) -> Estimate:
    """Measure what runs will take; nothing is written.

    Args:
        runs: Configurations by name, none of which is begun.
        num_workers: How many are trained at a time.
        shard: As of `works_of`.
        progress: Whether it is shown how far this is.
    """
    works = works_of(runs, Path(), num_workers, shard)
    stacks = [work for work in works if work.is_stack]
    seconds_of: dict[tuple[Hashable, int], float] = {}
    each = []
    with Waiting("Measuring", len(stacks), "stacks", progress=progress) as waiting:
        for work in stacks:
            which = shape_of(work.runs[0][1]), len(work.runs)
            if which not in seconds_of:
                seconds_of[which] = _seconds(work)
            each.append(seconds_of[which])
            waiting.done += 1
    configurations = [configuration for work in works for _, configuration in work.runs]
    sizes = [count_parameters(configuration) or 0 for configuration in configurations]
    largest = max((_stack_bytes(work) for work in stacks), default=0.0)
    num_busy = min(num_workers, len(works))
    return Estimate(
        num_runs=len(configurations),
        num_updates=sum(work.num_updates for work in works),
        stacks=tuple(len(work.runs) for work in stacks),
        num_alone=len(works) - len(stacks),
        seconds=_on_workers(each, num_busy) if each else None,
        num_workers=num_busy,
        memory_bytes=num_busy * (_own_bytes() + largest),
        num_files=_FILES_OF_RUN * len(sizes) + sum(c.validate_every is not None for c in configurations),
        num_bytes=sum(_BYTES_SAVED * size + _CHECKPOINT_BYTES + _SMALL_FILES_BYTES for size in sizes),
    )


def _seconds(work: Work) -> float:
    """How long a stack takes, by a few of its updates and a part of one evaluation."""
    plans = [Plan(configuration) for _, configuration in work.runs]
    members = [member_of(plan) for plan in plans]
    c, plan = plans[0].configuration, plans[0]
    epsilon = adam_options(c)["epsilon"]
    stack = Stack(members, num_answered=plan.num_answered, epsilon=epsilon, clip_norm=c.clip_norm)
    list(stack.make(_FEW_UPDATES))  # the first ones take longer
    began = time.perf_counter()
    list(stack.make(2 * _FEW_UPDATES))
    of_update = (time.perf_counter() - began) / _FEW_UPDATES
    began = time.perf_counter()
    evaluate(stack.network(0).eval(), plan.evaluation(_FEW_SEQUENCES))
    of_evaluation = (time.perf_counter() - began) * EVALUATION_SEQUENCES / _FEW_SEQUENCES
    num_evaluations = 2.0 if c.validate_every is None else 2 + plan.num_updates / c.validate_every
    return of_update * plan.num_updates + of_evaluation * num_evaluations * len(members)


def _on_workers(seconds: Sequence[float], num_workers: int) -> float:
    """How long pieces of work take that are handed to whichever worker is free first."""
    free_at = [0.0] * num_workers
    for one in seconds:
        free_at[free_at.index(min(free_at))] += one
    return max(free_at)


def _stack_bytes(work: Work) -> float:
    return BYTES_OF_PARAMETER * len(work.runs) * (count_parameters(work.runs[0][1]) or 0)


def _own_bytes() -> float:
    """What this process, which has loaded the same as a worker, takes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _counted(number: int, word: str, ending: str = "s") -> str:
    return f"{number:,} {word}{'' if number == 1 else ending}"


def in_lines(found: Estimate) -> list[str]:
    """The estimate in words, a line each."""
    stacks = "none"
    if found.stacks:
        least, most = min(found.stacks), max(found.stacks)
        stacks = f"{len(found.stacks):,} of " + (_counted(most, "run") if least == most else f"{least} to {most} runs")
    alone = f", and {_counted(found.num_alone, 'run')} alone" if found.num_alone else ""
    took = "not known, since runs alone are not measured" if found.num_alone else "none"
    if found.seconds is not None:
        took = f"about {in_words(found.seconds)} on {_counted(found.num_workers, 'process', 'es')}, as measured now"
        took += "; that of the runs alone is not known" if found.num_alone else ""
    return [
        f"runs: {found.num_runs:,}",
        f"updates: {found.num_updates:,}",
        f"stacks: {stacks}{alone}",
        f"time: {took}",
        f"memory: about {size_in_words(found.memory_bytes)} in all processes",
        f"files: about {found.num_files:,}, {size_in_words(found.num_bytes)}",
    ]
