"""Does memory stay flat and the pace steady over a long time? A million symbols of `stream`, a long training.

    python benchmarks/soak.py [--symbols 1000000] [--updates 50000]

Both are watched in tenths; the first warms up. What leaks would show as growth of resident memory from the second tenth
to the last: five bytes for each symbol are 4 MiB. Ends with exit code 1 where it grew by more than --max-growth MiB.
"""

from __future__ import annotations

import argparse
import gc
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
import torch
from tqdm import tqdm

from echo_torch.data.random_symbols import RandomSymbols
from echo_torch.experiments.configuration import configure
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.runner import build_data, build_loggers, build_module, build_trainer, train
from echo_torch.training.saving import SaveLast

TENTHS = 10


def resident_mib(process: int | str = "self") -> float:
    """Resident memory of a process; Linux only."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def soak_stream(run: RunDirectory, num_symbols: int) -> Iterator[tuple[float, float]]:
    """Ask the command `stream` so many symbols one by one; yield (MiB, symbols/s) of each tenth, then the errors."""
    symbols = RandomSymbols(100, seed=5)
    command = [sys.executable, "-m", "echo_torch", "stream", "--run", str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        right, previous = 0, None
        for tenth in range(TENTHS):
            begin = time.perf_counter()
            asked = symbols(0, torch.arange(tenth * num_symbols // TENTHS, (tenth + 1) * num_symbols // TENTHS).numpy())
            for symbol in tqdm(asked.tolist(), desc=f"stream {tenth + 1}/{TENTHS}", leave=False, disable=None):
                process.stdin.write(f"{symbol}\n")
                right += int(process.stdout.readline()) == previous
                previous = symbol
            yield resident_mib(process.pid), len(asked) / (time.perf_counter() - begin)
        process.stdin.close()
    print(f"stream: {right:,} of {num_symbols - 1:,} answers right")


class Watch(pl.Callback):
    """Notes memory and pace at every tenth of a training."""

    def __init__(self, num_updates: int) -> None:
        self.rows: list[tuple[float, float]] = []
        self._every = num_updates // TENTHS
        self._bar = tqdm(total=num_updates, desc="training", leave=False, disable=None)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: object) -> None:
        """Note a row when a tenth is done."""
        if trainer.global_step % self._every == 0:
            gc.collect()
            self.rows.append((resident_mib(), self._every / (time.perf_counter() - self._begin)))
            self._bar.update(self._every)
            self._begin = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """End the bar."""
        self._bar.close()


def soak_training(run: RunDirectory, num_updates: int) -> list[tuple[float, float]]:
    """Train `aligned` with all that a run has: metrics, checkpoints, validations; (MiB, updates/s) of each tenth."""
    every = max(1, num_updates // TENTHS)
    configuration = configure("aligned", updates=num_updates, validate_every=every, accelerator="cpu")
    run.create()
    watch = Watch(num_updates)
    with quiet_lightning():
        callbacks = [SaveLast(run.checkpoint, configuration.checkpoint_every, validate_every=every), watch]
        trainer = build_trainer(configuration, callbacks, build_loggers(Plan(configuration), run))
        trainer.fit(build_module(Plan(configuration), Plan(configuration).model()), build_data(Plan(configuration)))
    return watch.rows


def report(name: str, unit: str, rows: list[tuple[float, float]], max_growth: float) -> bool:
    """Print the tenths; return whether memory stayed flat."""
    print(f"{name}, by tenths: resident MiB | {unit}")
    for tenth, (memory, pace) in enumerate(rows, start=1):
        print(f"  {tenth:2}  {memory:8.1f} | {pace:10,.0f}")
    growth = rows[-1][0] - rows[1][0]
    paces = [pace for _, pace in rows[1:]]
    is_flat = growth <= max_growth
    print(
        f"  memory {'flat' if is_flat else 'GREW'}: {growth:+.1f} MiB from the second tenth to the last; slowest tenth "
        f"{min(paces) / max(paces):.0%} of the fastest"
    )
    return is_flat


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--symbols", type=int, default=1_000_000)
    parser.add_argument("--updates", type=int, default=50_000)
    parser.add_argument("--max-growth", type=float, default=4.0, help="MiB that the allocator may still take")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        train(configure("aligned", accelerator="cpu"), run)
        rows = list(soak_stream(run, arguments.symbols))
        is_flat = report("stream, one lane", "symbols/s", rows, arguments.max_growth)
        rows = soak_training(RunDirectory(Path(folder) / "long"), arguments.updates)
        is_flat &= report("training aligned, 32 lanes", "updates/s", rows, arguments.max_growth)
    return 0 if is_flat else 1


if __name__ == "__main__":
    raise SystemExit(main())
