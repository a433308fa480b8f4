"""Many updates of one batch: what a Trainer does around a batch costs as much as an update."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf, isfinite

import torch
from torch import Tensor

from echo_torch.data.stream import Block
from echo_torch.models.encoding import check_symbols
from echo_torch.models.kernels.flat_weights import give_back
from echo_torch.models.networks import EchoLSTM
from echo_torch.models.state import LSTMState
from echo_torch.training.direct import Counts, DirectUpdate
from echo_torch.training.module import EchoModule

MAX_SECONDS = 0.05  # in a block: a bar that moves, and a Ctrl-C that is heard at once


class BlockEnds:
    """Where the blocks of a training end; the number of an update is that of its chunk.

    A block ends at every multiple of certain numbers, so that what happens there, such as a row of metrics, happens
    where it does without blocks; and it is short enough to be over soon. Where the blocks end changes no result.

    >>> ends = BlockEnds([100, 150], last=320)
    >>> ends.took(1, seconds=0.0)
    >>> ends(0), ends(99)
    (2, 100)

    Args:
        multiples: Every multiple of each of them ends a block.
        last: The last update, which ends one too.

    Attributes:
        num_updates: A block holds at most so many: 1 at first, more when it is known how long they take.
    """

    def __init__(self, multiples: Iterable[int], last: int) -> None:
        self._multiples, self._last = tuple(multiples), last
        self.num_updates = 1

    def __call__(self, begin: int) -> int:
        """The number of the chunk after the last of the block that begins with this one."""
        ends = [(begin // number + 1) * number for number in self._multiples]
        if begin < self._last:
            ends.append(self._last)
        return min(begin + self.num_updates, *ends)

    def took(self, num_updates: int, seconds: float) -> None:
        """Learn how long some updates took: half the time is aimed at, because the next may take longer."""
        fitting = MAX_SECONDS / 2 * num_updates / seconds if seconds > 0 else inf
        self.num_updates = max(1, int(min(2 * self.num_updates, fitting)))


class BlockModule(EchoModule):
    """`EchoModule` whose updates are derived by hand, several of each batch; `DirectUpdate` says which.

    Its batches are those of `stream.loader(block=ends)`. Its rows, validations and checkpoints are as of `EchoModule`,
    the optimiser's state among them, so its runs look alike.

    Args:
        model: The network.
        ends: Where blocks end.
        num_answered: Only so many of the last columns are ever asked.
        learning_rate: As of `EchoModule`, like `epsilon`.
        epsilon: As of `EchoModule`.
        clip_norm: Longer gradients are scaled down to this norm; None: none is.
        validate_every: Updates between two validations; None: there is none.

    Attributes:
        ends: Where blocks end.
    """

    model: EchoLSTM

    def __init__(
        self,
        model: EchoLSTM,
        ends: BlockEnds,
        *,
        num_answered: int,
        learning_rate: float = 1e-3,
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
        validate_every: int | None = None,
    ) -> None:
        super().__init__(model, learning_rate=learning_rate, epsilon=epsilon)
        self.automatic_optimization = False
        self.ends = ends
        self._num_answered, self._clip_norm, self._validate_every = num_answered, clip_norm, validate_every
        self._update: DirectUpdate | None = None

    def on_train_start(self) -> None:
        """A resumed training begins with what its checkpoint holds; the validation due then is behind it."""
        super().on_train_start()
        self._update = None
        self._wants_validation(after=None)

    def training_step(self, block: Block, batch_idx: int) -> None:  # type: ignore[override]  # blocks, not chunks
        """Make the updates of a block.

        Raises:
            LossError: If the loss of one is not finite.
        """
        began = time.perf_counter()
        if self._resumed_at is not None:
            self._check_begin(int(block.index[0]))
        symbols, targets, starts, sequence = map(torch.from_numpy, block[:4])
        check_symbols(symbols, self.model.vocabulary_size)
        update = self._update or self._make_update(*symbols.shape[1:])
        state = self._carry.begin(starts[0])
        update.state = LSTMState(*(field.unsqueeze(1) for field in state))
        on_device = [field.to(self.device).unsqueeze(1) for field in (symbols, targets, starts)]
        counts = update.make(*on_device)
        self._pool_all(counts, sequence)
        self._carry.end(LSTMState(*(field.squeeze(1) for field in update.state)), cursor=int(block.index[-1]) + 1)
        made = self._count_updates(len(symbols))
        self._log_if_due(made)
        self._wants_validation(after=made)
        self.ends.took(len(symbols), time.perf_counter() - began)

    def _begin_aside(self) -> None:
        """The network answers with weights of its own, which cuDNN needs; the next update takes them over anew."""
        super()._begin_aside()
        give_back(self.model)
        self._update = None

    def _make_update(self, num_lanes: int, num_steps: int) -> DirectUpdate:
        """The update of this network, which goes on with what the optimiser remembers."""
        self._update = DirectUpdate(
            [self.model],
            num_lanes=num_lanes,
            num_steps=num_steps,
            num_answered=self._num_answered,
            learning_rate=self.learning_rate,
            epsilon=self.epsilon,
            clip_norm=self._clip_norm,
        )
        self._update.share_moments(0, self.model, self.trainer.optimizers[0])
        return self._update

    def _pool_all(self, counts: Counts, sequences: Tensor) -> None:
        """Count the targets of a block, one update after the other, so that its length changes no bit of the sum."""
        pooled = [0.0] * len(counts) if self._pooled is None else self._pooled.tolist()
        for number, values in enumerate(zip(*(field[:, 0].tolist() for field in counts), strict=True)):
            if not isfinite(values[0]):
                self._refuse(self.trainer.global_step + number + 1, sequences[number])
            pooled = [one + other for one, other in zip(pooled, values, strict=True)]
        self._pooled = torch.tensor(pooled, dtype=torch.float64)

    def _count_updates(self, number: int) -> int:
        """Tell Lightning how many updates were made, and return how many there are now."""
        loop = self.trainer.fit_loop.epoch_loop.manual_optimization
        for progress in (loop.optim_step_progress.total, loop.optim_step_progress.current):
            progress.ready += number
            progress.completed += number
        return self.trainer.global_step

    def _wants_validation(self, after: int | None) -> None:
        """Ask Lightning, which counts batches, for a validation after this one, or for none."""
        is_due = after is not None and self._validate_every is not None and after % self._validate_every == 0
        self.trainer.val_check_batch = 1 if is_due else inf
