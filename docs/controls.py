"""Controls of docs/findings.md that no command has: what is left of a symbol where the recurrence is not trained.

`python docs/controls.py --seeds 5` trains `aligned` with chunks of one step three ways and prints a table (about eight
minutes on one core): everything trained, the head alone at the same recipe, and a head fitted to the end, by logistic
regression, on 160,000 states of the untrained recurrence.
"""

import argparse
from typing import Any

import torch
from torch import nn

from echo_torch import Configuration, EchoLSTM, EchoModule, configure
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.finished import evaluation_result
from echo_torch.lab.plan import Plan
from echo_torch.lab.runner import build_module, build_trainer
from echo_torch.lab.tables import over_seeds, with_interval
from echo_torch.models.encoding import NOT_ASKED

STATES = 160_000


def train(configuration: Configuration, model: EchoLSTM) -> None:
    """The run's own recipe, on whatever weights of the model are to be trained."""
    module: EchoModule = build_module(Plan(configuration), model)
    with quiet_lightning():
        build_trainer(configuration).fit(module, Plan(configuration).training().loader())


def fit_head(configuration: Configuration, model: EchoLSTM) -> None:
    """Fit the head alone, to the end: a convex problem, so nothing hangs on a budget or a learning rate."""
    outputs, targets, state = [], [], model.initial_state(32)
    handle = model.lstm.register_forward_hook(lambda layer, inputs, output: outputs.append(output[0].flatten(0, 1)))
    stream = Plan(configuration).training()
    with torch.no_grad():
        for chunk in stream:
            _, state = model(chunk.symbols, state)
            targets.append(chunk.targets.flatten())
            if sum(map(len, targets)) >= STATES:
                break
    handle.remove()
    states, answers = torch.cat(outputs), torch.cat(targets)
    optimizer = torch.optim.LBFGS(model.head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model.head(states), answers, ignore_index=NOT_ASKED)
        loss.backward()
        return loss

    optimizer.step(closure)


def result(way: str, vocabulary_size: int, seed: int) -> dict[str, Any]:
    """What the evaluation finds, as in result.json."""
    c = configure("aligned", chunk=1, updates=8000, vocabulary_size=vocabulary_size, seed=seed, accelerator="cpu")
    model = Plan(c).model()
    model.lstm.requires_grad_(way == "all trained")
    if way == "head fitted":
        fit_head(c, model)
    else:
        train(c, model)
    return evaluation_result(Plan(c), model)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(1, parser.parse_args().seeds + 1)
    torch.set_num_threads(1)
    print("| way | 100 symbols | 10 symbols |\n| --- | --- | --- |")
    for way in ("all trained", "head trained", "head fitted"):
        cells = []
        for size in (100, 10):
            cells.append(with_interval(over_seeds([result(way, size, seed) for seed in seeds])))
        print(f"| {way} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
