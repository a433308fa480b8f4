"""A Lightning module keeps the hidden state on itself between steps, which a forum recommends, and
trains with a validation twice per epoch. Mended: a validation begins with an empty state of its
own and the state of the training is put back after it; an epoch, which reads the text from its
beginning, begins with an empty state too.
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
        self.previous_hidden = None
        self.last_loss = float("nan")

    def on_train_epoch_start(self):
        self.previous_hidden = None

    def on_validation_start(self):
        self.training_hidden, self.previous_hidden = self.previous_hidden, None

    def on_validation_end(self):
        self.previous_hidden = self.training_hidden

    def compute_loss(self, batch):
        words, following = batch
        features, hidden = self.rnn(self.embedding(words), self.previous_hidden)
        self.previous_hidden = tuple(part.detach() for part in hidden)
        scores = self.output(features)
        return nn.functional.cross_entropy(scores.flatten(0, 1), following.flatten())

    def training_step(self, batch, batch_index):
        loss = self.compute_loss(batch)
        self.last_loss = loss.item()
        return loss

    def validation_step(self, batch, batch_index):
        self.log("validation_loss", self.compute_loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


def main():
    pl.seed_everything(24, verbose=False)
    train_loader = DataLoader(TextRows(torch.randint(0, WORDS, (4 * 101,))), batch_size=None)
    validation_loader = DataLoader(TextRows(torch.randint(0, WORDS, (4 * 31,))), batch_size=None)
    model = LanguageModel()
    trainer = pl.Trainer(
        max_epochs=3,
        val_check_interval=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, train_loader, validation_loader)
    print(f"last loss {model.last_loss:.4f}")


if __name__ == "__main__":
    main()
