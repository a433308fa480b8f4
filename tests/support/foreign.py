"""Modules as other people write them, and the audit of their training."""

import pytorch_lightning as pl
import torch
from support.trainers import quiet_trainer
from torch import nn
from torch.nn.modules import module as torch_modules

from echo_torch import Stamps
from echo_torch.diagnosis.auditing.audit import StateAudit
from echo_torch.lab.console import quiet_lightning

ROWS, STEPS, WIDTH = 3, 4, 5


class Own(pl.LightningModule):
    """An LSTM whose state is kept in `self.hidden`, a tuple, detached by hand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.core = nn.LSTM(1, WIDTH, batch_first=True)
        self.hidden = None

    def read(self, batch):
        output, state = self.core(batch["x"], self.hidden)
        self.hidden = tuple(field.detach() for field in state)
        return output

    def training_step(self, batch, batch_idx):
        return self.read(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OwnCells(Own):
    """A recurrence that no layer of torch.nn computes."""

    def __init__(self):
        super().__init__()
        self.core = nn.Linear(1 + WIDTH, WIDTH)

    def read(self, batch):
        state = torch.zeros(ROWS, WIDTH) if self.hidden is None else self.hidden
        for x in batch["x"].unbind(1):
            state = self.core(torch.cat([x, state], dim=1)).tanh()
        self.hidden = state.detach()
        return state


def batch_at(start, rows=ROWS, steps=STEPS, **more):
    generator = torch.Generator().manual_seed(start + 1)
    at = (start + torch.arange(steps)).expand(rows, steps)
    return {"x": torch.randn(rows, steps, 1, generator=generator), "at": at, **more}


def batches(*starts):
    return [batch_at(start) for start in starts]


RIGHT = batches(0, 4, 8, 12)
LOST = batches(0, 4, 12, 16)  # one batch is missing


def stamps(batch):
    return Stamps(step=batch["at"])


def loader(given):
    return torch.utils.data.DataLoader(given, batch_size=None)


def fit(module, given=RIGHT, policy="raise", *, validation=None, epochs=1, audit=None, **options):
    """The audit of a training in which no warning is allowed but those that the test expects."""
    state = options.pop("state", None)
    more = {} if state is None else {"state": state}
    audit = audit or StateAudit(policy, stamps=stamps, **more)
    options = {"num_sanity_val_steps": 0, "log_every_n_steps": 1, **options}
    loaders = [loader(given)] + ([] if validation is None else [loader(validation)])
    with quiet_lightning():
        quiet_trainer(max_epochs=epochs, callbacks=[audit], **options).fit(module, *loaders)
    return audit


def no_hooks_are_left():
    return not torch_modules._global_forward_hooks and not torch_modules._global_forward_pre_hooks


STATES = {"unseen": None, "shown": lambda module: module.hidden}  # what the audit is given
