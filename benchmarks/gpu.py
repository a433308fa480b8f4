"""Where the direct kernel pays on a GPU: one run by either kernel, and many members side by side.

    python benchmarks/gpu.py [--updates 300] [--members 1 128 1024 8192] [--whole 256]

Needs a CUDA device. Model-updates a second of `aligned` are printed, and beside them those of as many cuDNN runs one
after another, which is what one such run makes. `--whole` trains so many seeds as a sweep does, evaluation and files
included, and some of them once more alone: how far their weights are apart is rounding.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path

import torch
from training import this_project

from echo_torch.experiments.configuration import configure
from echo_torch.lab.many import train_many
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.training.checkpoints import read_checkpoint
from echo_torch.training.direct import DirectUpdate


def one_run(kernel: str, num_updates: int, chunk: int = 5) -> float:
    """Updates a second of one run of `aligned`, everything on."""
    options = {"mode": "aligned", "chunk": chunk, "kernel": kernel, "accelerator": "cuda"}
    this_project(20, dressed=True, **options)
    return num_updates / this_project(num_updates, dressed=True, **options)


def many_members(number: int, num_updates: int) -> tuple[float, float]:
    """Model-updates a second of so many networks side by side, and the GPU's memory in GiB."""
    plan = Plan(configure("aligned"))
    chunks = plan.first_chunks(num_updates)
    fields = [torch.stack([chunk[field] for chunk in chunks])[:, None] for field in range(3)]
    models = [plan.model().cuda() for _ in range(number)]
    update = DirectUpdate(models, num_lanes=32, num_steps=5)
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):  # the first warms up
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for piece in range(0, num_updates, 10):  # blocks, as a training has them
            block = [field[piece : piece + 10].expand(-1, number, *field.shape[2:]).cuda() for field in fields]
            update.make(*block)
        torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
    return number * num_updates / seconds, torch.cuda.max_memory_allocated() / 2**30


def whole(number: int, num_updates: int = 1000, num_alone: int = 3) -> None:
    """So many seeds as a sweep trains them, and some of them alone."""
    runs = {f"seed{seed}": configure("aligned", seed=seed, updates=num_updates) for seed in range(1, number + 1)}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        found = train_many(runs, Path(folder, "beside"), num_jobs=1)
        seconds = time.perf_counter() - begin
        alone = dict(list(runs.items())[:num_alone])
        for name, run in alone.items():  # one at a time: a stack of one
            train_many({name: run}, Path(folder, "alone"), num_jobs=1)
        apart = max(_apart(*(Path(folder, way, name) for way in ("beside", "alone"))) for name in alone)
    share = sum(result["seconds"] for result in found.values())
    right = sorted(result["accuracy"] for result in found.values())
    print(f"{number} seeds whole: {seconds:.1f} s, {share:.1f} s of them updates, accuracy {right[0]:.2%} to", end=" ")
    print(f"{right[-1]:.2%}; weights of {len(alone)} of them at most {apart:.1e} from those alone", flush=True)


def _apart(one: Path, other: Path) -> float:
    """By how much weights of two runs differ at most."""
    weights, others = (read_checkpoint(RunDirectory(path).checkpoint)["state_dict"] for path in (one, other))
    return max(float((values - others[name]).abs().max()) for name, values in weights.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--members", type=int, nargs="+", default=[1, 128, 1024, 8192])
    parser.add_argument("--whole", type=int, metavar="SEEDS")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print(torch.cuda.get_device_name(), torch.__version__)
    if arguments.whole:
        whole(arguments.whole)
        return
    for chunk in (1, 5, 8, 20, 50):
        rates = {kernel: one_run(kernel, arguments.updates, chunk) for kernel in ("autograd", "direct")}
        words = ", ".join(f"{kernel} {rate:,.0f} updates/s" for kernel, rate in rates.items())
        print(f"one run, chunks of {chunk} steps: {words}, {rates['direct'] / rates['autograd']:.2f} x", flush=True)
    single = one_run("autograd", arguments.updates)
    for number in arguments.members:
        rate, memory = many_members(number, min(arguments.updates, 40 if number > 1000 else 200))
        beside = f"{rate / single:,.1f} x one run after another"
        print(f"{number:>6} members: {rate:>12,.0f} model-updates/s, {memory:.1f} GiB, {beside}", flush=True)


if __name__ == "__main__":
    main()
