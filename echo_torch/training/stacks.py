"""Many trainings of one shape side by side, in one process and without a Trainer."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_torch.data.stream import Block, EchoStream
from echo_torch.models.encoding import check_symbols
from echo_torch.models.kernels.flat_weights import give_back
from echo_torch.models.networks import EchoLSTM
from echo_torch.models.state import LSTMState, pack_state
from echo_torch.randomness import random_state
from echo_torch.training.bodies import LossError, loss_error, row_of
from echo_torch.training.checkpoints import CHECKPOINT_KEY
from echo_torch.training.direct import Counts, DirectUpdate

_SYMBOLS_AT_A_TIME = 2**16  # of all members: what they read stays in the caches
_SYMBOLS_AT_A_TIME_ON_CUDA = 2**22  # a GPU is handed many updates at once, or it waits for what makes them


@dataclass
class Member:
    """One of several trainings side by side.

    Attributes:
        model: Its network.
        stream: What it reads, without end.
        learning_rate: Adam's step size.
        pooled: Loss sum, right answers and targets since its last row, float64 (3,); None: nothing yet.
        error: Says which loss is not finite; None: all are.
        lost_at: The update that it belongs to.
    """

    model: EchoLSTM
    stream: EchoStream
    learning_rate: float = 1e-3
    pooled: Tensor | None = None
    error: LossError | None = None
    lost_at: int | None = None

    def row(self) -> dict[str, float]:
        """The row of what is pooled, as `EchoModule` gives it to loggers."""
        assert self.pooled is not None
        return {**row_of(self.pooled), "targets": float(self.pooled[2])}


class Stack:
    """Trains several networks of one shape side by side; what each of them becomes does not depend on the others.

    Args:
        members: The trainings, their networks on one device. Their chunks have as many lanes and steps; all else may
            differ.
        num_answered: Only so many of the last columns are ever asked; None: all.
        epsilon: Adam's denominator offset.
        clip_norm: Longer gradients are scaled down to this norm; None: none is.
        checkpoints: For each member the checkpoint that it goes on from, all after as many updates; None: they begin.

    Attributes:
        members: As given.
        num_made: Updates that each has made.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        num_answered: int | None = None,
        epsilon: float = 1e-8,
        clip_norm: float | None = None,
        checkpoints: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        layout = members[0].stream.layout
        self.members = list(members)
        self.num_made = 0
        self._epsilon = epsilon
        for member, checkpoint in zip(self.members, checkpoints or (), strict=checkpoints is not None):
            weights = checkpoint["state_dict"].items()
            member.model.load_state_dict({name.removeprefix("model."): value for name, value in weights})
        self._update = DirectUpdate(
            [member.model for member in members],
            num_lanes=layout.num_lanes,
            num_steps=layout.num_steps,
            num_answered=num_answered,
            learning_rate=[member.learning_rate for member in members],
            epsilon=epsilon,
            clip_norm=clip_norm,
        )
        if checkpoints is not None:
            self._go_on(checkpoints)

    def _go_on(self, checkpoints: Sequence[Mapping[str, Any]]) -> None:
        (self.num_made,) = {checkpoint["global_step"] for checkpoint in checkpoints}
        step, mean, square = self._update.moments
        states = []
        for number, (member, checkpoint) in enumerate(zip(self.members, checkpoints, strict=True)):
            (saved,) = checkpoint["optimizer_states"]
            for name, remembered in zip(self._trained(), saved["state"].values(), strict=True):
                step.copy_(remembered["step"])
                mean[name][number].copy_(remembered["exp_avg"])
                square[name][number].copy_(remembered["exp_avg_sq"])
            (rank,) = checkpoint[CHECKPOINT_KEY]["ranks"]
            member.pooled = rank["pooled"]
            states.append(LSTMState(*rank["carry"]))
        hidden, cell = zip(*states, strict=True)
        self._update.state = LSTMState(torch.stack(hidden, dim=1), torch.stack(cell, dim=1))

    def make(self, end: int) -> Iterator[list[Block]]:
        """Make the updates up to one, and count what is answered.

        Args:
            end: How many each has made then.

        Yields:
            After some of them, what each member has read; `num_made` says how far they are.
        """
        layout = self.members[0].stream.layout
        per_chunk = len(self.members) * layout.num_lanes * layout.num_steps
        weights = self._update.weights.values
        length = max(1, (_SYMBOLS_AT_A_TIME_ON_CUDA if weights.is_cuda else _SYMBOLS_AT_A_TIME) // per_chunk)
        while self.num_made < end:
            index = np.arange(self.num_made, min(end, self.num_made + length))
            blocks = [member.stream.block(index) for member in self.members]
            fields = (torch.from_numpy(np.stack(field, axis=1)) for field in list(zip(*blocks, strict=True))[:3])
            symbols, targets, starts = (field.to(weights.device) for field in fields)
            check_symbols(symbols, self.members[0].model.vocabulary_size)
            self._pool(self._update.make(symbols, targets, starts), blocks)
            self.num_made += len(index)
            yield blocks

    def _pool(self, counts: Counts, blocks: Sequence[Block]) -> None:
        """Count the targets one update after the other, as `BlockModule` does, and note where a loss is not finite."""
        for member, block, *each in zip(self.members, blocks, *(field.T.tolist() for field in counts), strict=True):
            if member.error is not None:
                continue
            pooled = (0.0, 0.0, 0.0) if member.pooled is None else member.pooled.tolist()
            for number, values in enumerate(zip(*each, strict=True)):
                if not isfinite(values[0]):
                    member.lost_at = self.num_made + number + 1
                    member.error = loss_error(member.lost_at, block.sequence[number].tolist())
                    break
                pooled = [one + other for one, other in zip(pooled, values, strict=True)]
            member.pooled = torch.tensor(pooled, dtype=torch.float64)

    def network(self, number: int) -> EchoLSTM:
        """The network of one member as it is now, to be asked: on a GPU a copy, for cuDNN reads no views."""
        model = self.members[number].model
        if self._update.weights.values.is_cuda:
            model = copy.deepcopy(model)
            give_back(model)
        return model

    def is_finite(self, number: int) -> bool:
        """Whether all weights of one member are finite."""
        return bool(self._update.weights.values[number].isfinite().all())

    def checkpoint(self, number: int) -> dict[str, Any]:
        """What a checkpoint of one member holds, in Lightning's form: a Trainer goes on from it.

        Args:
            number: Which of the members.
        """
        member, weights, (step, mean, square) = self.members[number], self._update.weights, self._update.moments
        own, own_mean, own_square = (one.of_member(number) for one in (weights, mean, square))
        remembered = {
            place: {"step": step.clone(), "exp_avg": own_mean[name][0], "exp_avg_sq": own_square[name][0]}
            for place, name in enumerate(self._trained())
        }
        state = LSTMState(
            *(field[:, number].clone(memory_format=torch.contiguous_format) for field in self._update.state)
        )
        rank = {"carry": pack_state(state), "random": random_state(), "pooled": member.pooled}
        return {
            "epoch": 0,
            "global_step": self.num_made,
            "state_dict": {f"model.{name}": own[name][0] for name in member.model.state_dict()},
            "loops": _loops(self.num_made),
            "optimizer_states": [{"state": remembered, "param_groups": [self._adam(member, len(remembered))]}],
            "lr_schedulers": [],
            CHECKPOINT_KEY: {"cursor": self.num_made, "ranks": [rank]},
        }

    def _trained(self) -> list[str]:
        model = self.members[0].model
        return [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    def _adam(self, member: Member, num_parameters: int) -> dict[str, Any]:
        """What torch.optim.Adam says of its options; to make one would take a second, to import it."""
        return {
            "lr": member.learning_rate,
            "betas": (0.9, 0.999),
            "eps": self._epsilon,
            "weight_decay": 0,
            "amsgrad": False,
            "maximize": False,
            "foreach": None,
            "capturable": False,
            "differentiable": False,
            "fused": True,
            "decoupled_weight_decay": False,
            "params": list(range(num_parameters)),
        }


def _loops(num_made: int) -> dict[str, Any]:
    """How far Lightning's loops are, where each update was a batch."""

    def counts(number: int, *names: str) -> dict[str, dict[str, int]]:
        return {which: dict.fromkeys(names, number) for which in ("total", "current")}

    steps, batches = ("ready", "completed"), ("ready", "completed", "started", "processed")
    epoch = {
        "state_dict": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": num_made},
        "epoch_loop.batch_progress": {**counts(num_made, *batches), "is_last_batch": False},
        "epoch_loop.scheduler_progress": counts(0, *steps),
        "epoch_loop.automatic_optimization.state_dict": {},
        "epoch_loop.automatic_optimization.optim_progress": {
            "optimizer": {"step": counts(0, *steps), "zero_grad": counts(0, "ready", "completed", "started")}
        },
        "epoch_loop.manual_optimization.state_dict": {},
        "epoch_loop.manual_optimization.optim_step_progress": counts(num_made, *steps),
        "epoch_loop.val_loop.state_dict": {},
        "epoch_loop.val_loop.batch_progress": {**counts(0, *batches), "is_last_batch": False},
        "epoch_progress": {
            which: {**dict.fromkeys(batches, 0), "ready": 1, "started": 1} for which in ("total", "current")
        },
    }
    other = {"state_dict": {}, "batch_progress": {**counts(0, *batches), "is_last_batch": False}}
    prediction = {"state_dict": {}, "batch_progress": counts(0, *batches)}
    return {"fit_loop": epoch, "validate_loop": other, "test_loop": other, "predict_loop": prediction}
