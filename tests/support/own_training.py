"""Trainings of one's own with `Carry`, as a user writes them: floats, regression, dropout, an optimiser of one's own.

Each is a program that can be killed at any moment and goes on from its last checkpoint when it is started again.
"""

import os
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from echo_torch import Carry, EchoStream
from echo_torch.data import OwnSeries, SeriesLayout
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.processes import run_ranks
from echo_torch.training import SaveLast, WholeCheckpoints

NUM_UPDATES, EVERY = 600, 15
torch.set_num_threads(1)  # two wait for each other on a loaded machine


def stream(start=0, rank=0, num_ranks=1):
    """Sensor series of unequal length on four lanes; asked is the next value."""
    draw = np.random.default_rng(7)
    series = OwnSeries([draw.normal(size=(length, 2)) for length in (31, 8, 55, 23, 40, 12)])
    layout = SeriesLayout(series.lengths, num_lanes=4, chunk_length=5)
    following = lambda sequence, step: series(sequence, step + 1)  # noqa: E731
    return EchoStream(layout, series, targets=following, start=start, rank=rank, num_ranks=num_ranks)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.core, self.dropout, self.head = nn.GRU(2, 8, batch_first=True), nn.Dropout(0.2), nn.Linear(8, 2)

    def initial_state(self, num_lanes):
        return torch.zeros(1, num_lanes, 8)

    def forward(self, inputs, state):
        output, state = self.core(inputs, state)
        return self.head(self.dropout(output)), state


def loss_of(outputs, targets):
    asked = ~targets.isnan()
    return (outputs - targets.nan_to_num()).square()[asked].sum() / max(1, int(asked.sum()))


def in_a_loop(folder):
    """A plain loop; the checkpoint is written beside and then renamed."""
    folder, net = Path(folder), Net()
    optimizer, carry = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9), Carry(net.initial_state)
    parts, path = {"net": net, "optimizer": optimizer, "carry": carry}, folder / "last.pt"
    torch.manual_seed(3)
    if path.exists():
        for name, saved in torch.load(path, weights_only=True).items():
            parts[name].load_state_dict(saved)
    for chunk in stream(carry.cursor):
        if chunk.index >= NUM_UPDATES:  # also where the last kill came after the last checkpoint
            break
        outputs, state = net(chunk.symbols, carry.begin(chunk.starts))
        carry.end(state, cursor=chunk.index + 1)
        optimizer.zero_grad()
        loss_of(outputs, chunk.targets).backward()
        optimizer.step()
        if carry.cursor % EVERY == 0:
            torch.save({name: part.state_dict() for name, part in parts.items()}, folder / "next.pt")
            os.replace(folder / "next.pt", path)
    torch.save({"weights": net.state_dict(), "state": carry.state()}, folder / "end.pt")


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Net()
        self.carry = Carry(self.net.initial_state)

    def training_step(self, chunk, batch_idx):
        outputs, state = self.net(chunk.symbols, self.carry.begin(chunk.starts))
        self.carry.end(state, cursor=chunk.index + 1)
        return loss_of(outputs, chunk.targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    def on_save_checkpoint(self, checkpoint):
        checkpoint["carry"] = self.carry.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.carry.load_state_dict(checkpoint["carry"])


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        trainer = self.trainer
        cursor = trainer.lightning_module.carry.cursor
        return stream(cursor, trainer.global_rank, trainer.world_size).loader()


def in_a_module(folder, num_ranks=1):
    """A LightningModule; this project's callback and plugin write the checkpoint."""
    folder, module = Path(folder), Own()
    path = folder / "last.ckpt"
    torch.manual_seed(3)
    with quiet_lightning():
        trainer = pl.Trainer(
            max_steps=NUM_UPDATES, accelerator="cpu", devices=num_ranks, strategy="ddp" if num_ranks > 1 else "auto",
            callbacks=[SaveLast(path, EVERY)], plugins=[WholeCheckpoints()], logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, Data(), ckpt_path=path if path.exists() else None, weights_only=True)
        states = module.carry.state_dict()["ranks"]
    if trainer.is_global_zero:
        torch.save(
            {"weights": module.net.state_dict(), "state": [rank["carry"][0] for rank in states]}, folder / "end.pt"
        )


def in_a_module_of_two_ranks(folder):
    """The same in two processes, each with its lanes."""
    run_ranks(in_a_module, (str(folder), 2), 2)
