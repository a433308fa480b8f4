"""An update without autograd: many chunks, one after another, for several networks side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from echo_torch.data.chunk import NOT_ASKED
from echo_torch.models.encoding import to_digits
from echo_torch.models.kernels.flat_weights import FlatWeights
from echo_torch.models.kernels.lstm import LSTMKernel
from echo_torch.models.networks import EchoLSTM
from echo_torch.models.state import LSTMState


class Moments(NamedTuple):
    """What Adam remembers of all weights.

    Attributes:
        step: float32 scalar, the updates made.
        mean: Of the gradients, and `square` of their squares, decaying.
        square: As `mean`.
    """

    step: Tensor
    mean: FlatWeights
    square: FlatWeights


class Counts(NamedTuple):
    """What each of several updates has counted, before it was made; float64 and int64 (updates, members).

    Attributes:
        loss: Sum of the losses of the asked targets.
        correct: How many were answered right.
        asked: How many there were.
    """

    loss: Tensor
    correct: Tensor
    asked: Tensor


class DirectUpdate:
    """Trains several `EchoLSTM` of one shape, chunk after chunk, by a gradient that is derived by hand.

    With p = softmax(z) for the logits z of an asked target y, the loss is -log p_y and its derivative by z is p, less 1
    at y; where nothing is asked it is 0. Of digits there is one y each, and the loss is the sum. An update's loss is
    the mean over the asked targets. The gradient is clipped by its norm, where that is wanted, and Adam makes the
    update:

        m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
        w = w - learning_rate * m / (1 - b1^n) / (sqrt(v / (1 - b2^n)) + epsilon)

    The models' parameters become views of one array, so they are trained although nobody hands them back.

    Args:
        models: The networks.
        num_lanes: Rows of every chunk.
        num_steps: Columns of every chunk.
        num_answered: Only the last so many columns are ever asked; None: all.
        learning_rate: Adam's step size, or one for each network.
        epsilon: Adam's denominator offset.
        clip_norm: Longer gradients are scaled down to this norm; None: none is.

    Attributes:
        weights: The weights of all networks.
        moments: What Adam remembers.
    """

    def __init__(
        self,
        models: Sequence[EchoLSTM],
        *,
        num_lanes: int,
        num_steps: int,
        num_answered: int | None = None,
        learning_rate: float | Sequence[float] = 1e-3,
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
    ) -> None:
        self.weights = FlatWeights(models)
        self.weights.take_over(models)
        step = torch.zeros((), dtype=torch.float32, device=self.weights.values.device)
        self.moments = Moments(step, self.weights.like(), self.weights.like())
        self._num_answered = num_answered or num_steps
        self._kernel = LSTMKernel(
            self.weights,
            num_layers=models[0].lstm.num_layers,
            num_lanes=num_lanes,
            num_steps=num_steps,
            num_answered=self._num_answered,
        )
        rates = [learning_rate] * len(models) if isinstance(learning_rate, (int, float)) else list(learning_rate)
        of_all = (self.weights, self._kernel.gradients, self.moments.mean, self.moments.square)
        # For each rate what Adam changes: the rows of its members.
        self._rows_by_rate = {
            rate: [[one.values[member] for member, own in enumerate(rates) if own == rate] for one in of_all]
            for rate in dict.fromkeys(rates)
        }
        self._epsilon, self._clip_norm = epsilon, clip_norm

    @property
    def state(self) -> LSTMState:
        """What the lanes remember after the last chunk; each field float (layers, members, lanes, hidden_size)."""
        return LSTMState(*self._kernel.state)

    @state.setter
    def state(self, state: LSTMState) -> None:
        self._kernel.state = state

    def share_moments(self, member: int, model: EchoLSTM, optimizer: torch.optim.Optimizer) -> None:
        """Take over what an Adam of this model's weights remembers, and let it show what is remembered from now on.

        Args:
            member: Which of the networks it is.
            model: The network.
            optimizer: Its optimiser; a new one remembers nothing.
        """
        step, mean, square = self.moments
        for name in self.weights.trained:
            parts = {"exp_avg": mean[name][member], "exp_avg_sq": square[name][member]}
            state = optimizer.state[model.get_parameter(name)]
            if state:
                step.copy_(state["step"])
                for key, part in parts.items():
                    part.copy_(state[key])
            state.update(step=step, **parts)

    @torch.no_grad()
    def make(self, symbols: Tensor, targets: Tensor, starts: Tensor) -> Counts:
        """Make an update for each chunk, in their order.

        Args:
            symbols: int64 (chunks, members, lanes, steps), in the vocabulary; -1 where nothing is read.
            targets: int64, likewise; -100 where nothing is asked.
            starts: bool (chunks, members, lanes), which lanes begin with zeros.
        """
        questions = _Questions(targets[..., -self._num_answered :], self.weights)
        rows = self.weights.rows_of(symbols.movedim(-1, 1))  # (chunks, steps, members, lanes, digits)
        is_any = starts.flatten(1).any(dim=1).tolist()
        each = zip(rows, starts[..., None], is_any, questions.chunks(), strict=True)
        for read, begins, begins_any, question in each:
            self._kernel.begin(begins if begins_any else None)
            logits = self._kernel.forward(read)
            self._kernel.backward(read, question.answer(logits))
            self._step()
        return questions.counts()

    def _step(self) -> None:
        """Adam's update of all weights."""
        if self._clip_norm is not None:
            gradients = self._kernel.gradients.values
            norm = torch.linalg.vector_norm(gradients, dim=1, keepdim=True)
            gradients.mul_((self._clip_norm / (norm + 1e-6)).clamp(max=1))  # as torch.nn.utils.clip_grad_norm_ has it
        step = self.moments.step.add_(1)
        for rate, (values, all_gradients, means, squares) in self._rows_by_rate.items():
            torch._fused_adam_(
                values,
                all_gradients,
                means,
                squares,
                [],
                [step] * len(values),
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                eps=self._epsilon,
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
            )


class _Question(NamedTuple):
    """What a chunk asks, and where its answer is noted; (members, places, ...) each."""

    digits: Tensor
    weights: Tensor
    minus_one: Tensor
    likelihood: Tensor
    answer_digits: Tensor
    form: tuple[int, int]

    def answer(self, logits: Tensor) -> Tensor:
        """Note what is answered, and return the derivatives of the chunk's loss by the logits.

        Args:
            logits: float (members, places, size).
        """
        logits = logits.view(*logits.shape[:-1], *self.form)
        torch.argmax(logits, dim=-1, out=self.answer_digits)
        torch.gather(torch.log_softmax(logits, dim=-1), -1, self.digits, out=self.likelihood)
        # Row by row, and not exp of that at once, whose last bits could depend on how many rows there are.
        shares = torch.softmax(logits, dim=-1).scatter_add_(-1, self.digits, self.minus_one)
        return shares.mul_(self.weights).flatten(-2)


class _Questions:
    """What some chunks ask, and what is answered.

    Args:
        targets: int64 (chunks, members, lanes, answered steps).
        weights: Of the networks that are asked.
    """

    def __init__(self, targets: Tensor, weights: FlatWeights) -> None:
        encoding, dtype = weights.encoding, weights.values.dtype
        base, num_digits = encoding.base or encoding.vocabulary_size, encoding.num_digits
        targets = targets.transpose(2, 3).flatten(2)  # (chunks, members, places), as the logits stand
        self._is_asked = targets.ne(NOT_ASKED)
        self._num_asked = self._is_asked.sum(dim=2)
        # What is not asked has the digits of 0, and no weight.
        self._digits = to_digits(targets.clamp(min=0), base, num_digits, where_negative=0)[..., None]
        weight = self._is_asked / self._num_asked.clamp(min=1)[..., None]
        self._weights = weight.to(dtype)[..., None, None]
        self._minus_one = weights.values.new_full(self._digits.shape[1:], -1)
        self._likelihood = weights.values.new_zeros(self._digits.shape)
        self._answers = torch.zeros_like(self._digits[..., 0])
        self._form = (num_digits, base)

    def chunks(self) -> Iterator[_Question]:
        """The question of each chunk."""
        for fields in zip(self._digits, self._weights, self._likelihood, self._answers, strict=True):
            digits, weights, likelihood, answers = fields
            yield _Question(digits, weights, self._minus_one, likelihood, answers, self._form)

    def counts(self) -> Counts:
        """What was counted in all of them."""
        losses = self._likelihood.squeeze(-1).sum(dim=-1, dtype=torch.float64).neg()
        loss = losses.where(self._is_asked, 0).sum(dim=2)
        is_right = self._answers.eq(self._digits.squeeze(-1)).all(dim=-1) & self._is_asked
        return Counts(loss, is_right.sum(dim=2), self._num_asked)
