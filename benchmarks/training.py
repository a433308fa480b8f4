"""What an update costs: ways to train `lag`, and what making its data takes.

    python benchmarks/training.py [--rounds 5] [--updates 2000]

The ways take turns within one process, because the machine's speed drifts; ratios are taken within a round.
(a) a plain loop, (b) this project with metrics file, audit, bar and checkpoints, (c) the same without them, (d) the
ordinary Lightning recipe, (g) and (h) as (b) and (c), by autograd with a chunk each batch. benchmarks/kernels.py
compares the kernels at other shapes.
"""

from __future__ import annotations

import argparse
import io
import itertools
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

from echo_torch import Carry, EchoLSTM
from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.experiments.configuration import configure
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.kernels import begun_plan
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.runner import build_data, build_loggers, build_module, build_trainer
from echo_torch.lab.trainers import plain_trainer
from echo_torch.training.progress import Bar
from echo_torch.training.saving import SaveLast


def plain_loop(num_updates: int) -> float:
    """(a) A loop as one writes it: default Adam, the head at the asked step only, state carried and detached."""
    torch.manual_seed(1)
    lstm, head = nn.LSTM(100, 50, batch_first=True), nn.Linear(50, 100)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()])
    stream = Plan(configure("lag")).training()
    begin = time.perf_counter()
    state = None
    for chunk in itertools.islice(stream, num_updates):
        if chunk.starts[0]:
            state = None
        output, (hidden, cell) = lstm(F.one_hot(chunk.symbols, 100).float(), state)
        state = hidden.detach(), cell.detach()
        loss = F.cross_entropy(head(output[:, -1]), chunk.targets[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def this_project(
    num_updates: int, *, dressed: bool = False, checkpoint_every: int | None = None, mode: str = "lag", **options: Any
) -> float:
    """(b) and (c), and (c) with checkpoints; with kernel autograd (g) and (h)."""
    plan = begun_plan(Plan(configure(mode, updates=num_updates, **{"accelerator": "cpu", **options})))
    with tempfile.TemporaryDirectory() as folder, quiet_lightning():
        run = RunDirectory(Path(folder))
        callbacks, loggers = [], []
        if dressed:
            run.create()
            callbacks = [StateAudit(), SaveLast(run.checkpoint), Bar(mode, _terminal())]
            loggers = build_loggers(plan, run)
        if checkpoint_every is not None:
            run.create()
            callbacks = [SaveLast(run.checkpoint, checkpoint_every)]
        trainer = build_trainer(plan.configuration, callbacks, loggers)
        module = build_module(plan, plan.model())
        return _time_fit(trainer, module, build_data(plan, module))


class OrdinaryRecipe(pl.LightningModule):
    """(d) What a Lightning tutorial would have one write."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(100, 50, batch_first=True), nn.Linear(50, 100)
        self.state = None

    def training_step(self, chunk, batch_idx):  # noqa: D102
        if chunk.starts[0]:
            self.state = None
        output, (hidden, cell) = self.lstm(F.one_hot(chunk.symbols, 100).float(), self.state)
        self.state = hidden.detach(), cell.detach()
        logits, targets = self.head(output[:, -1]), chunk.targets[:, -1]
        loss = F.cross_entropy(logits, targets)
        self.log("loss", loss, prog_bar=True)
        self.log("accuracy", (logits.argmax(-1) == targets).float().mean(), prog_bar=True)
        return loss

    def configure_optimizers(self):  # noqa: D102
        return torch.optim.Adam(self.parameters())


def ordinary_recipe(num_updates: int) -> float:
    """(d) Two `self.log(prog_bar=True)` an update, default Adam, default bar, CSV logger and checkpoints."""
    torch.manual_seed(1)
    configuration = configure("lag", updates=num_updates)
    with tempfile.TemporaryDirectory() as folder, quiet_lightning():
        sys.stdout, kept = _terminal(), sys.stdout
        try:
            logger = pl.loggers.CSVLogger(folder)
            trainer = plain_trainer(max_steps=num_updates, logger=logger, accelerator="cpu", enable_model_summary=False)
            return _time_fit(trainer, OrdinaryRecipe(), build_data(Plan(configuration)))
        finally:
            sys.stdout = kept


def share_of_data(num_updates: int) -> float:
    """Seconds to make and load the chunks of so many updates."""
    begin = time.perf_counter()
    for _ in itertools.islice(Plan(configure("lag")).training().loader(), num_updates):
        pass
    return time.perf_counter() - begin


def aligned(num_updates: int, num_audits: int = 0) -> float:
    """Training of `aligned`, 32 lanes; with ten audits, what one costs stands out of the noise."""
    configuration = configure("aligned", updates=num_updates, accelerator="cpu")
    with quiet_lightning():
        module = build_module(Plan(configuration), Plan(configuration).model())
        # Lightning wants callbacks that save something to be of different classes.
        audits = [type(f"Audit{n}", (StateAudit,), {})("raise") for n in range(num_audits)]
        return _time_fit(build_trainer(configuration, audits), module, build_data(Plan(configuration)))


class OwnModule(pl.LightningModule):
    """A module of one's own: its state carried by hand, and by as many more `Carry` as one likes."""

    def __init__(self, num_carries: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.state = EchoLSTM(), None
        self.carries = [Carry(self.net.initial_state) for _ in range(num_carries)]

    def training_step(self, chunk, batch_idx):  # noqa: D102
        for carry in self.carries:
            carry.begin(chunk.starts)
        if self.state is None or chunk.starts.all():
            self.state = self.net.initial_state(len(chunk.symbols))
        logits, (hidden, cell) = self.net(chunk.symbols, self.state)
        self.state = type(self.state)(hidden.detach(), cell.detach())
        for carry in self.carries:
            carry.end(self.state, cursor=chunk.index + 1)
        return F.cross_entropy(logits[:, -1], chunk.targets[:, -1])

    def configure_optimizers(self):  # noqa: D102
        return torch.optim.Adam(self.parameters(), fused=True)


def own_module(num_updates: int, num_carries: int = 0) -> float:
    """Training of `lag` in a module of one's own; with ten Carry, what one costs stands out of the noise."""
    configuration = configure("lag", updates=num_updates, accelerator="cpu")
    with quiet_lightning():
        return _time_fit(build_trainer(configuration), OwnModule(num_carries), build_data(Plan(configuration)))


def resident_mib(num_sequences: int) -> float:
    """Memory of this process after reading so many sequences."""
    stream = Plan(configure("lag")).training()
    for _ in itertools.islice(stream.loader(), num_sequences * 4):
        pass
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize() / 2**20


def _time_fit(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> float:
    """Seconds of the training itself, from its first update to its last, without building the Trainer."""
    timer = _Timer()
    trainer.callbacks.insert(0, timer)
    trainer.fit(module, data)
    return timer.seconds


class _Timer(pl.Callback):
    def on_train_start(self, trainer, pl_module):
        self._begin = time.perf_counter()

    def on_train_end(self, trainer, pl_module):
        self.seconds = time.perf_counter() - self._begin


class _Terminal(io.StringIO):
    """Takes a bar's drawing as a terminal would, and forgets it."""

    def write(self, text: str) -> int:
        return len(text)

    def isatty(self) -> bool:
        return True


_terminal = _Terminal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    os.environ.setdefault("COLUMNS", "120")

    ways: dict[str, Callable[[int], float]] = {
        "a": plain_loop,
        "b": lambda n: this_project(n, dressed=True),
        "c": this_project,
        "c20": lambda n: this_project(n, checkpoint_every=20),
        "d": ordinary_recipe,
        "g": lambda n: this_project(n, dressed=True, kernel="autograd"),
        "h": lambda n: this_project(n, kernel="autograd"),
        "data": share_of_data,
        "e": aligned,
        "e10": lambda n: aligned(n, num_audits=10),
        "f": own_module,
        "f10": lambda n: own_module(n, num_carries=10),
    }
    names = {
        "a": "plain loop, default Adam",
        "b": "this project: metrics, audit, bar, checkpoints",
        "c": "this project: none of them",
        "c20": "the same with a checkpoint every 20 updates",
        "d": "ordinary Lightning recipe",
        "g": "as b, by autograd",
        "h": "as c, by autograd",
        "data": "making the data, DataLoader included",
        "e": "aligned, 32 lanes, none of them",
        "e10": "the same with ten times StateAudit",
        "f": "a module of one's own, its state carried by hand",
        "f10": "the same with ten times Carry beside",
    }
    for way in ways.values():
        way(300)  # warm up
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            times[name].append(way(arguments.updates) / arguments.updates * 1e6)

    print(f"{arguments.rounds} rounds of {arguments.updates} updates of `lag`; median (lowest, highest)")
    for name, values in times.items():
        print(f"  {name:5}{statistics.median(values):8.0f} us ({min(values):.0f}, {max(values):.0f})  {names[name]}")
    for over, under in (("b", "a"), ("c", "a"), ("g", "a"), ("h", "a"), ("d", "g"), ("data", "a"), ("data", "c")):
        ratios = [x / y for x, y in zip(times[over], times[under], strict=True)]
        print(f"  {f'{over}/{under}':8}{statistics.median(ratios):8.3f} ({min(ratios):.3f}, {max(ratios):.3f})")
    for name, way, what in (("audit", "e", "one StateAudit"), ("carry", "f", "one Carry")):
        shares = [(ten - none) / 10 / none for none, ten in zip(times[way], times[f"{way}10"], strict=True)]
        middle = statistics.median(shares)
        print(f"  {name:8}{middle:8.3f} ({min(shares):.3f}, {max(shares):.3f})  of {way}: {what}")
    every = configure("lag").checkpoint_every
    costs = [(with_ - without) * 20 / every / without for without, with_ in zip(times["c"], times["c20"], strict=True)]
    print(
        f"  {'saving':8}{statistics.median(costs):8.3f} ({min(costs):.3f}, {max(costs):.3f})  of c: a checkpoint every "
        f"{every} updates"
    )
    few, many = resident_mib(2_000), resident_mib(20_000)
    print(
        f"  resident memory: {few:.1f} MiB after 2,000 sequences, {many:.1f} MiB after 20,000 more ({many / few:.3f} x)"
    )


if __name__ == "__main__":
    main()
