"""Flags made from the options, and what they were given."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Container
from typing import Any

from echo_torch.cli.mode_help import MODES, USAGE, fit_to_mode
from echo_torch.cli.parser import DEFAULT_MODE, Parser
from echo_torch.experiments.configuration import override
from echo_torch.experiments.options import OPTIONS, Option
from echo_torch.lab.pictures import FIGURES
from echo_torch.lab.yaml_files import check_said, names_own_model, read_options
from echo_torch.ranks import launched_ranks
from echo_torch.waiting import Progress


def add_options(parser: argparse.ArgumentParser, without: Container[str] = ()) -> dict[str, argparse._ArgumentGroup]:
    """The flags of a configuration, made from the options but for some of them, in their groups."""
    modes = parser.add_argument_group("experiment")
    modes.add_argument(
        "--mode",
        metavar="MODE",
        default=argparse.SUPPRESS,
        help=MODES,
    )
    actions = {}
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in OPTIONS.values():
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        if option.name not in without:
            actions[option.name] = add_option(groups[option.group], option)
    modes.add_argument("--config", metavar="FILE", help="take options from a YAML file; flags override it")
    parser.usage = USAGE
    if isinstance(parser, Parser):
        parser.fit_help = functools.partial(fit_to_mode, parser, actions)
    return groups


def add_option(group: argparse._ActionsContainer, option: Option) -> argparse.Action:
    """The flag of one option."""
    if option.kind is bool:
        return group.add_argument(option.flag, action="store_true", default=argparse.SUPPRESS, help=option.help)
    metavar = "NAME=VALUE,..." if option.canonical else {int: "N", float: "X", str: "NAME"}[option.kind]
    if option.choices:
        metavar = "{" + ",".join([*option.choices, *(["MODULE:CLASS"] if option.form else [])]) + "}"
    return group.add_argument(option.flag, metavar=metavar, default=argparse.SUPPRESS, help=option.help)


def options_of(parsed: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """The mode and the options that were given, by flags and by a file."""
    values = read_options(parsed.config) if parsed.config is not None else {}
    flags = given(parsed, "mode", *OPTIONS)
    if names_own_model(values) and "model" not in flags:
        check_said(parsed.config, values["model"], None)
    values = override(values, flags)
    mode = values.pop("mode", DEFAULT_MODE)
    if (num_ranks := launched_ranks()) is not None:
        values.setdefault("devices", num_ranks)
    return mode, values


def given(parsed: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Of some flags made by `add_option` those that were given."""
    return {name: getattr(parsed, name) for name in names if hasattr(parsed, name)}


def add_run(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that puts a finished run to work."""
    parser.add_argument("--run", metavar="DIR", required=True, help="the directory of a finished run")
    parser.add_argument(
        "--model", metavar="MODULE:CLASS", help="the run's model again, where it is a class of your own: it is run then"
    )
    add_allow_changed_model(parser)


def add_allow_changed_model(parser: argparse._ActionsContainer) -> None:
    """The flag that lets a run go on with another source of its model."""
    help_line = "go on although the file that defines your own model has changed"
    parser.add_argument("--allow-changed-model", action="store_true", help=help_line)


def add_figures(parser: argparse._ActionsContainer) -> None:
    """The flag of the form in which figures are drawn."""
    action = add_option(parser, FIGURES)
    action.default, action.help = FIGURES.default, f"{FIGURES.help} (default: {FIGURES.default})"


def whole_number(text: str, name: str, low: int = 1, high: int = 10_000) -> int:
    """A whole number out of a flag that is no option of a run."""
    return int(Option(name, int, None, "", "", low, high).check(text))  # type: ignore[arg-type]  # a number, as asked


def draws(parsed: argparse.Namespace) -> bool:
    """Whether a progress bar is wanted and there is somebody to see it."""
    return not getattr(parsed, "no_progress", False) and is_watched()


def shown(parsed: argparse.Namespace) -> Progress:
    """What somebody is shown who waits: a bar where there is a terminal, else, or if they want none, a sentence."""
    return True if draws(parsed) else "line"


def is_watched() -> bool:
    """Whether standard error is a terminal that has lines to draw on."""
    if sys.stderr is None or not sys.stderr.isatty():
        return False
    try:
        return os.get_terminal_size(sys.stderr.fileno()).lines > 0
    except OSError:
        return False
