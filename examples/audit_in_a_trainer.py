"""`StateAudit` in a Trainer, beside a module and batches of one's own: it says where a state belongs elsewhere."""

import warnings

import pytorch_lightning as pl
import torch
from torch import nn

from echo_torch import Stamps, StateAudit

ROWS, STEPS = 4, 5


class Own(pl.LightningModule):
    """Carries its state as one does by hand."""

    def __init__(self):
        super().__init__()
        self.core, self.head, self.state = nn.LSTM(1, 8, batch_first=True), nn.Linear(8, 1), None

    def training_step(self, batch, batch_idx):
        output, (hidden, cell) = self.core(batch["values"], self.state)
        self.state = hidden.detach(), cell.detach()
        return nn.functional.mse_loss(self.head(output), batch["values"])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def batches(number=12):
    """Each row reads a series of its own, five steps at a time."""
    series = torch.randn(ROWS, number * STEPS, 1)
    step = torch.arange(number * STEPS).repeat(ROWS, 1)
    parts = zip(series.split(STEPS, dim=1), step.split(STEPS, dim=1), strict=True)
    return [{"values": values, "position": position} for values, position in parts]


def audited(given):
    audit = StateAudit("warn", stamps=lambda batch: Stamps(step=batch["position"]), state=lambda module: module.state)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[audit], enable_checkpointing=False, **quiet)
    trainer.fit(Own(), torch.utils.data.DataLoader(given, batch_size=None))
    return audit


if __name__ == "__main__":
    right = batches()
    print("as they are:", dict(audited(right).gaps))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        print("one lost:", dict(audited(right[:5] + right[6:]).gaps))
    print(next(str(warning.message) for warning in said if "Lane" in str(warning.message)))
