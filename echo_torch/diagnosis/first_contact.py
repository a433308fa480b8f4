"""What is said where a batch does not tell where its rows stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from echo_torch.errors import RuleError, plain, shorten

_USUAL_KEYS = ("position", "positions", "step", "steps", "time")


def missing_stamps(batch: Any, how: str, shorter: str = "") -> RuleError:
    """The error for a batch that is no `Chunk` where no `stamps` are given.

    >>> str(missing_stamps([[1, 2], [0]], "reach(loader, stamps=lambda batch: {stamps})")).split("write ")[1]
    '`reach(loader, stamps=lambda batch: Stamps(step=batch[0]))`.'

    Args:
        batch: The batch.
        how: The call that would do, with `{stamps}` where its stamps are made.
        shorter: What to do instead where that is possible, a clause of its own.

    Returns:
        What is to be raised.
    """
    got, place, what = _described(batch)
    call = how.replace("{stamps}", f"Stamps(step={place})")
    return RuleError(
        "stamps",
        "$stamps must say where the rows of each batch stand",
        got,
        reason="because only this project's `Chunk` says it by itself",
        way_out=plain(
            "let the loader hand out, with each batch, the position of every column in its sequence, integers (lanes, "
            f"steps), here {what}, and write `{call}`{shorter and f'; {shorter}'}"
        ),
    )


def _described(batch: Any) -> tuple[str, str, str]:
    """What a batch is, how its positions are read, and what they are of it then."""
    if isinstance(batch, Mapping):
        keys = [key for key in _USUAL_KEYS if key in batch]
        key = keys[0] if keys else "position"
        names = shorten(", ".join(map(str, batch))) or "nothing"
        return f"a dict with {names}", f"batch[{key!r}]".replace("'", '"'), f'as its "{key}"'
    if hasattr(batch, "_fields"):
        return f"{type(batch).__name__} with {', '.join(batch._fields)}", "batch.position", "as its `position`"
    if isinstance(batch, (list, tuple)):
        kind = "tensors" if batch and all(isinstance(part, Tensor) for part in batch) else "parts"
        number = f"{len(batch)} {kind if len(batch) != 1 else kind[:-1]}"
        return f"a {type(batch).__name__} of {number}", "batch[0]", "as its first part"
    if isinstance(batch, Tensor):
        return f"a tensor of shape {tuple(batch.shape)}", "batch[0]", "as the first part of a pair"
    return f"a {type(batch).__name__}", "batch.position", "as its `position`"
