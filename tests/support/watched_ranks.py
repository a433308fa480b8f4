"""A fit of two processes under `StateWatch`, each with rows of its own; what is said goes to a file for each."""

import contextlib
import json
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from echo_torch import StateWatch
from echo_torch.lab import weights_sha256
from echo_torch.lab.console import quiet_lightning
from echo_torch.lab.processes import run_ranks


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.core, self.state = nn.LSTM(1, 5, batch_first=True), None

    def training_step(self, batch, batch_idx):
        output, state = self.core(batch, self.state)
        self.state = tuple(field.detach() for field in state)
        return output.square().mean()

    def train_dataloader(self):
        """Rank 0 reads in order, rank 1 skips two steps at a time."""
        whole = torch.randn(3, 80, 1, generator=torch.Generator().manual_seed(self.global_rank))
        given = [whole[:, begin : begin + 4] for begin in range(0, 60, 4 + 2 * self.global_rank)][:10]
        return torch.utils.data.DataLoader(given, batch_size=None)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, is_watched):
    module, seen = Own(), StateWatch()
    with quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", callbacks=[seen] if is_watched else [],
            logger=False, enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
            use_distributed_sampler=False,
        )  # fmt: skip
        path = Path(folder, f"rank{trainer.global_rank}")
        with path.with_suffix(".err").open("w") as file, contextlib.redirect_stderr(file):
            trainer.fit(module)
    found = {**seen.findings, "sha256": weights_sha256(module.state_dict())}
    path.with_suffix(".json").write_text(json.dumps(found))


def of_two(folder, *, is_watched):
    """Run it, and return what each rank found and said."""
    run_ranks(fit, (str(folder), is_watched), 2)
    paths = [Path(folder, f"rank{rank}") for rank in range(2)]
    return [(json.loads(path.with_suffix(".json").read_text()), path.with_suffix(".err").read_text()) for path in paths]
