"""Runs side by side: each leaves the directory that it leaves alone, and needs no Trainer for it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any, cast

from echo_torch.data.stream import Block
from echo_torch.diagnosis.auditing.gaps import GapCounts
from echo_torch.diagnosis.stamps import places_of_chunk
from echo_torch.files import FORMAT, Place
from echo_torch.lab.finished import evaluation_result, result_of
from echo_torch.lab.kernels import adam_options, begun_plan, is_on_cuda, resumed_plan
from echo_torch.lab.plan import Plan
from echo_torch.lab.resume import find_start, note_for, prepare, what_is_kept
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.sweep_runs import begin
from echo_torch.models.networks import EchoLSTM
from echo_torch.training.bodies import row_of, weights_error
from echo_torch.training.checkpoints import RUN_KEY, Checkpoint, write_checkpoint
from echo_torch.training.evaluation import counts_of
from echo_torch.training.metrics_table import MetricsTable
from echo_torch.training.stacks import Member, Stack

FILES_AT_A_TIME = 8  # a file that is to outlive a power cut is waited for; of several at once each a little
SECONDS_BETWEEN_SAVES = 5.0  # a killed worker loses no more; to save takes as long as hundred updates


@dataclass
class MemberRun:
    """One run of several side by side: its files, and what it has counted.

    Attributes:
        plan: Of the run.
        run: Its directory.
        place: The same, to be told from another that gets its name.
        start: The checkpoint that it goes on from; None: it begins.
        seconds: How long its updates have taken, those before it was resumed included: its share of the stack's.
    """

    plan: Plan
    run: RunDirectory
    place: Place
    start: Checkpoint | None
    seconds: float = 0.0
    audit: GapCounts = field(default_factory=lambda: GapCounts("count"))

    @property
    def made(self) -> int:
        """Updates that it had made when it was taken up."""
        return 0 if self.start is None else self.start.update

    def take_up(self) -> tuple[Member, dict[str, Any] | None]:
        """The training that it is, and what its checkpoint holds."""
        checkpoint = None if self.start is None else self.start.take()
        if checkpoint is not None:
            self.seconds = float(checkpoint[RUN_KEY]["seconds"])
            self.audit.load_state_dict(checkpoint["callbacks"]["StateAudit"])
        self.audit.are_resets_told = True
        self.audit.begin()
        return member_of(self.plan, start=self.made), checkpoint

    @cached_property
    def metrics(self) -> MetricsTable:
        """Its rows."""
        return MetricsTable(self.run.metrics, self.plan.layout.drawn, self.place)

    @cached_property
    def validation(self) -> MetricsTable:
        """Its validations."""
        return MetricsTable(self.run.validation, self.plan.layout.drawn, self.place)

    def look(self, block: Block) -> None:
        """Count the gaps at the borders of what it has read."""
        self.audit.look_at_block(places_of_chunk(block))

    def validate(self, update: int, model: EchoLSTM) -> None:
        """Write a row of a validation."""
        counts = counts_of(model.eval(), self.plan.evaluation())
        model.train()
        self.validation.append(update, {**row_of(counts), "targets": float(counts[2])})

    def checkpoint(self, of_member: dict[str, Any]) -> dict[str, Any]:
        """What its checkpoint holds, with that of the member that it is."""
        return {
            **of_member,
            "pytorch-lightning_version": self._note["versions"]["pytorch_lightning"],
            "callbacks": {"StateAudit": self.audit.state_dict()},
            "format": FORMAT,
            RUN_KEY: {**self._note, "seconds": self.seconds},
        }

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Write its checkpoint, after the rows that it counts are on disk."""
        self.place.check()
        for table in (self.metrics, self.validation):
            table.to_disk()
        write_checkpoint(checkpoint, self.run.checkpoint)

    @cached_property
    def _note(self) -> dict[str, Any]:
        return note_for(self.plan)

    def result(self, model: EchoLSTM, updates: int) -> dict[str, Any]:
        """Evaluate; what its result holds."""
        self.audit.end()
        evaluation = evaluation_result(self.plan, model.eval())
        return result_of(self.plan, model, evaluation, updates=updates, seconds=self.seconds, gaps=self.audit.gaps)

    def finish(self, result: dict[str, Any]) -> None:
        """Write its result."""
        self.place.check()
        self.run.write_result(result)

    def fail(self, error: Exception, update: int) -> str:
        """Note that it has ended before its time, and say why."""
        seed = self.plan.configuration.seed
        sentence = f"{error} Seed {seed}; {what_is_kept(self.run)}."
        self.run.write_failure(seed, update, sentence)
        return sentence


def member_of(plan: Plan, start: int = 0) -> Member:
    """The training that a plan is, on the device where it trains, from an update on."""
    model = cast(EchoLSTM, plan.model())
    if is_on_cuda(plan.configuration):
        model.cuda()
    return Member(model, plan.training(start=start), adam_options(plan.configuration)["learning_rate"])


@contextlib.contextmanager
def taken_up(runs: Sequence[tuple[RunDirectory, Plan]]) -> Iterator[list[MemberRun]]:
    """Runs that begin, or go on where they were; nobody else may train into their directories meanwhile.

    Raises:
        UserError: If another process does, or a run cannot go on.
    """
    is_new = [not run.config.exists() for run, _ in runs]
    with ThreadPoolExecutor(FILES_AT_A_TIME) as threads, contextlib.ExitStack() as stack:
        # Only of new ones: to see whether others can go on, networks are made, which is for one thread alone.
        begun = [threads.submit(begin, *pair) for pair, new in zip(runs, is_new, strict=True) if new]
        begins = [future.result() for future in begun]
        taken = iter(begins)
        yield [
            stack.enter_context(_taken_up(run, plan, begins=next(taken) if new else begin(run, plan)))
            for (run, plan), new in zip(runs, is_new, strict=True)
        ]


@contextlib.contextmanager
def _taken_up(run: RunDirectory, plan: Plan, *, begins: bool) -> Iterator[MemberRun]:
    with run.lock() as place, run.writing():
        start = None if begins else find_start(plan, run, "auto")
        plan = begun_plan(plan) if begins else resumed_plan(plan, run, start)
        if not begins:
            run.failure.unlink(missing_ok=True)
            prepare(plan, run, start)
        yield MemberRun(plan, run, place, start)


def train_side_by_side(runs: Sequence[MemberRun]) -> dict[RunDirectory, str]:
    """Train runs of one shape to their end.

    Args:
        runs: They may stand at different updates, as a kill between two saves leaves them.

    Returns:
        For each that has ended before its time the reason, a sentence.
    """
    failures: dict[RunDirectory, str] = {}
    for _, alike in groupby(sorted(runs, key=lambda run: run.made), key=lambda run: run.made):
        failures |= _Group(list(alike)).train()
    return failures


class _Group:
    """Runs that have made as many updates."""

    def __init__(self, runs: Sequence[MemberRun]) -> None:
        self._runs = runs
        members, checkpoints = zip(*(run.take_up() for run in runs), strict=True)
        c, plan = runs[0].plan.configuration, runs[0].plan
        self._stack = Stack(
            members,
            num_answered=plan.num_answered,
            epsilon=adam_options(c)["epsilon"],
            clip_norm=c.clip_norm,
            checkpoints=None if None in checkpoints else checkpoints,
        )
        self._total, self._configuration = plan.num_updates, c
        self._failures: dict[RunDirectory, str] = {}
        self._saved_at = time.monotonic()

    def train(self) -> dict[RunDirectory, str]:
        """As `train_side_by_side`."""
        while self._stack.num_made < self._total and self._going():
            self._make_updates()
            self._write_rows()
            self._validate()
            self._save()
        with ThreadPoolExecutor(FILES_AT_A_TIME) as threads:
            written = [
                threads.submit(run.finish, run.result(self._stack.network(number), self._stack.num_made))
                for number, run in self._going()
            ]
        for future in written:
            future.result()
        return self._failures

    def _going(self) -> list[tuple[int, MemberRun]]:
        return [pair for pair in enumerate(self._runs) if pair[1].run not in self._failures]

    def _make_updates(self) -> None:
        """Up to where something is due."""
        c, made = self._configuration, self._stack.num_made
        every = [number for number in (c.log_every, c.checkpoint_every, c.validate_every) if number is not None]
        ends = [(made // number + 1) * number for number in every]
        began = time.perf_counter()
        for blocks in self._stack.make(min(*ends, self._total)):
            for (_, run), block in zip(enumerate(self._runs), blocks, strict=True):
                run.look(block)
        share = (time.perf_counter() - began) / len(self._runs)
        for number, run in self._going():
            run.seconds += share
            if (error := self._stack.members[number].error) is not None:
                self._failures[run.run] = run.fail(error, self._stack.members[number].lost_at or 0)

    def _is_due(self, every: int | None, *, at_end: bool) -> bool:
        made = self._stack.num_made
        return every is not None and (made % every == 0 or (at_end and made == self._total))

    def _write_rows(self) -> None:
        log_every = self._configuration.log_every
        if self._is_due(log_every, at_end=True):
            for number, run in self._going():
                member = self._stack.members[number]
                run.metrics.append(self._stack.num_made, member.row())
                if self._is_due(log_every, at_end=False):  # else it is the rest, which a longer training counts on from
                    member.pooled = None

    def _validate(self) -> None:
        if self._is_due(self._configuration.validate_every, at_end=False):
            for number, run in self._going():
                run.validate(self._stack.num_made, self._stack.network(number))

    def _save(self) -> None:
        is_end = self._stack.num_made == self._total
        is_long_ago = time.monotonic() - self._saved_at >= SECONDS_BETWEEN_SAVES
        if not self._is_due(self._configuration.checkpoint_every, at_end=True) or not (is_end or is_long_ago):
            return
        with ThreadPoolExecutor(FILES_AT_A_TIME) as threads:
            saved = []
            for number, run in self._going():
                if self._stack.is_finite(number):
                    saved.append(threads.submit(run.save, run.checkpoint(self._stack.checkpoint(number))))
                else:
                    error = weights_error(self._stack.num_made)
                    self._failures[run.run] = run.fail(error, self._stack.num_made)
        for future in saved:
            future.result()
        self._saved_at = time.monotonic()
