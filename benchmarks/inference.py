"""What an answer costs: `python benchmarks/inference.py [--rounds N]`; and what a large vocabulary costs in training.

The stream is timed from the line of text to the line of text, parsing included, beside a bare loop of lookup, nn.LSTM
step, head and argmax over numbers that are tensors already. Both run in turn, in one process and on one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import nn

from echo_torch.experiments.configuration import configure, count_parameters
from echo_torch.inference.online import OnlineEcho, answer_lines
from echo_torch.lab.plan import Plan
from echo_torch.models.encoding import count_asked, loss_sum, num_digits_of
from echo_torch.models.state import detach_state


def bare_loop(lstm: nn.LSTM, head: nn.Linear, numbers: torch.Tensor) -> float:
    """Seconds for (steps, lanes) numbers, one step at a time."""
    vectors, state = torch.eye(100), None
    begin = time.perf_counter()
    with torch.inference_mode():
        for column in numbers:
            output, state = lstm(vectors[column].unsqueeze(1), state)
            head(output[:, -1]).argmax(dim=-1)
    return time.perf_counter() - begin


def stream(model: nn.Module, lines: list[str], num_lanes: int) -> float:
    """Seconds for the lines of text, one at a time."""
    said: list[str] = []
    begin = time.perf_counter()
    answer_lines(OnlineEcho(model, num_lanes), lines, said.append, print)
    seconds = time.perf_counter() - begin
    if len(said) != len(lines):
        raise RuntimeError("a line was not answered")
    return seconds


def update_time(vocabulary_size: int, num_updates: int) -> float:
    """Seconds of one update of aligned lanes, in a plain loop with the project's parts."""
    configuration = configure("aligned", vocabulary_size=vocabulary_size, hidden_size=128)
    model = Plan(configuration).model()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    state = model.initial_state(configuration.reading.lanes)
    times = []
    for _, chunk in zip(range(num_updates), Plan(configuration).training(), strict=False):
        begin = time.perf_counter()
        logits, state = model(chunk.symbols, detach_state(state))
        loss = loss_sum(logits, chunk.targets, num_digits_of(model)) / count_asked(chunk.targets).clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = Plan(configure("aligned")).model()
    for num_lanes, num_steps, asked in ((1, 3000, 1.5), (256, 300, 1.3)):
        numbers = torch.randint(0, 100, (num_steps, num_lanes), generator=torch.Generator().manual_seed(1))
        lines = [" ".join(map(str, column)) + "\n" for column in numbers.tolist()]
        ratios, times = [], []
        for _ in range(arguments.rounds + 1):  # the first one warms up
            bare = bare_loop(model.lstm, model.head, numbers)
            times.append(stream(model, lines, num_lanes) / num_steps)
            ratios.append(times[-1] * num_steps / bare)
        ratios, times = ratios[1:], times[1:]
        print(
            f"stream, {num_lanes} lanes: {statistics.median(times) * 1e6:.0f} us a line, "
            f"{num_lanes / statistics.median(times):,.0f} symbols/s, {statistics.median(ratios):.2f} x a bare loop "
            f"({min(ratios):.2f}, {max(ratios):.2f}; asked: <= {asked})"
        )
    first = 0.0
    for exponent in range(2, 10):
        configuration = configure("aligned", vocabulary_size=10**exponent, hidden_size=128)
        seconds = update_time(10**exponent, arguments.updates)
        first = first or seconds
        print(
            f"vocabulary 10^{exponent}, {configuration.encoding}: {seconds * 1e3:.2f} ms an update, "
            f"{seconds / first:.2f} x 10^2; {16 * count_parameters(configuration) / 2**20:.1f} MiB of weights, "
            "gradients and Adam's moments"
        )


if __name__ == "__main__":
    main()
