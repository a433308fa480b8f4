"""The command show: what a training will read, before anything is trained."""

from __future__ import annotations

import argparse
import json

from echo_torch.cli.flags import add_options, options_of, whole_number
from echo_torch.cli.heavy import heavy_imports
from echo_torch.experiments.configuration import command_line, configure_with_data, describe
from echo_torch.lab import memory

_MOST = 10_000  # batches


def add_show(parser: argparse.ArgumentParser) -> None:
    """The flags of show."""
    output = add_options(parser)["output"]
    output.add_argument("--batches", metavar="N", help="show so many batches (default: those of a sequence, if few)")
    output.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(command=_show)


def _show(parsed: argparse.Namespace) -> None:
    number = None if parsed.batches is None else whole_number(parsed.batches, "batches", high=_MOST)
    configuration, numbers = configure_with_data(*options_of(parsed))

    # Not the runner: it would bring Lightning, which this need not wait for.
    with heavy_imports():
        from echo_torch.lab.plan import Plan
        from echo_torch.lab.preview import preview, preview_lines

    with memory.in_a_sentence(configuration):
        plan = Plan(configuration, numbers)
        found = preview(plan, number)
    if parsed.json:
        print(json.dumps(found.to_dict()))
        return
    print(f"asked: {describe(configuration)}")
    print("\n".join(preview_lines(found)))
    if len(found.chunks) < (whole := plan.reading.num_chunks(1) or 0) <= min(_MOST, plan.num_updates):
        print(f"the sequence has {whole:,} chunks: --batches {whole} shows them all")
    train = command_line(configuration)
    print(f"what follows from that: {train.replace(' train ', ' reach ', 1)}")
    print(f"to train it: {train}")
