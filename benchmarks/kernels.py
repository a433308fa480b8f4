"""What an update costs by either kernel, beside a bare loop of the same shape, and how that grows.

    python benchmarks/kernels.py [--rounds 5] [--seconds 1] [--growth] [--limit]

A bare loop is nn.LSTM, the head at the columns that are asked, and the default Adam; nothing else. Both kernels train
under the Trainer with metrics file, audit, bar and checkpoints. The ways take turns within one process, because the
machine's speed drifts, and ratios are taken within a round, to the mean of the bare loops before and after.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training import this_project

from echo_torch.data.chunk import Chunk
from echo_torch.experiments.configuration import Configuration, configure, symbol_size
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import Encoding, loss_sum
from echo_torch.training.direct import DirectUpdate

SHAPES: dict[str, dict[str, Any]] = {
    "lag": {"mode": "lag"},
    "aligned": {"mode": "aligned"},
    "stateful": {"mode": "stateful"},
    "masked": {"mode": "masked"},
    "whole": {"mode": "whole"},
    "sequence": {"mode": "sequence"},
    "digits of 10^6 symbols": {"mode": "aligned", "vocabulary_size": 10**6},
}
GROWTH = {
    "lanes": (1, 4, 16, 64, 256),
    "chunk": (1, 5, 25, 100),
    "hidden_size": (25, 50, 100, 200, 400),
    "vocabulary_size": (10, 100, 1000),
}


def bare_loop(configuration: Configuration, num_updates: int) -> float:
    """Seconds of so many updates of a loop as one writes it."""
    plan = Plan(configuration)
    torch.manual_seed(1)
    encoding = Encoding(configuration.vocabulary_size, configuration.base)
    lstm = nn.LSTM(encoding.size, configuration.hidden_size, batch_first=True)
    head = nn.Linear(configuration.hidden_size, encoding.size)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()])
    chunks, answered, state = _chunks(plan, num_updates), plan.num_answered, None
    is_plain = encoding.num_digits == 1 and all(bool((chunk.symbols >= 0).all()) for chunk in chunks)
    begin = time.perf_counter()
    for chunk in chunks:
        if chunk.starts.any():
            state = _reset(state, chunk.starts)
        inputs = F.one_hot(chunk.symbols, encoding.size) if is_plain else encoding.encode(chunk.symbols)
        output, (hidden, cell) = lstm(inputs.float(), state)
        state = hidden.detach(), cell.detach()
        loss = _mean_loss(head(output[:, -answered:]), chunk.targets[:, -answered:], encoding)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - begin


def _mean_loss(logits: Tensor, targets: Tensor, encoding: Encoding) -> Tensor:
    if encoding.num_digits > 1:
        return loss_sum(logits, targets, encoding.num_digits) / max(1, targets.numel())
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def _reset(state: tuple[Tensor, Tensor] | None, starts: Tensor) -> tuple[Tensor, Tensor] | None:
    if state is None or starts.all():
        return None
    hidden, cell = (field.masked_fill(starts.view(1, -1, 1), 0) for field in state)
    return hidden, cell


def _chunks(plan: Plan, num_updates: int) -> list[Chunk]:
    return list(itertools.islice(plan.training(), num_updates))


def direct_alone(configuration: Configuration, num_updates: int) -> float:
    """Seconds of so many direct updates, without a Trainer, in one block."""
    plan = Plan(configuration)
    chunks = _chunks(plan, num_updates)
    symbols, targets, starts = (torch.stack([chunk[field] for chunk in chunks])[:, None] for field in range(3))
    update = DirectUpdate(
        [plan.model()],
        num_lanes=plan.layout.num_lanes,
        num_steps=plan.layout.num_steps,
        num_answered=plan.num_answered,
    )
    begin = time.perf_counter()
    update.make(symbols, targets, starts)
    return time.perf_counter() - begin


def compare_shapes(rounds: int, seconds: float) -> None:
    """A table: microseconds of an update and ratios to the bare loop."""
    print(f"{'':24}{'bare loop':>12}{'direct':>12}{'autograd':>12}{'direct is':>24}{'autograd is':>24}")
    for name, options in SHAPES.items():
        configuration = configure(**options)
        number = _fitting(configuration, seconds)
        found: list[tuple[float, float, float, float]] = []
        for _ in range(rounds):
            before = bare_loop(configuration, number)
            direct = this_project(number, dressed=True, kernel="direct", **options)
            between = bare_loop(configuration, number)
            autograd = this_project(number, dressed=True, kernel="autograd", **options)
            bare, after = (before + between) / 2, (between + bare_loop(configuration, number)) / 2
            found.append((bare / number * 1e6, direct / number * 1e6, bare / direct, after / autograd))
        bare, direct, faster, autograd_faster = (statistics.median(each) for each in zip(*found, strict=True))
        spreads = [_spread([each[place] for each in found]) for place in (2, 3)]
        print(
            f"{name:24}{bare:9.0f} us{direct:9.0f} us{bare / autograd_faster:9.0f} us"
            f"{f'{faster:.2f} x {spreads[0]}':>24}{f'{autograd_faster:.2f} x {spreads[1]}':>24}",
            flush=True,
        )


def _spread(values: list[float]) -> str:
    return f"({min(values):.2f} to {max(values):.2f})"


def _fitting(configuration: Configuration, seconds: float) -> int:
    """How many updates take so long; the first ones warm everything up."""
    bare_loop(configuration, 50)
    return max(20, int(seconds / (bare_loop(configuration, 50) / 50)))


def show_growth(rounds: int, seconds: float) -> None:
    """How the cost of an update grows with one option of `aligned`, direct and without a Trainer."""
    for name, values in GROWTH.items():
        print(f"\n{name}")
        for value in values:
            configuration = configure("aligned", **{name: value}, encoding="one-hot")
            number = _fitting(configuration, seconds)
            direct_alone(configuration, 20)
            pairs = [(bare_loop(configuration, number), direct_alone(configuration, number)) for _ in range(rounds)]
            ratio = statistics.median(bare / direct for bare, direct in pairs)
            direct = statistics.median(direct for _, direct in pairs) / number
            print(f"{value:>10}{direct * 1e6:9.0f} us{ratio:8.2f} x the bare loop", flush=True)


def show_limit(rounds: int, seconds: float) -> None:
    """What the arithmetic alone would take: each product at the speed of a large one, Adam at that of a copy."""
    print()
    for mode in ("lag", "aligned"):
        configuration = configure(mode)
        plan = Plan(configuration)
        lanes, steps, hidden, size = (
            plan.layout.num_lanes, plan.layout.num_steps, configuration.hidden_size, symbol_size(configuration),
        )  # fmt: skip
        recurrent, head = steps * lanes * 4 * hidden * hidden, plan.num_answered * lanes * hidden * size
        operations = 3 * 2 * (recurrent + head)  # forward, and backward by what is multiplied and by the weights
        parameters = sum(parameter.numel() for parameter in plan.model().parameters())
        limit = operations / _product_speed() + 7 * 4 * parameters / _copy_speed(parameters)
        number = _fitting(configuration, seconds)
        direct_alone(configuration, 20)
        taken = statistics.median(direct_alone(configuration, number) / number for _ in range(rounds))
        print(
            f"{mode}: {operations / 1e6:.1f} million operations and 7 passes over {parameters:,} weights would take "
            f"{limit * 1e6:.0f} us; a direct update takes {taken * 1e6:.0f} us, {limit / taken:.0%} of what is possible"
        )


def _product_speed() -> float:
    """Operations a second of a product of 512 x 512."""
    matrix, result = torch.randn(512, 512), torch.empty(512, 512)
    return 2 * 512**3 / min(_seconds(lambda: torch.mm(matrix, matrix, out=result)) for _ in range(20))


def _copy_speed(number: int) -> float:
    """Bytes a second, read and written, of a copy of so many numbers."""
    source, target = torch.randn(number), torch.empty(number)
    return 2 * 4 * number / min(_seconds(lambda: target.copy_(source)) for _ in range(200))


def _seconds(act: Any) -> float:
    begin = time.perf_counter()
    act()
    return time.perf_counter() - begin


def _options() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "--rounds", {"type": int, "default": 5}
    yield "--seconds", {"type": float, "default": 1.0, "help": "how long a bare loop takes"}
    yield "--growth", {"action": "store_true", "help": "how the cost grows, instead of the shapes"}
    yield "--limit", {"action": "store_true", "help": "the share of the limit, instead of the shapes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, options in _options():
        parser.add_argument(name, **options)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    os.environ.setdefault("COLUMNS", "120")
    with torch.random.fork_rng():
        if arguments.growth:
            show_growth(arguments.rounds, arguments.seconds)
        elif arguments.limit:
            show_limit(arguments.rounds, arguments.seconds)
        else:
            compare_shapes(arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
