"""Runs over all combinations of some options, as data: on the command line, in Python, in a YAML file."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from echo_torch.errors import RuleError, UserError, plain, shorten
from echo_torch.experiments.catalogue import Experiment
from echo_torch.experiments.configuration import (
    Configuration,
    configure,
    configure_with_data,
    experiment_of,
    guess_option,
)
from echo_torch.experiments.options import OPTIONS, Option
from echo_torch.files import FORMAT, write_text
from echo_torch.intervals import mean_and_interval
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.lab.tables import SEQUENCE_SYMBOLS, over_seeds, time_to_skill
from echo_torch.lab.yaml_files import check_format, read_yaml

MAX_RUNS = 100_000
_MAX_BYTES = 2**21  # of a file: an axis of so many values


@dataclass(frozen=True)
class Grid:
    """Runs over all combinations of some options.

    >>> grid = Grid("aligned", {"lag": [0, 1], "chunk": [1, 2, 4]}, num_seeds=30, options={"updates": 4000})
    >>> len(grid.runs()), next(iter(grid.runs()))
    (180, 'lag0-chunk1-seed1')

    Attributes:
        mode: The experiment.
        axes: The options that differ, each with its values.
        num_seeds: Seeds 1..n.
        options: For every run; without an accelerator they run on the CPU.
    """

    mode: str
    axes: Mapping[str, Sequence[Any]]
    num_seeds: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seeds_in_words(self) -> str:
        """'1 seed', '3 seeds'."""
        return f"{self.num_seeds} seed{'s' * (self.num_seeds > 1)}"

    def places(self) -> list[dict[str, Any]]:
        """Every combination, the first axis the slowest."""
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]

    def runs(self) -> dict[str, Configuration]:
        """The runs by name; of each file of a user's own data the vocabulary is inferred, where it is not given.

        Raises:
            RuleError: If a combination breaks a rule.
            UserError: If data cannot be read.
        """
        runs, sizes = {}, {}
        for place in self.places():
            options = {"accelerator": "cpu", **self.options, **place}
            if options.get("data") is not None and "vocabulary_size" not in options:
                file = tuple(options.get(name) for name in ("data", "column", "series"))
                if file not in sizes:
                    sizes[file] = configure_with_data(self.mode, options)[0].vocabulary_size
                options["vocabulary_size"] = sizes[file]
            for seed, name in enumerate(self.names(place), start=1):
                runs[name] = configure(self.mode, seed=seed, **options)
        return runs

    def names(self, place: Mapping[str, Any]) -> list[str]:
        """The names of one combination's runs, a seed each."""
        words = [f"{axis.replace('_', '')}{_as_file_name(value)}" for axis, value in place.items()]
        return ["-".join([*words, f"seed{seed}"]) for seed in range(1, self.num_seeds + 1)]

    def to_dict(self) -> dict[str, Any]:
        """The grid as it stands in a YAML file, from which `grid_of` makes it again."""
        axes = {name: list(values) for name, values in self.axes.items()}
        return {"mode": self.mode, "seeds": self.num_seeds, "grid": axes, **self.options}

    def cells(self, results: Mapping[str, dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
        """For every combination the accuracy with its interval, sequences to 99 %, seconds and size.

        Args:
            results: By the names of `runs`.
            folder: Where the runs are.
        """
        return [self.cell(place, results, folder) for place in self.places()]

    def cell(self, place: dict[str, Any], results: Mapping[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
        """The same for one combination, of those of its runs that have a result."""
        names = [name for name in self.names(place) if name in results]
        runs = [results[name] for name in names]
        directories = [RunDirectory(folder / name) for name in names]
        drawn = directories[0].read_metrics()["symbols"][-1] if names else 0.0
        return {
            **place,
            **over_seeds(runs),
            **time_to_skill(directories),
            "sequences": drawn / SEQUENCE_SYMBOLS,
            "seconds": mean_and_interval([run["seconds"] for run in runs])[0] if runs else None,
            "parameters": runs[0]["parameters"] if runs else None,
        }


def grid_of(mode: str, axes: Mapping[str, Any], num_seeds: int = 1, options: Mapping[str, Any] | None = None) -> Grid:
    """A grid whose parts are checked.

    Args:
        mode: The experiment.
        axes: The options that differ: a list of values each, or a text of them with commas between.
        num_seeds: Seeds 1..n.
        options: For every run.

    Raises:
        RuleError: If there is no such mode or option, an axis has no values, or there are too few or too many runs.
    """
    number = num_seeds = int(Option("seeds", int, 1, "", "", 1, MAX_RUNS).check(num_seeds))  # type: ignore[arg-type]  # a number
    if not isinstance(axes, Mapping):
        raise RuleError("grid", "$grid must hold options, each with its values", type(axes).__name__)
    options = {name: _checked(name, value) for name, value in (options or {}).items()}
    experiment = experiment_of(mode)
    checked = {name: _checked_axis(name, values, experiment) for name, values in axes.items()}
    if "seed" in options:
        rule = "$seed is not one number where several seeds are trained"
        raise RuleError("seed", rule, options["seed"], way_out="write $seeds 30 for the seeds 1 to 30")
    if both := sorted(set(checked) & set(options)):
        rule = f"$grid must not name {plain(both[0])}, which is given for every run"
        raise RuleError("grid", rule, both[0], way_out="leave one of them out")
    for values in checked.values():
        number *= len(values)
    if number > MAX_RUNS:
        raise RuleError("grid", f"$grid must have at most {MAX_RUNS:,} runs, all seeds together", f"{number:,}")
    return Grid(mode, checked, num_seeds, options)


def _checked(name: str, value: Any) -> Any:
    """A value for every run; an option that there is not is refused where the runs are made, as for one run."""
    return OPTIONS[name].check(value) if name in OPTIONS and name != "seed" else value


def _checked_axis(name: str, values: Any, experiment: Experiment) -> list[Any]:
    if name == "seed":
        rule = "$grid must leave the seeds to $seeds, so that tables know what a mean is taken over"
        raise RuleError("grid", rule, "seed", way_out="write $seeds 30 for the seeds 1 to 30")
    if name == "mode":
        rule = "$grid is of one mode, since modes have other options"
        raise RuleError("grid", rule, "mode", way_out="write $mode, and a sweep for each")
    if name not in OPTIONS:
        rule = f"$grid must name options. There is no {plain(repr(name))}{guess_option(name, experiment)}"
        raise RuleError("grid", rule)
    option = OPTIONS[name]
    if isinstance(values, str):
        values = values.split(";" if option.canonical else ",")
    if not isinstance(values, Sequence) or not values or values == [""]:
        rule = f"$grid must give {plain(name)} some values"
        raise RuleError("grid", rule, shorten(repr(values)), way_out=f"write {plain(name)}=VALUE,VALUE")
    return list(dict.fromkeys(option.check(_value(option, value)) for value in values))


def _value(option: Option, value: Any) -> Any:
    """A value of an axis; words stand for what a flag says by being left out."""
    words = {"none": None} if option.is_optional else {"true": True, "false": False} if option.kind is bool else {}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def axes_of(texts: Sequence[str]) -> dict[str, str]:
    """The axes of words such as `lag=0,1,2`.

    Raises:
        RuleError: If one is not such a word, or names an option again.
    """
    axes: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        if not equals or not name:
            raise RuleError("grid", "$grid must be followed by words such as lag=0,1,2", repr(shorten(text)))
        if name in axes:
            raise RuleError("grid", f"$grid must name {plain(name)} once", repr(shorten(text)))
        axes[name] = values
    return axes


def read_grid(path: str | Path) -> dict[str, Any]:
    """What a YAML file says of a grid: mode, seeds, `grid` with a list of values for each option, and options.

    Raises:
        UserError: If the file cannot be read or is none.
    """
    values = read_yaml(path, nested="grid", max_bytes=_MAX_BYTES)
    if not isinstance(values.get("grid", {}), dict):
        raise UserError(f"{str(path)!r} must give 'grid' names with a list of values each, such as 'lag: [0, 1]'.")
    check_format(values.pop("format", FORMAT), repr(str(path)), "leave the format out to have the grid read")
    return values


def write_grid(grid: Grid, path: Path) -> None:
    """Write a grid as `read_grid` reads it."""
    import yaml

    write_text(path, yaml.safe_dump({"format": FORMAT, **grid.to_dict()}, sort_keys=False, default_flow_style=None))


def value_in_words(value: object) -> str:
    """A value of an axis for people; where there is none, the word that a flag's absence has in a grid."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _as_file_name(value: object) -> str:
    """A value as part of a directory's name; by its digest a text that could be none, or seem to hold another axis."""
    text = str(value)
    is_plain = re.fullmatch(r"one-hot|([\w.,=+]|-(?=[0-9])){1,60}", text, re.ASCII)
    return text if is_plain else hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]
