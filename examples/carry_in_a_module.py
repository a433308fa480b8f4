"""`Carry` in a LightningModule of one's own: float inputs, a regression loss, an optimiser of its own, exact resume."""

import itertools

import pytorch_lightning as pl
import torch
from carry_in_a_loop import Echo, batch
from torch import nn

from echo_torch import Carry


class Own(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = Echo()
        self.carry = Carry(self.net.initial_state)

    def training_step(self, batch, batch_idx):
        starts, inputs, targets, number = batch
        outputs, state = self.net(inputs, self.carry.begin(starts, self.trainer.state.stage))
        self.carry.end(state, cursor=number + 1)
        return nn.functional.mse_loss(outputs, targets)

    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters(), lr=1e-2)

    def on_save_checkpoint(self, checkpoint):  # Lightning calls it on all ranks
        checkpoint["carry"] = self.carry.state_dict()

    def on_load_checkpoint(self, checkpoint):
        self.carry.load_state_dict(checkpoint["carry"])


class Batches(torch.utils.data.IterableDataset):
    def __init__(self, carry):
        self.carry = carry

    def __iter__(self):  # asked for when the checkpoint was read: from the batch on that comes next
        return ((*batch(number), number) for number in itertools.count(self.carry.cursor))


def train(max_steps, checkpoint=None):
    pl.seed_everything(0, verbose=False)
    module = Own()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_steps=max_steps, accelerator="cpu", enable_checkpointing=False, **quiet)
    loader = torch.utils.data.DataLoader(Batches(module.carry), batch_size=None)
    trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    return module, trainer


if __name__ == "__main__":
    whole, _ = train(200)
    train(93)[1].save_checkpoint("half.ckpt")
    resumed, _ = train(200, "half.ckpt")
    same = all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))
    print(f"saved after 93 updates and gone on with to 200: weights {'equal to the bit' if same else 'differ'}")
    assert same
