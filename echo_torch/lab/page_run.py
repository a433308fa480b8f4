"""The page of one run: what was asked, what came out and why, and how to do it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from math import isnan
from typing import Any

from echo_torch.errors import UserError
from echo_torch.experiments.catalogue import EXPERIMENTS
from echo_torch.experiments.configuration import (
    Configuration,
    command_line,
    describe,
    program,
)
from echo_torch.experiments.options import OPTIONS, is_own_model, words_of
from echo_torch.intervals import wilson_interval
from echo_torch.lab.figures import chunks_in_words, draw_curve
from echo_torch.lab.finished import check_data, configuration_of
from echo_torch.lab.html import Html, join, paragraphs, table, tag
from echo_torch.lab.page import Page, command, flag, name_of, wrong
from echo_torch.lab.page_parts import audit_parts, configuration_table, reach_parts
from echo_torch.lab.plan import Plan
from echo_torch.lab.report import EXAMPLE, chance_in_words, conclusion_lines, whole_network_in_words
from echo_torch.lab.results import read_finished
from echo_torch.lab.rows import MISSING, why_not
from echo_torch.lab.run_directory import RunDirectory
from echo_torch.training.checkpoints import load_checkpoint

_MAX_CHUNKS = 12  # that the table names one by one
_Result = Mapping[str, Any]


def run_page(run: RunDirectory) -> Page:
    """The page of a run, finished or not.

    Raises:
        UserError: If its configuration or its result cannot be read.
    """
    configuration, source = run.read_saved()
    result = read_finished(run, configuration, source, is_its_own=True)
    page = Page(f"Run {name_of(run.path)}")
    plan, obstacle = _plan_of(run, configuration)
    _add_asked(page, run, configuration, result)
    if result is not None:
        lines = [] if plan is None else conclusion_lines(configuration, plan.reach(), result, run.read_metrics())
        page.add("What came out", *map(_conclusion, lines), _result_table(result), _chunk_table(configuration, result))
    page.add("What the data path allows", *([obstacle] if plan is None else reach_parts(page, plan)))
    if run.last_update():
        page.add("The training", _curve(page, run, configuration, result))
    if result is not None:
        page.add("What the audit found", *audit_parts(result["gaps"]))
    page.add("How to do it again", *_how(run, configuration, result))
    return page


def _conclusion(line: str) -> Html:
    """A line of the conclusion; a command in it can be typed."""
    if not line.startswith(EXAMPLE):
        return paragraphs([line])
    return join([tag("p", "For example:"), command(line.removeprefix(EXAMPLE))], "\n")


def _add_asked(page: Page, run: RunDirectory, c: Configuration, result: _Result | None) -> None:
    lead = tag("p", f"{c.mode}: {EXPERIMENTS[c.mode].summary}.", class_="lead")
    network = whole_network_in_words(c, None if result is None else result["parameters"])
    lines = [
        f"Asked: {describe(c)}.",
        f"Network: {network}. Seed {c.seed}.",
        f"Chance is {chance_in_words(1 / c.vocabulary_size)}, 1 of {c.vocabulary_size:,} symbols.",
    ]
    page.add("What was asked", lead, paragraphs(lines), None if result is not None else _why_unfinished(run, c))


def _why_unfinished(run: RunDirectory, configuration: Configuration) -> Html:
    made, total = run.last_update(), configuration.reading.num_updates
    status, reason = why_not(run)
    why = "" if status == MISSING else f" {reason}"
    return wrong(f"The run is not finished: {made:,} of {total:,} updates have a row.{why}")


def _plan_of(run: RunDirectory, configuration: Configuration) -> tuple[Plan | None, Html | None]:
    """Its plan, with a reach; or why there is none: the user's own data cannot be read any more or are others."""
    try:
        plan = Plan(configuration)
        if configuration.data is not None and run.checkpoint.exists():
            checkpoint = load_checkpoint(run.checkpoint)
            configuration_of(checkpoint)
            check_data(plan, checkpoint)
        plan.reach()  # for which the data are read
        return plan, None
    except UserError as error:
        return None, wrong(f"Nothing can be said of it any more: {error}")


def _curve(page: Page, run: RunDirectory, c: Configuration, result: _Result | None) -> Html:
    metrics = run.read_metrics()
    accuracy, loss = _known(metrics["accuracy"][-1], ".1%"), _known(metrics["loss"][-1], ".3f")
    text = (
        f"{len(metrics['update'])} rows of metrics. In the last one accuracy is {accuracy}, loss {loss} nats; chance "
        f"is {chance_in_words(1 / c.vocabulary_size)}."
    )
    if result is not None and result["accuracy"] is not None:
        ceiling = "unknown" if result["ceiling"] is None else f"{result['ceiling']:.1%}"
        text += f" On fresh sequences accuracy is {result['accuracy']:.1%}; the ceiling is {ceiling}."
    right = "" if result is None else "; right: accuracy by chunk on fresh sequences, with 95 % intervals"
    return page.figures.add(
        partial(draw_curve, run, c, result), f"Accuracy and loss in training, with chance{right}", text
    )


def _known(number: float, form: str) -> str:
    """A number of a row, which has none where nothing was asked."""
    return "unknown" if isnan(number) else format(number, form)


def _result_table(result: _Result) -> Html:
    def share(name: str) -> str:
        return "-" if result[name] is None else f"{result[name]:.2%}"

    def interval(name: str) -> str:
        low, high = result[f"{name}_low"], result[f"{name}_high"]
        return "-" if low is None else f"{low:.2%} to {high:.2%}"

    loss = result["loss"]
    rows = [
        ["accuracy on fresh symbols", share("accuracy"), interval("accuracy")],
        ["the same, state reset at every chunk", share("accuracy_reset"), interval("accuracy_reset")],
        ["chance", chance_in_words(result["chance"]), ""],
        ["ceiling of the data path", share("ceiling"), ""],
        ["loss (nats)", "-" if loss is None else f"{loss:.4f}", ""],
        ["targets asked", f"{result['targets']:,}", ""],
        ["updates", f"{result['updates']:,}", ""],
        ["seconds of training", f"{result['seconds']:,.1f}", ""],
    ]
    return table(["", "value", "95 % interval"], rows, caption="The evaluation, on symbols that training never sees")


def _chunk_table(c: Configuration, result: _Result) -> Html | None:
    """Accuracy by chunk of the sequence; None where there is but one chunk."""
    asked = result["targets_by_chunk"]
    if len(asked) < 2:
        return None
    places = [*range(len(asked))]
    if len(places) > _MAX_CHUNKS:
        places = [*places[: _MAX_CHUNKS - 1], places[-1]]
    rows = [
        [
            f"{place}",
            f"{asked[place]:,}",
            *(_share(result[name][place], asked[place]) for name in ("accuracy_by_chunk", "accuracy_reset_by_chunk")),
        ]
        for place in places
    ]
    left_out = (
        f" ({len(asked) - len(places):,} chunks before the last are left out)" if len(places) < len(asked) else ""
    )
    names = [chunks_in_words(c.reading), "targets", "state as in training (95 %)", "state reset (95 %)"]
    return table(names, rows, caption=f"Accuracy by chunk{left_out}")


def _share(share: float | None, asked: int) -> str:
    if share is None or not asked:
        return "-"
    low, high = wilson_interval(round(share * asked), asked)
    return f"{share:.1%} ({low:.1%} to {high:.1%})"


def _how(run: RunDirectory, c: Configuration, result: _Result | None) -> Iterator[Html]:
    """The commands, the configuration and what its bits depend on."""
    yield paragraphs(["This trains it anew:"])
    yield command(command_line(c))
    if result is not None:
        yield paragraphs(["Where this page was made, this repeats the evaluation:"])
        model = OPTIONS["model"].words(c.model) if is_own_model(c.model) else []
        yield command(program("evaluate", *words_of(flag("run"), run.path), *model))
    yield configuration_table(c)
    if result is not None:
        versions = [[name, value] for name, value in result["versions"].items()]
        weights = [["SHA-256 of the weights", result["weights_sha256"]]]
        yield table(["", "version"], [*versions, *weights], caption="What it was trained with")
