"""What the processes of one training must see alike, which each of them was given or finds by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from echo_torch.errors import RuleError, UserError, shorten
from echo_torch.lab.plan import Plan
from echo_torch.ranks import gather
from echo_torch.training.checkpoints import RUN_KEY, Checkpoint

T = TypeVar("T")


def found_by_all(find: Callable[[], T]) -> T:
    """What this process finds, as soon as each has found what it looks for. All ranks must call it.

    Args:
        find: Looks for it.

    Raises:
        UserError: What it raises in this process, or else in another one.
    """
    found: list[T] = []
    own = None
    try:
        found.append(find())
    except UserError as error:
        own = error
    others = [error for error in gather(own) if error is not None]
    if own is not None or others:
        raise own or others[0]
    return found[0]


def check_agreement(plan: Plan, start: Checkpoint | None) -> None:
    """Refuse processes that were given different things: they would wait for each other for ever. For all ranks.

    Args:
        plan: Of this process.
        start: The checkpoint that it goes on from; None: it begins anew.

    Raises:
        RuleError: If another one has another plan, its own data or model, or checkpoint.
    """
    first, *others = gather((plan.configuration.to_dict(), (plan.digest, plan.model_digest), _mark(start)))
    for options, sources, mark in others:
        _check_options(first[0], options)
        if sources != first[1]:
            name, what = (
                ("data", "numbers") if sources[0] != first[1][0] else ("model", "source of a model of your own")
            )
            rule = f"${name} must be the same {what} in all processes of one training"
            raise RuleError(name, rule, "different ones", reason=_ONE, way_out="give all machines the same files")
        if mark != first[2]:
            rule = "All processes of one training must see the same checkpoint in $run"
            got = f"{_said(first[2])} in the first process and {_said(mark)} in another"
            way_out = "put $run on a file system that all machines share"
            raise RuleError("run", rule, got, reason=_ONE, way_out=way_out)


_ONE = "because they go on as one"


def _check_options(first: dict[str, Any], other: dict[str, Any]) -> None:
    for name in {**first, **other}:
        one, another = first.get(name), other.get(name)
        if one != another:
            rule = f"${name} must be the same in all processes of one training"
            got = f"{shorten(one)} in the first process and {shorten(another)} in another"
            raise RuleError(name, rule, got, reason=_ONE, way_out="start all of them with the same command line")


def _mark(start: Checkpoint | None) -> tuple[int, float] | None:
    """What tells a checkpoint from others of the same run: its update, and how long it had taken."""
    return None if start is None else (start.update, start.contents[RUN_KEY]["seconds"])


def _said(mark: tuple[int, float] | None) -> str:
    return "none" if mark is None else f"update {mark[0]:,}"
