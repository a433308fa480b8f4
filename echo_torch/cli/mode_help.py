"""The help of a command that has a mode: of all modes, or the flags and defaults of one."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from echo_torch.cli.parser import DEFAULT_MODE
from echo_torch.errors import RuleError, UserError
from echo_torch.experiments.catalogue import EXPERIMENTS
from echo_torch.experiments.configuration import defaults_of, experiment_of
from echo_torch.experiments.model_options import Value
from echo_torch.experiments.options import OPTIONS, Option

USAGE = "%(prog)s [--mode MODE] [FLAG ...]"
MODES = "\n".join(
    [
        f"the experiment (default: {DEFAULT_MODE})",
        *(f"{experiment.name}: {experiment.summary}" for experiment in EXPERIMENTS.values()),
    ]
)
_OF_ALL = "With a mode, as in --mode aligned --help, the flags of that mode alone and its own defaults."


def fit_to_mode(parser: argparse.ArgumentParser, actions: Mapping[str, argparse.Action], words: Sequence[str]) -> None:
    """Leave in a help the flags of the mode that is named, each with its default there.

    Args:
        parser: Of the command.
        actions: Its options, by name.
        words: Those that were given.

    Raises:
        UserError: If there is no such mode.
    """
    mode = _mode_in(words)
    if mode is not None:
        parser.description = f"{parser.description} Mode {mode}: {_summary(mode)}."
    else:
        parser.epilog = _OF_ALL
    for name, action in actions.items():
        if mode is None:
            action.help = _of_all(OPTIONS[name])
        elif name in EXPERIMENTS[mode].options:
            action.help = _of_one(OPTIONS[name], mode)
        else:
            action.help = argparse.SUPPRESS


def _summary(mode: str) -> str:
    try:
        return experiment_of(mode).summary
    except RuleError as error:  # the flags are not known yet by which it would be worded
        raise UserError(error.wording(lambda name: f"--{name}")) from None


def _mode_in(words: Sequence[str]) -> str | None:
    """The mode that is named in some words, the last one; None: none is."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--mode":
            found = following
        elif word.startswith("--mode="):
            found = word.partition("=")[2]
    return found


def _of_one(option: Option, mode: str) -> str:
    return _with(option, [f"default: {_default(option, mode)}"])


def _of_all(option: Option) -> str:
    """Which modes have an option, where not all do, and its default, where some have another."""
    modes = [mode for mode, experiment in EXPERIMENTS.items() if option.name in experiment.options]
    defaults = {mode: _default(option, mode) for mode in modes}
    values = list(defaults.values())
    usual = max(values, key=values.count)
    others = [f"{mode}: {value}" for mode, value in defaults.items() if value != usual]
    without = [mode for mode in EXPERIMENTS if mode not in modes]
    where = []
    if without:
        few = len(modes) <= len(without)
        where = [f"mode{'s' * (len(modes) > 1)} {', '.join(modes)}" if few else f"all modes but {', '.join(without)}"]
    return _with(option, [*where, f"default: {usual}", *others])


def _with(option: Option, parts: Sequence[str]) -> str:
    """A help line with what belongs to it; a default that hangs on other options stands in the line itself."""
    said = [part for part in parts if "(default:" not in option.help or not part.startswith("default:")]
    return f"{option.help} ({'; '.join(said)})" if said else option.help


def _default(option: Option, mode: str) -> str:
    """A default in words, and what it is where symbols are written as digits, if that is another."""
    plain, digits = (_in_words(values.get(option.name)) for values in (defaults_of(mode), _with_digits(mode)))
    is_other = plain != digits and option.name not in ("encoding", "base")
    return f"{plain}, with digits {digits}" if is_other else plain


def _with_digits(mode: str) -> Mapping[str, Value]:
    return defaults_of(mode, encoding="digits")


def _in_words(value: Value) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
