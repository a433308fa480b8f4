"""Training with carried state under Lightning: one chunk, one batch, one update."""

from __future__ import annotations

from pytorch_lightning import LightningModule

from echo_torch.training.bodies import EchoModuleBody


class EchoModule(EchoModuleBody, LightningModule):
    """Carries a model's state from chunk to chunk: resets it where a chunk says so, detaches it at every chunk.

    It knows no experiment. What is read, asked, carried and reset stands in the chunks. Any Trainer runs it:

        module = EchoModule(EchoLSTM(), learning_rate=1e-3)
        Trainer(max_steps=8000).fit(module, stream.loader())

    Every `trainer.log_every_n_steps` updates, and at the last one, a row goes to the loggers: `loss` and `accuracy`
    pooled over all targets since the row before, and `targets`, their number. Loss and accuracy are in
    `trainer.callback_metrics` too. A validation gives one row with `validation_` before each name.

    Training, validation, test and prediction have a state each, and none sees another's.

    Its checkpoints hold, of every rank, the carried state, the counters since the last row and the random state, and
    they hold `cursor`. A training that is to go on as if it had never stopped needs a loader that begins there;
    Lightning asks a data module for it after the checkpoint was read:

        def train_dataloader(self):
            return EchoStream(layout, source, start=self.trainer.lightning_module.cursor).loader()

    >>> from echo_torch import EchoLSTM
    >>> module = EchoModule(EchoLSTM(10, 4))
    >>> module.carry, module.cursor
    (None, 0)

    Args:
        model: Anything with `forward(symbols, state) -> (logits, state)` and `initial_state(lanes)`.
        learning_rate: Adam's step size.
        epsilon: Adam's denominator offset: PyTorch's default is 1e-8, Keras's 1e-7.

    Attributes:
        carry: The state that the next chunk begins with, detached; None before the first.
        cursor: The number of the chunk that training reads next.
    """
