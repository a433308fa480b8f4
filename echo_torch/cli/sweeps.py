"""The commands sweep, compare, map and lags."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from echo_torch.cli.flags import add_figures, add_option, add_options, draws, given, shown, whole_number
from echo_torch.cli.heavy import heavy_imports
from echo_torch.cli.parser import DEFAULT_MODE
from echo_torch.errors import RuleError, plain
from echo_torch.experiments.configuration import Configuration, override
from echo_torch.experiments.options import OPTIONS, is_own_model
from echo_torch.lab.pictures import check_figures
from echo_torch.lab.yaml_files import check_said, names_own_model
from echo_torch.ranks import check_launcher

_PART_IS_DONE = "This part is done; runs are left to other parts, the last of which makes tables and figures: {}"


def _add_sweep(parser: argparse.ArgumentParser, folder: str, **words: str) -> None:
    parser.add_argument("--jobs", metavar="N", default=None, help="processes (default: one for each core)")
    parser.add_argument(
        "--shard", metavar="K/N", help="train only the K-th of N parts, of which each may have a machine"
    )
    parser.add_argument("--run-dir", metavar="DIR", default=folder, help=f"where the runs are kept (default: {folder})")
    add_figures(parser)
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    parser.set_defaults(words={"run": "--run-dir", **words})


def _add_network(parser: argparse.ArgumentParser) -> None:
    for name in ("model", "model_options"):
        add_option(parser, OPTIONS[name])


def _network(parsed: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Of the model, its options and some more what was given, checked."""
    found = given(parsed, "model", *names)
    return {name: OPTIONS[name].check(value) for name, value in found.items()}


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """The flags of sweep."""
    group = parser.add_argument_group("grid")
    add_options(parser, without=("seed",))
    group.add_argument(
        "--grid",
        metavar="NAME=VALUE,VALUE",
        nargs="+",
        default=[],
        help="options that differ, each with its values: lag=0,1,2 model=lstm,gru",
    )
    group.add_argument("--seeds", metavar="N", help="seeds 1..N for every combination (default: 1)")
    group.add_argument("--dry-run", action="store_true", help="say what it will take, and stop")
    group.add_argument("--status", metavar="DIR", help="say how far the sweep in this folder is, and stop")
    _add_sweep(parser, "runs/sweep")
    parser.set_defaults(command=_sweep)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """The flags of compare."""
    parser.add_argument("--seeds", metavar="N", default="5", help="seeds 1..N for every arm (default: 5)")
    parser.add_argument(
        "--arms", metavar="ARM", nargs="+", default=None, help="only these arms (default: the eleven of the comparison)"
    )
    _add_network(parser)
    _add_sweep(parser, "runs/compare")
    parser.set_defaults(command=_compare)


def add_map(parser: argparse.ArgumentParser) -> None:
    """The flags of map."""
    parser.add_argument("--lags", metavar="N", nargs="*", default=["0", "1", "2", "3", "5"], help="rows of the grid")
    parser.add_argument(
        "--chunks", metavar="N", nargs="*", default=["1", "2", "3", "4", "5", "6", "10"], help="its columns"
    )
    parser.add_argument(
        "--learning-rates",
        metavar="X",
        nargs="+",
        default=["0.001", "0.003", "0.01"],
        help="a grid for each (default: 0.001 0.003 0.01)",
    )
    parser.add_argument("--seeds", metavar="N", default="1", help="seeds 1..N for every cell (default: 1)")
    for name, default in (("vocabulary_size", "10"), ("hidden_size", "50"), ("updates", "4000")):
        option, help_line = OPTIONS[name], f"{OPTIONS[name].help} (default: {default})"
        parser.add_argument(option.flag, metavar="N", default=argparse.SUPPRESS, help=help_line)
    _add_network(parser)
    _add_sweep(parser, "runs/map", lag="--lags", chunk="--chunks", learning_rate="--learning-rates")
    parser.set_defaults(command=_map)


def add_lags(parser: argparse.ArgumentParser) -> None:
    """The flags of lags."""
    lags = ["1", "2", "3", "4"]
    parser.add_argument("--lags", metavar="N", nargs="+", default=lags, help="lags (default: 1 2 3 4)")
    parser.add_argument("--hidden-sizes", metavar="N", nargs="+", help="widths (default: 25 50 100)")
    add_option(parser, OPTIONS["model"])
    parser.add_argument(
        "--model-options",
        metavar="NAME=VALUE,...",
        nargs="+",
        help="in place of widths: several sets of arguments of your own model, such as width=25 width=50",
    )
    parser.add_argument(
        "--carry", metavar="WORD", nargs="+", default=["keep", "reset"], help="the state carried, reset (default: both)"
    )
    parser.add_argument("--seeds", metavar="N", default="3", help="seeds 1..N for every cell (default: 3)")
    parser.add_argument("--sequences", metavar="N", default="2000", help="fresh sequences per run (default: 2000)")
    _add_sweep(parser, "runs/lags", lag="--lags", hidden_size="--hidden-sizes")
    parser.set_defaults(command=_lags)


def _sweep(parsed: argparse.Namespace) -> None:
    check_launcher()
    if parsed.status is not None:
        parsed.words["run"] = "--status"
        _say_status(Path(parsed.status))
        return
    jobs, folder = _jobs(parsed), Path(parsed.run_dir)
    output = _of_output(parsed)

    with heavy_imports():
        from echo_torch.lab.grids import axes_of, grid_of, read_grid

    values = read_grid(parsed.config) if parsed.config is not None else {}
    of_file, of_words = values.pop("grid", {}), axes_of(parsed.grid)
    for name in of_words:  # an axis on the command line takes the place of an option of the file
        values.pop(name, None)
    seeds, axes = values.pop("seeds", 1), {**of_file, **of_words}
    _check_own_models(parsed, values, [] if "model" in of_words else of_file.get("model", []))
    options = override(values, given(parsed, "mode", *OPTIONS))
    mode = options.pop("mode", DEFAULT_MODE)
    grid = grid_of(mode, axes, whole_number(parsed.seeds or seeds, "seeds"), options)
    if parsed.dry_run:
        _say_estimate(grid.runs(), jobs or os.cpu_count() or 1, parsed)
        return

    with heavy_imports():
        from echo_torch.lab.sweep import cells_of, check_none_failed, is_done, is_drawn, run_sweep, sweep_table

    rows = run_sweep(grid, folder, num_jobs=jobs, shard=parsed.shard, **output)
    if is_done(rows):
        print(sweep_table(grid, cells_of(grid, rows, folder)))
        left = "results.csv, curves.csv, table and figure" if is_drawn(grid) else "results.csv, curves.csv and table"
        print(f"{len(rows)} run{'s' * (len(rows) > 1)}, {left}: {folder}")
    else:
        print(_PART_IS_DONE.format(folder))
    check_none_failed(rows)


def _check_own_models(parsed: argparse.Namespace, values: Mapping[str, Any], models: Sequence[Any]) -> None:
    """Refuse classes of a user's own that a file names and the command line does not.

    Raises:
        RuleError: If there is one.
    """
    if names_own_model(values) and not hasattr(parsed, "model"):
        check_said(parsed.config, values["model"], None)
    for model in models:
        if isinstance(model, str) and is_own_model(model):
            file = plain(repr(parsed.config))
            rule = f"$grid must repeat the axis model of {file}, which names {plain(model)}"
            reason, way_out = (
                "because nothing that a file names is run by itself",
                f"write model={plain(model)} after $grid",
            )
            raise RuleError("grid", rule, reason=reason, way_out=way_out)


def _say_status(folder: Path) -> None:
    with heavy_imports():
        from echo_torch.lab.sweep import status_of

    found = status_of(folder)
    print(f"{sum(map(len, found.values()))} runs in {folder}")
    for status, names in found.items():
        some = f": {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names and status != "finished" else ""
        print(f"{status}: {len(names)}{some}")


def _say_estimate(runs: Mapping[str, Configuration], num_workers: int, parsed: argparse.Namespace) -> None:
    with heavy_imports():
        from echo_torch.lab.estimate import estimate, in_lines
        from echo_torch.lab.many import checked_shard

    print("\n".join(in_lines(estimate(runs, num_workers, checked_shard(parsed.shard), progress=shown(parsed)))))


def _compare(parsed: argparse.Namespace) -> None:
    check_launcher()
    seeds, jobs, folder = whole_number(parsed.seeds, "seeds"), _jobs(parsed), Path(parsed.run_dir)
    output = _of_output(parsed)

    network = _network(parsed, "model_options")

    with heavy_imports():
        from echo_torch.lab.comparison import DEFAULT_ARMS, comparison_table, run_comparison

    arms = parsed.arms or DEFAULT_ARMS
    rows = run_comparison(arms, seeds, folder, **network, num_jobs=jobs, shard=parsed.shard, **output)
    if not rows:
        print(_PART_IS_DONE.format(folder))
        return
    print(comparison_table(rows))
    print(f"{seeds * len(rows)} runs, table and figures: {folder}")


def _map(parsed: argparse.Namespace) -> None:
    check_launcher()
    if not parsed.lags or not parsed.chunks:
        rule = "$lag and $chunk must each name a number, or the grid is empty"
        raise RuleError("lag", rule, "an empty grid")
    lags, chunks = _values(parsed.lags, "lag"), _values(parsed.chunks, "chunk")
    rates = _values(parsed.learning_rates, "learning_rate")
    seeds, jobs, folder = whole_number(parsed.seeds, "seeds"), _jobs(parsed), Path(parsed.run_dir)
    output = _of_output(parsed)
    options = _network(parsed, "model_options", "vocabulary_size", "hidden_size", "updates")

    with heavy_imports():
        from echo_torch.lab.map_and_lags import map_grid, map_table, run_map

    grid = map_grid(lags, chunks, rates, seeds, **options)
    cells = run_map(grid, folder, num_jobs=jobs, shard=parsed.shard, **output)
    if not cells:
        print(_PART_IS_DONE.format(folder))
        return
    print(map_table(grid, cells))
    print(f"{seeds * len(cells)} runs, table and figures: {folder}")


def _lags(parsed: argparse.Namespace) -> None:
    check_launcher()
    sizes = None if parsed.hidden_sizes is None else _values(parsed.hidden_sizes, "hidden_size")
    axes = (_values(parsed.lags, "lag"), sizes, _values(parsed.carry, "carry"))
    network = {**_network(parsed), "model_options": parsed.model_options}
    seeds, jobs, folder = whole_number(parsed.seeds, "seeds"), _jobs(parsed), Path(parsed.run_dir)
    output = _of_output(parsed)
    sequences: Any = OPTIONS["sequences"].check(parsed.sequences)

    with heavy_imports():
        from echo_torch.lab.map_and_lags import lags_grid, lags_table, run_lags

    grid = lags_grid(*axes, seeds, sequences=sequences, **network)
    cells = run_lags(grid, folder, num_jobs=jobs, shard=parsed.shard, **output)
    if not cells:
        print(_PART_IS_DONE.format(folder))
        return
    print(lags_table(cells))
    print(f"{seeds * len(cells)} runs, table and figure: {folder}")


def _of_output(parsed: argparse.Namespace) -> dict[str, Any]:
    """What is shown of a sweep while it goes on, and how it is drawn."""
    return {"progress": draws(parsed), "figures": check_figures(parsed.figures)}


def _jobs(parsed: argparse.Namespace) -> int | None:
    return None if parsed.jobs is None else whole_number(parsed.jobs, "jobs", high=1024)


def _values(texts: Sequence[str], name: str) -> list[Any]:
    """Different values of one option in their order, from a flag that takes several."""
    values: set[Any] = {OPTIONS[name].check(text) for text in texts}
    return sorted(values)
