"""A Lightning module splits long rows of text and trains on one split after the other, with the
hidden state kept between them. Mended: each tensor of the LSTM's state is detached between the
splits, so that no update reaches into the graph of the one before.
"""

import logging
import warnings

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*LeafSpec.*")

WORDS = 40
SPLIT = 10


class TextRows(Dataset):
    """Item i holds the i-th stretch of four parallel rows of text."""

    def __init__(self, text, rows=4, length=30):
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
        self.automatic_optimization = False
        self.embedding = nn.Embedding(WORDS, size)
        self.rnn = nn.LSTM(size, size, batch_first=True)
        self.output = nn.Linear(size, WORDS)
        self.hiddens = None
        self.last_loss = float("nan")

    def training_step(self, batch, batch_index):
        optimizer = self.optimizers()
        words, following = batch
        for x, y in zip(words.split(SPLIT, dim=1), following.split(SPLIT, dim=1)):
            features, self.hiddens = self.rnn(self.embedding(x), self.hiddens)
            scores = self.output(features)
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), y.flatten())
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.hiddens = tuple(part.detach() for part in self.hiddens)
            self.last_loss = loss.item()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


def main():
    pl.seed_everything(9, verbose=False)
    text = torch.randint(0, WORDS, (4 * 301,))
    model = LanguageModel()
    trainer = pl.Trainer(
        max_steps=30,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(TextRows(text), batch_size=None))
    print(f"last loss {model.last_loss:.4f}")


if __name__ == "__main__":
    main()
