"""Short runs, and how they are stopped."""

import shutil
from pathlib import Path

from echo_torch import EchoModule, RunDirectory, configure


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


class StopError(Exception):
    """Stands for whatever ends a process."""


def stop_at(monkeypatch, cursor):
    """Let the training fail at a chunk, before its update."""
    step = EchoModule.training_step

    def stopping(module, chunk, batch_idx):
        if chunk.index == cursor:
            raise StopError
        return step(module, chunk, batch_idx)

    monkeypatch.setattr(EchoModule, "training_step", stopping)
