"""A stateful language model in Lightning is stopped in the middle of an epoch and later resumed
from its checkpoint. Mended: the carried state goes into the checkpoint and the resumed fit begins
with it; the loader of that fit begins at the batch after the last one that was read.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message=".*ended before the epoch ended.*")

WORDS = 40


class TextRows(Dataset):
    """Item i holds the i-th stretch of four parallel rows of text."""

    def __init__(self, text, rows=4, length=10):
        self.text = text.view(rows, -1)
        self.length = length

    def __len__(self):
        return (self.text.shape[1] - 1) // self.length

    def __getitem__(self, index):
        begin = index * self.length
        piece = self.text[:, begin : begin + self.length + 1]
        return piece[:, :-1], piece[:, 1:]


class LanguageModel(pl.LightningModule):
    def __init__(self, size=16):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, size)
        self.rnn = nn.LSTM(size, size, batch_first=True)
        self.output = nn.Linear(size, WORDS)
        self.hidden = None
        self.restored = None
        self.last_loss = float("nan")

    def on_save_checkpoint(self, checkpoint):
        checkpoint["hidden"] = self.hidden

    def on_load_checkpoint(self, checkpoint):
        self.restored = checkpoint["hidden"]

    def on_fit_start(self):
        self.hidden = self.restored

    def training_step(self, batch, batch_index):
        words, following = batch
        features, hidden = self.rnn(self.embedding(words), self.hidden)
        self.hidden = tuple(part.detach() for part in hidden)
        scores = self.output(features)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten())
        self.last_loss = loss.item()
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


def make_trainer(max_steps):
    return pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def main():
    pl.seed_everything(22, verbose=False)
    loader = DataLoader(TextRows(torch.randint(0, WORDS, (4 * 301,))), batch_size=None)
    model = LanguageModel()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "half.ckpt"
        trainer = make_trainer(max_steps=12)
        trainer.fit(model, loader)
        trainer.save_checkpoint(checkpoint)
        order = torch.arange(len(loader)).roll(-trainer.global_step).tolist()
        loader = DataLoader(loader.dataset, batch_size=None, sampler=order)
        make_trainer(max_steps=24).fit(model, loader, ckpt_path=checkpoint)
    print(f"last loss {model.last_loss:.4f}")


if __name__ == "__main__":
    main()
