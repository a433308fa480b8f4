"""Rows that `pad_packed_sequence` has padded again: is an answer read there, where a row has ended long before?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from echo_torch.diagnosis.watching.marks import Marks
from echo_torch.diagnosis.watching.padding import Hook, Padded
from echo_torch.diagnosis.watching.places import Places
from echo_torch.diagnosis.watching.recorded import Call


class Unpacked:
    """Listens to what layers have given for packed rows, once it is padded.

    What is filled in behind a row is no output of the layer. A sum over the steps may read it and take no harm; an
    answer that reads it, and nothing of the row itself, hangs on nothing.

    Args:
        places: Tells when rows are unpacked.
    """

    def __init__(self, places: Places) -> None:
        self._given: Marks[tuple[Call, Hook]] = Marks()
        places.on_unpacked = self._listen

    def give(self, call: Call, values: Tensor, hook: Hook) -> None:
        """A layer has given values for packed rows.

        Args:
            call: The call in which it has.
            values: Those of all rows, (steps of all rows, features).
            hook: Registers who notices a gradient of a tensor.
        """
        if call.trains:
            self._given.set(values, (call, hook))

    def _listen(self, values: Tensor, is_batch_first: bool, padded: Tensor, lengths: Tensor) -> None:
        given = self._given.of(values)
        if given is None or not padded.requires_grad:
            return
        call, hook = given
        ends, num_steps = lengths.numpy(), padded.shape[1 if is_batch_first else 0]
        if (ends < num_steps).any():
            if call.padded is None or call.padded.num_steps != num_steps:  # else it is unpacked once more
                call.padded = Padded((num_steps - ends).tolist(), num_steps, is_filled=True)
            is_behind = np.arange(num_steps) >= ends[:, None]
            hook(padded, _noticing(call.padded, is_behind, is_batch_first=is_batch_first))


def _noticing(
    padded: Padded, is_behind: NDArray[np.bool_], *, is_batch_first: bool
) -> Callable[[Tensor | None], None]:  # fmt: skip
    """Notes the rows of which a gradient comes back to padded steps, and those of which one comes to their own."""

    def notice(gradient: Tensor | None) -> None:
        if gradient is None:  # as of other hooks
            return
        is_read = (gradient.abs().amax(-1) != 0).cpu().numpy()
        is_read = is_read if is_batch_first else is_read.T
        behind, before = (np.logical_or.reduce(is_read & where, axis=1) for where in (is_behind, ~is_behind))
        padded.read.update(np.flatnonzero(behind).tolist())
        padded.own.update(np.flatnonzero(before).tolist())

    return notice
