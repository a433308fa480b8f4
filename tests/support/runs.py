"""Short runs, and how they are stopped."""

import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from echo_torch import EchoModule, RunDirectory, configure
from echo_torch.training.blocks import BlockEnds, BlockModule


def short(mode="lag", **options):
    """A run of a second or two on the CPU, with rows and checkpoints often enough to stop between them."""
    often = {"updates": 24, "log_every": 4, "checkpoint_every": 6, "accelerator": "cpu"}
    return configure(mode, **{**often, **options})


def copied(run, folder):
    """A run to do with as a test likes."""
    shutil.copytree(run.path, folder)
    return RunDirectory(folder)


def everything(folder):
    """All files of a folder, by the path in it."""
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


class Here:
    """An executor that does the work at once, in this process."""

    def submit(self, function, argument):
        """As an executor of `concurrent.futures`."""
        done = Future()
        done.set_result(function(argument))
        return done


class StopError(Exception):
    """Stands for whatever ends a process."""


def at_update(monkeypatch, cursor, before=lambda module: None, after=lambda module: None):
    """Do something before, or after, a training's update of a chunk, whatever its kernel: a block begins with it."""

    def around(step):
        def stepping(module, batch, batch_idx):
            is_there = np.ravel(batch.index)[0] == cursor
            if is_there:
                before(module)
            loss = step(module, batch, batch_idx)
            if is_there:
                after(module)
            return loss

        return stepping

    def ends_there(ends, begin, end_of=BlockEnds.__call__):
        return min(cursor, end_of(ends, begin)) if begin < cursor else end_of(ends, begin)

    monkeypatch.setattr(BlockEnds, "__call__", ends_there)
    for kind in (EchoModule, BlockModule):
        monkeypatch.setattr(kind, "training_step", around(kind.training_step))


def stop_at(monkeypatch, cursor):
    """Let the training fail at a chunk, before its update."""

    def stop(module):
        raise StopError

    at_update(monkeypatch, cursor, before=stop)
