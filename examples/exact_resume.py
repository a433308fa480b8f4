"""Exact resume of `EchoModule` with any Trainer: the stream goes on where the checkpoint was."""

import pytorch_lightning as pl
import torch

from echo_torch import EchoLSTM, EchoModule, EchoStream, LaneLayout, RandomSymbols, StreamData

LAYOUT = LaneLayout(num_lanes=16, chunk_length=5, lag=1, reset_every=40)
torch.set_num_threads(1)  # faster than two at this size


def training(start, rank, num_ranks):
    """From chunk `start` on; of several ranks each reads its own lanes."""
    return EchoStream(LAYOUT, RandomSymbols(20), start=start, rank=rank, num_ranks=num_ranks)


def validation(rank, num_ranks):
    """Other symbols, forty chunks of them."""
    symbols = RandomSymbols(20, split="evaluation")
    return EchoStream(LAYOUT, symbols, num_chunks=40, rank=rank, num_ranks=num_ranks)


def train(max_steps, checkpoint=None):
    """A module with the same first weights, trained for so many updates in all."""
    torch.manual_seed(0)
    module = EchoModule(EchoLSTM(20, 32), learning_rate=1e-2)
    trainer = pl.Trainer(
        max_steps=max_steps,
        val_check_interval=100,
        check_val_every_n_epoch=None,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, StreamData(training, validation), ckpt_path=checkpoint, weights_only=True)
    return module, trainer


if __name__ == "__main__":
    whole, trainer = train(300)
    print(f"validation accuracy after 300 updates: {trainer.callback_metrics['validation_accuracy']:.1%}")
    train(133)[1].save_checkpoint("half.ckpt")
    resumed, _ = train(300, "half.ckpt")
    same = all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))
    print(f"stopped after 133 and gone on with from chunk 133: weights {'equal to the bit' if same else 'differ'}")
    assert same
