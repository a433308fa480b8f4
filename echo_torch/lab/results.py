"""What finished runs have left, checked before any table is made of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from echo_torch.diagnosis.data_path.reaching import OTHER
from echo_torch.errors import UserError
from echo_torch.experiments.configuration import Configuration, configure_saved, kept_kernel
from echo_torch.lab.finished import check_unchanged
from echo_torch.lab.plan import Plan
from echo_torch.lab.run_directory import RunDirectory, damaged_error
from echo_torch.lab.yaml_files import SOURCE_KEY, check_format

_BOUNDS = ("accuracy_low", "accuracy_high", "accuracy_reset_low", "accuracy_reset_high")


def read_finished(
    run: RunDirectory, configuration: Configuration, model_source: str | None = None, *, is_its_own: bool = False
) -> dict[str, Any] | None:
    """The result of a finished run, None where it is not finished.

    Args:
        run: Its directory.
        configuration: What it must be of.
        model_source: The digest of its own model; None for the networks here.
        is_its_own: Whether the configuration is what its config.yaml says. Then a result of another one was changed,
            and one of a shorter training is none: the run went on.

    Raises:
        UserError: If the result cannot be read or belongs to another configuration or another source of its model.
    """
    try:
        result = run.read_result()
    except FileNotFoundError:
        return None
    try:
        saved = configure_saved(result["config"])
        same = saved == kept_kernel(configuration, saved)
        _check_metrics(run.read_metrics())
    except (UserError, ValueError, KeyError, TypeError):
        raise damaged_error(run) from None
    check_format(result.get("format"), f"The finished run {str(run.path)!r}", "move it away to do it again")
    if missing := set(_NEEDED) - set(result):
        raise damaged_error(run, f"it has no {min(missing)!r}")
    if not all(is_right(result[name]) for name, is_right in _NEEDED.items()) or not _fits_together(result):
        raise damaged_error(run)
    if result["targets"] == 0 and _asks(configuration):
        raise damaged_error(run)
    if is_its_own:
        check_unchanged(saved, configuration, run, f"the result {str(run.result)!r}")
        if not same:
            return None
    if not same:
        raise UserError(
            f"{str(run.path)!r} holds a finished run with other options, and no finished run is overwritten.",
            "Choose another $run.",
        )
    if result.get(SOURCE_KEY) != model_source:
        raise UserError(
            f"{str(run.path)!r} holds a finished run with another source of {configuration.model}, and no finished run "
            "is overwritten.",
            "Choose another $run.",
        )
    return result


def _check_metrics(metrics: Mapping[str, list[float]]) -> None:
    """Refuse rows that no table can be made of.

    Raises:
        KeyError, ValueError: If there is no row, a column is missing, or a number that no run writes.
    """
    missing = {"update", "sequences", "loss"} - set(metrics)
    shares = [None if math.isnan(share) else share for share in metrics["accuracy"]]  # where nothing was asked
    if (
        missing
        or not shares
        or not all(map(_is_amount, [*metrics["symbols"], *metrics["targets"]]))
        or not _are_shares(shares)
    ):
        raise ValueError


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= cast("float", value) < math.inf  # a bool has a type of its own


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_share(value: object) -> bool:
    return value is None or (_is_amount(value) and cast("float", value) <= 1)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_count, values))


def _are_shares(values: object) -> bool:
    return isinstance(values, list) and all(map(_is_share, values))


def _is_loss(value: object) -> bool:
    return value is None or type(value) in (int, float)  # that of a network which has lost its way may be no number


def _are_gaps(values: object) -> bool:
    return isinstance(values, dict) and all(map(_is_gap, values)) and all(map(_is_count, values.values()))


def _is_gap(name: str) -> bool:
    return name == OTHER or re.fullmatch(r"-?[0-9]{1,19}", name, re.ASCII) is not None


def _are_versions(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


# What tables, figures and pages take out of a result.json, and what it must be.
_NEEDED: dict[str, Callable[[object], bool]] = {
    "accuracy": _is_share,
    "accuracy_reset": _is_share,
    "accuracy_by_chunk": _are_shares,
    "targets": _is_count,
    "targets_by_chunk": _are_counts,
    "updates": _is_count,
    "chance": _is_share,
    "seconds": _is_amount,
    "parameters": _is_count,
    "loss": _is_loss,
    "ceiling": _is_share,
    **dict.fromkeys(_BOUNDS, _is_share),
    "accuracy_reset_by_chunk": _are_shares,
    "gaps": _are_gaps,
    "versions": _are_versions,
    "weights_sha256": lambda value: isinstance(value, str),
}


def _fits_together(result: Mapping[str, Any]) -> bool:
    """Whether the chunks have all the targets, and there is an accuracy exactly where something was asked."""
    asked = result["targets_by_chunk"]
    shares, resets = result["accuracy_by_chunk"], result["accuracy_reset_by_chunk"]
    pooled = [(result[name], result["targets"]) for name in ("accuracy", "accuracy_reset", "loss", *_BOUNDS)]
    if (
        len(shares) != len(asked)
        or len(resets) != len(asked)
        or sum(asked) != result["targets"]
        or result["chance"] is None
    ):
        return False
    return all(
        (share is None) == (number == 0) for share, number in [*pooled, *zip(shares + resets, asked * 2, strict=True)]
    )


def _asks(configuration: Configuration) -> bool:
    """Whether an evaluation asks anything."""
    return any(bool((chunk.targets >= 0).any()) for chunk in Plan(configuration).evaluation())
