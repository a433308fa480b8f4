"""Recurrent layers of torch: how many rows each reads, which state it is given, and which it leaves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@functools.lru_cache
def is_of_no_interest(kind: type[nn.Module]) -> bool:
    """Whether modules of a class are torch's own, and no recurrent layers: inside of another nothing is to be seen."""
    return kind.__module__.startswith("torch.nn.modules.") and not issubclass(kind, RECURRENT)


def lane_axis(layer: nn.Module) -> int:
    """Which axis of its state's tensors counts the rows."""
    return 0 if isinstance(layer, nn.RNNCellBase) else 1


def has_no_values(module: nn.Module) -> bool:
    """Whether a layer has shapes alone, as those have of which somebody counts the weights."""
    for weight in module._parameters.values():
        if weight is not None:  # the others are of the same kind
            return bool(weight.is_meta)
    return False


def read_and_given(inputs: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, Any]:
    """What a layer reads, and the state that it is given; None without one."""
    return inputs[0] if inputs else named.get("input"), inputs[1] if len(inputs) > 1 else named.get("hx")


def state_of(layer: nn.Module, output: Any) -> Any:
    """The state that a layer leaves; None where it has raised, as there is no output then."""
    return output[1] if isinstance(layer, nn.RNNBase) and output is not None else output


def num_rows_of(layer: nn.Module, read: Any) -> int:
    """Rows of a layer's input; 0 where it has none."""
    if isinstance(read, PackedSequence):
        return int(read.batch_sizes[0])
    if not isinstance(read, Tensor):
        return 0
    if isinstance(layer, nn.RNNCellBase):
        return read.shape[0] if read.ndim == 2 else 0
    return read.shape[0 if getattr(layer, "batch_first", False) else 1] if read.ndim == 3 else 0


def reads_one_step(layer: nn.Module, read: Any) -> bool:
    """Whether a layer reads a single step of each row."""
    if isinstance(layer, nn.RNNCellBase):
        return True
    return isinstance(read, Tensor) and read.ndim > 1 and read.shape[_step_axis(layer, read)] == 1


def _step_axis(layer: nn.Module, read: Tensor) -> int:
    return 1 if read.ndim == 3 and getattr(layer, "batch_first", False) else 0
