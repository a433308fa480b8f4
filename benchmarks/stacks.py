"""Many trainings side by side: model-updates a second beside bare loops, and what a run of a sweep costs whole.

    python benchmarks/stacks.py [--rounds 5] [--members 1 4 8 16 32] [--whole] [--many] [--memory]

A bare loop is that of kernels.py. In each round two processes train bare loops at the same time, then two train stacks,
then bare loops again, because the machine's speed drifts; a ratio is taken within a round. `--whole` trains 32 seeds of
`aligned`, files and evaluation included; `--many` 1,000 small runs, and says what each costs beyond its updates and
evaluation; `--memory` 300 members, and says what all processes hold at most.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from kernels import bare_loop

from echo_torch.experiments.configuration import Configuration, configure
from echo_torch.lab import members
from echo_torch.lab.grids import grid_of
from echo_torch.lab.many import train_many
from echo_torch.lab.plan import Plan
from echo_torch.training.stacks import Member, Stack

NUM_PROCESSES = 2
BARE_UPDATES = 1000


def make_stack(mode: str, number: int) -> Stack:
    """So many seeds of a mode side by side."""
    plans = [Plan(configure(mode, seed=seed, accelerator="cpu")) for seed in range(1, number + 1)]
    members = [Member(plan.model(), plan.training(), plan.configuration.learning_rate) for plan in plans]
    return Stack(members, num_answered=plans[0].num_answered)


def stack_rate(mode: str, number: int) -> float:
    """Model-updates a second in this process: data, updates and counts."""
    stack = make_stack(mode, number)
    list(stack.make(20))
    num_updates = max(20, 6000 // number)
    begin = time.perf_counter()
    list(stack.make(20 + num_updates))
    return number * num_updates / (time.perf_counter() - begin)


def bare_rate(mode: str) -> float:
    """Updates a second of a bare loop in this process."""
    return BARE_UPDATES / bare_loop(configure(mode, accelerator="cpu"), BARE_UPDATES)


def one_round(pool: ProcessPoolExecutor, mode: str, number: int) -> tuple[float, float]:
    """(model-updates a second of two stacks, their ratio to two bare loops before and after)."""

    def together(function, *arguments) -> float:
        return sum(future.result() for future in [pool.submit(function, *arguments) for _ in range(NUM_PROCESSES)])

    before, rate, after = together(bare_rate, mode), together(stack_rate, mode, number), together(bare_rate, mode)
    return rate, rate / statistics.mean([before, after])


def processes(begin: Callable[..., None] = torch.set_num_threads, *given: object) -> ProcessPoolExecutor:
    """As many as train, of one thread each, as those have."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(NUM_PROCESSES, context, initializer=begin, initargs=given or (1,))


def rates(rounds: int, members: list[int]) -> None:
    with processes() as pool:
        for mode in ("lag", "aligned"):
            for number in members:
                found = [one_round(pool, mode, number) for _ in range(rounds)]
                ratios = sorted(ratio for _, ratio in found)
                rate = statistics.median(rate for rate, _ in found)
                middle = statistics.median(ratios)
                print(f"{mode}, two stacks of {number}: {rate:,.0f} model-updates/s", end=", ")
                print(f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) x two bare loops", flush=True)


def whole(folder: Path) -> None:
    runs = {f"seed{seed}": configure("aligned", seed=seed, accelerator="cpu") for seed in range(1, 33)}
    begin = time.perf_counter()
    found = train_many(runs, folder, num_jobs=NUM_PROCESSES)
    seconds = time.perf_counter() - begin
    worst = min(result["accuracy"] for result in found.values())
    print(f"32 seeds of aligned, files included: {seconds:.1f} s; the worst seed {worst:.2%}")


def many(folder: Path) -> None:
    axes = {"lag": list(range(10)), "learning_rate": [n / 1000 for n in range(1, 11)]}
    small = {"updates": 20, "vocabulary_size": 10, "hidden_size": 10, "lanes": 4}
    runs = grid_of("aligned", axes, 10, small).runs()
    with tempfile.TemporaryDirectory() as times, processes(note_evaluations, times) as pool:
        begin = time.perf_counter()
        found = train_many(runs, folder, executor=pool)
        pool.shutdown()  # the end of the processes counts, as their start does
        seconds = time.perf_counter() - begin
        evaluations = sum(float(path.read_text()) for path in Path(times).iterdir())
    updates = sum(result["seconds"] for result in found.values())
    files = [path for path in folder.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    beyond = (NUM_PROCESSES * seconds - updates - evaluations) / len(runs)
    print(f"1,000 runs: {seconds:.1f} s in {NUM_PROCESSES} processes, updates {updates:.1f} s, evaluations", end=" ")
    print(f"{evaluations:.1f} s; beyond that {1000 * beyond:.1f} ms a run and process", end=", ")
    print(f"{1000 * beyond / NUM_PROCESSES:.1f} ms of the time on the clock", end="; ")
    print(f"{len(files):,} files, {size / 1e6:.0f} MB")


def note_evaluations(folder: str) -> None:
    """Have this process keep in a file of its own how many seconds its evaluations took, the ceiling included."""
    torch.set_num_threads(1)
    evaluate, spent = members.evaluation_result, 0.0

    def timed(*given: Any, **named: Any) -> Any:
        nonlocal spent
        begin = time.perf_counter()
        result = evaluate(*given, **named)
        spent += time.perf_counter() - begin
        Path(folder, str(os.getpid())).write_text(str(spent))
        return result

    members.evaluation_result = timed


def memory(folder: Path) -> None:
    runs: dict[str, Configuration] = {
        f"seed{seed}": configure("lag", seed=seed, sequences=400, accelerator="cpu") for seed in range(1, 301)
    }
    most, has_ended = [0], threading.Event()

    def look() -> None:
        while not has_ended.wait(0.1):
            most.append(resident_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    train_many(runs, folder, num_jobs=NUM_PROCESSES)
    has_ended.set()
    thread.join()
    print(f"300 members: {max(most) / 1e9:.2f} GB in all processes")


def resident_bytes() -> int:
    """What this process and its children hold in memory; pages that they share count once for each."""
    total = 0
    for process in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:  # it has just ended
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 4, 8, 16, 32])
    for part in (whole, many, memory):
        parser.add_argument(f"--{part.__name__}", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    parts = [part for part in (whole, many, memory) if getattr(arguments, part.__name__)]
    if not parts:
        rates(arguments.rounds, arguments.members)
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            part(Path(folder))


if __name__ == "__main__":
    main()
