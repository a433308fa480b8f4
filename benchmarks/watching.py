"""What a watched update costs, one after the watch is over, the report, and a script that has nothing to watch.

    python benchmarks/watching.py [--rounds 9] [--updates 45] [--rows 10,64]

Watched and plain loops take turns within one process, because the machine's speed drifts; ratios are taken within a
round. A script that has nothing recurrent is started as one, in turns with and without the command.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from echo_torch import watch

_AFTERWARDS = 5  # updates that are watched, where those behind them are timed
_UNRECURRENT = """
import torch
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(100):
    optimizer.zero_grad()
    model(torch.randn(8, 3)).mean().backward()
    optimizer.step()
"""


class LanguageModel(nn.Module):
    """Lanes of a text, 20 symbols a chunk, the state carried."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(100, 50), nn.LSTM(50, hidden_size)
        self.head, self.state = nn.Linear(hidden_size, 100), None

    def losses(self, num_updates: int, num_rows: int) -> Iterator[Tensor]:
        """The loss of each chunk."""
        text = torch.randint(100, (20 * num_updates + 1, num_rows))
        for begin in range(0, 20 * num_updates, 20):
            logits = self(text[begin : begin + 20])
            yield F.cross_entropy(logits.flatten(0, 1), text[begin + 1 : begin + 21].flatten())

    def forward(self, symbols: Tensor) -> Tensor:  # noqa: D102
        output, state = self.lstm(self.embedding(symbols), self.state)
        self.state = tuple(field.detach() for field in state)
        return self.head(output)


class Classifier(nn.Module):
    """Padded rows of 5 to 30 words, without a state; the last word's features are classified."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 50, padding_idx=0)
        self.lstm, self.head = nn.LSTM(50, hidden_size, batch_first=True), nn.Linear(hidden_size, 2)

    def losses(self, num_updates: int, num_rows: int) -> Iterator[Tensor]:
        """The loss of each batch."""
        for _ in range(num_updates):
            lengths = torch.randint(5, 31, (num_rows,))
            words = nn.utils.rnn.pad_sequence([torch.randint(1, 100, (int(each),)) for each in lengths], True)
            yield F.cross_entropy(self(words, lengths), torch.randint(2, (num_rows,)))

    def forward(self, words: Tensor, lengths: Tensor) -> Tensor:  # noqa: D102
        output, _ = self.lstm(self.embedding(words))
        return self.head(output[torch.arange(len(output)), lengths - 1])


class Cells(nn.Module):
    """A cell that the model steps by itself over 20 steps."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.cell, self.head, self.state = nn.GRUCell(50, hidden_size), nn.Linear(hidden_size, 1), None

    def losses(self, num_updates: int, num_rows: int) -> Iterator[Tensor]:
        """The loss of each chunk."""
        series = torch.randn(20 * num_updates, num_rows, 50)
        for chunk in series.split(20):
            yield self(chunk).square().mean()

    def forward(self, chunk: Tensor) -> Tensor:  # noqa: D102
        outputs = []
        for values in chunk:
            self.state = self.cell(values, self.state)
            outputs.append(self.state)
        self.state = self.state.detach()
        return self.head(torch.stack(outputs))


class Images(nn.Module):
    """Images that a dataset decodes one by one, read row by row, without a state; a loader makes the batches."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, hidden_size, batch_first=True), nn.Linear(hidden_size, 10)

    def losses(self, num_updates: int, num_rows: int) -> Iterator[Tensor]:
        """The loss of each batch."""
        for images, labels in DataLoader(Decoded(num_updates * num_rows), num_rows, shuffle=True):
            yield F.cross_entropy(self(images), labels)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        output, _ = self.lstm(images.squeeze(1))
        return self.head(output[:, -1])


class Decoded(Dataset[tuple[Tensor, int]]):
    """Images of bytes, made floats when they are asked for."""

    def __init__(self, number: int) -> None:
        self._images = np.random.default_rng(0).integers(0, 256, (number, 28, 28), np.uint8)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self._images[index].copy())[None].float().div(255)
        return image.sub(0.13).div(0.31), index % 10


class Long(nn.Module):
    """Two cells that the model steps over a whole series."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.LSTMCell(1, 50), nn.LSTMCell(50, 50), nn.Linear(50, 1)

    def forward(self, series: Tensor) -> Tensor:  # noqa: D102
        one = other = (torch.zeros(len(series), 50),) * 2
        outputs = []
        for values in series.split(1, dim=1):
            one = self.first(values, one)
            other = self.second(one[0], other)
            outputs.append(self.head(other[0]))
        return torch.cat(outputs, dim=1)


def time_updates(
    kind: Callable[[int], nn.Module], hidden_size: int, num_updates: int, num_rows: int, *, first: int = 0
) -> float:
    """Seconds of a training's updates, the first ones left out."""
    torch.manual_seed(0)
    model = kind(hidden_size)
    optimizer = torch.optim.Adam(model.parameters())
    begin = time.perf_counter()
    for number, loss in enumerate(model.losses(first + num_updates, num_rows)):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number + 1 == first:
            begin = time.perf_counter()
    return time.perf_counter() - begin


def ratios_of(
    kind: Callable[[int], nn.Module], hidden_size: int, num_rows: int, rounds: int, num_updates: int
) -> list[float]:
    """Of each round, the time of a watched training over that of the same one by itself."""
    ratios = []
    for _ in range(rounds + 1):
        plain = time_updates(kind, hidden_size, num_updates, num_rows)
        with watch(updates=num_updates + 1):
            ratios.append(time_updates(kind, hidden_size, num_updates, num_rows) / plain)
    return ratios[1:]  # the first one warms up


def ratios_afterwards(hidden_size: int, num_rows: int, rounds: int, num_updates: int) -> list[float]:
    """The same of the updates behind those that are watched."""
    ratios = []
    for _ in range(rounds + 1):
        times = []
        for context in (contextlib.nullcontext(), watch(updates=_AFTERWARDS)):
            with context:
                times.append(time_updates(LanguageModel, hidden_size, 4 * num_updates, num_rows, first=_AFTERWARDS))
        ratios.append(times[1] / times[0])
    return ratios[1:]


def seconds_of_reports(rounds: int) -> list[float]:
    """What it takes to say what was seen of 5,000 calls, as many as are watched, of two cells over 97 series."""
    model, series, seconds = Long(), torch.randn(97, 999), []
    with watch() as seen:
        for _ in range(3):
            model(series).square().mean().backward()
    for _ in range(rounds):
        begin = time.perf_counter()
        seen.lines()
        seconds.append(time.perf_counter() - begin)
    return seconds


def seconds_without_recurrence(rounds: int) -> list[float]:
    """What the command adds to a script that trains nothing recurrent, beyond the import of torch."""
    added = []
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "script.py"
        script.write_text(_UNRECURRENT)
        for _ in range(rounds):
            times = []
            for words in ([], ["-m", "echo_torch", "watch"]):
                begin = time.perf_counter()
                subprocess.run([sys.executable, *words, script], check=True, capture_output=True)
                times.append(time.perf_counter() - begin)
            added.append(times[1] - times[0])
    return added


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1. Got {word!r}.")
    return int(word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=_count, default=9)
    parser.add_argument("--updates", type=_count, default=45)
    parser.add_argument("--rows", type=lambda words: [*map(_count, words.split(","))], default=[10, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{arguments.rounds} rounds of {arguments.updates} updates; watched / plain, median (lowest, highest)")
    shared = arguments.rounds, arguments.updates
    for rows, kind, size in itertools.product(arguments.rows, (LanguageModel, Classifier, Cells, Images), (50, 200)):
        _print(f"{kind.__name__}, {size} units, {rows} rows", ratios_of(kind, size, rows, *shared))
    _print("afterwards, 50 units, 10 rows", ratios_afterwards(50, 10, *shared))
    _print("report, seconds", seconds_of_reports(arguments.rounds))
    _print("nothing recurrent, seconds more", seconds_without_recurrence(min(arguments.rounds, 5)))


def _print(what: str, values: list[float]) -> None:
    print(f"  {what:34}{statistics.median(values):7.3f} ({min(values):.3f}, {max(values):.3f})", flush=True)


if __name__ == "__main__":
    main()
