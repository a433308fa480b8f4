"""Which of many runs one worker trains side by side: those whose shapes agree, a few at a time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from echo_torch.experiments.configuration import Configuration, count_parameters
from echo_torch.lab import memory
from echo_torch.lab.kernels import begun_plan, is_on_cuda
from echo_torch.lab.members import taken_up, train_side_by_side
from echo_torch.lab.plan import Plan
from echo_torch.lab.results import read_finished
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.surroundings import own_surroundings
from echo_torch.lab.sweep_runs import begin

MAX_MEMBERS = 16  # more leave the caches of one core and are slower (benchmarks/stacks.py)
_MAX_MEMBERS_ON_CUDA = 1024
_FEW_MEMBERS = 4  # so many are not parted, to give other workers something to do
_MAX_BYTES = 100e6  # of weights, gradients and moments; more leave the caches
BYTES_OF_PARAMETER = 16  # itself, its gradient and two moments, each of four bytes


@dataclass(frozen=True)
class Work:
    """Some runs that one worker trains.

    Attributes:
        folder: Where their directories are.
        runs: Their names and configurations.
        is_stack: Whether they are trained side by side; else it is one run alone.
    """

    folder: Path
    runs: tuple[tuple[str, Configuration], ...]
    is_stack: bool

    @property
    def num_updates(self) -> int:
        """Of all of them."""
        return sum(configuration.reading.num_updates for _, configuration in self.runs)

    def last_update(self) -> int:
        """How many of them are made, by the metrics of the first: the others are as far."""
        name, _ = self.runs[0]
        return len(self.runs) * RunDirectory(self.folder / name).last_update()


def train_work(work: Work) -> dict[str, str]:
    """Train what is not finished; what was begun goes on from its checkpoint. Any process that sees the folder can.

    Returns:
        For each run that has ended before its time the reason, a sentence.

    Raises:
        UserError: If a directory cannot be used, or the memory or the disk does not suffice.
    """
    if not work.is_stack:
        ((name, configuration),) = work.runs
        return _train_alone(configuration, RunDirectory(work.folder / name))
    configuration = work.runs[0][1]
    with own_surroundings(configuration), memory.in_a_sentence(configuration):
        torch.set_num_threads(configuration.threads)
        runs = [(RunDirectory(work.folder / name), c) for name, c in work.runs]
        to_do = [
            (run, Plan(c)) for run, c in runs if read_finished(run, c) is None
        ]  # not by a worker that was lost since
        with taken_up(to_do) as members:
            failures = train_side_by_side(members)
    return {run.path.name: reason for run, reason in failures.items()}


def _train_alone(configuration: Configuration, run: RunDirectory) -> dict[str, str]:
    from echo_torch.lab.resume import LostError
    from echo_torch.lab.runner import train  # brings Lightning, which stacks do not need

    plan = Plan(configuration)
    if read_finished(run, configuration, plan.model_digest) is None:
        begin(run, plan)
        run.failure.unlink(missing_ok=True)
        try:
            train(plan, run, audit="count", resume="auto")
        except LostError as error:
            run.write_failure(configuration.seed, error.update, str(error))
            return {run.path.name: str(error)}
    return {}


def works_of(
    runs: Mapping[str, Configuration], folder: Path, num_workers: int, shard: tuple[int, int] = (1, 1)
) -> list[Work]:
    """Part runs into what one worker trains at a time, the longest first.

    Args:
        runs: Configurations by name.
        folder: Where their directories are.
        num_workers: How many workers there are, for each of which there shall be something to do.
        shard: (k, n): of the runs of a shape, in the order of `runs`, the k-th of each n.
    """
    groups: dict[Hashable, list[tuple[str, Configuration]]] = {}
    for name, c in runs.items():
        groups.setdefault(shape_of(c, RunDirectory(folder / name)), []).append((name, c))
    works = []
    for shape, group in groups.items():
        own = group[shard[0] - 1 :: shard[1]]
        most = _most_members(own[0][1]) if own and shape is not None else 1
        works += [Work(folder, tuple(part), shape is not None) for part in _parts(own, most, num_workers)]
    return sorted(works, key=lambda work: -work.num_updates)


def _parts(
    group: Sequence[tuple[str, Configuration]], most: int, num_workers: int
) -> Iterator[tuple[tuple[str, Configuration], ...]]:
    """As few parts as may be, of about the same size, but as many for each worker, where they then have a few."""
    if not group:
        return
    number = -(-len(group) // most)
    for_each = -(-number // num_workers) * num_workers
    number = max(number, min(for_each, len(group) // _FEW_MEMBERS))
    rest = iter(group)
    for part in range(number):
        yield tuple(islice(rest, (part + 1) * len(group) // number - part * len(group) // number))


def _most_members(configuration: Configuration) -> int:
    if is_on_cuda(configuration):
        return _MAX_MEMBERS_ON_CUDA
    size = BYTES_OF_PARAMETER * (count_parameters(configuration) or 1)
    return max(1, min(MAX_MEMBERS, int(_MAX_BYTES / size)))


def shape_of(configuration: Configuration, run: RunDirectory | None = None) -> Hashable:
    """What members of a stack have in common; None: such a run is trained alone.

    Args:
        configuration: Of the run.
        run: Its directory, which tells how it was begun; None: it begins.
    """
    c = configuration
    if c.tensorboard or _kernel(c, run) != "direct":
        return None
    if c.hidden_size == 1:  # a product with a result so narrow is computed otherwise where it is one of several
        return None
    plan = Plan(c)
    layout = plan.layout
    network = (c.vocabulary_size, c.hidden_size, c.layers, c.encoding, c.base, c.init, c.clip_norm)
    length = (plan.num_updates, c.log_every, c.checkpoint_every, c.validate_every)
    return (layout.num_lanes, layout.num_steps, plan.num_answered, *network, *length, c.threads, is_on_cuda(c))


def _kernel(c: Configuration, run: RunDirectory | None) -> str:
    """By which the run is trained: the one that it was begun with."""
    if c.kernel == "auto" and run is not None and run.config.exists():
        return run.read_saved()[0].kernel
    return begun_plan(Plan(c)).configuration.kernel
