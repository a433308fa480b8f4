"""What the pages of runs and of sweeps have in common: reach, audit, configuration, versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from echo_torch.diagnosis.data_path.explaining import explain, gap_in_words, reach_lines
from echo_torch.diagnosis.data_path.reaching import OTHER
from echo_torch.experiments.configuration import Configuration, configure, memory_length
from echo_torch.lab.html import Html, paragraphs, table, tag
from echo_torch.lab.page import Page, wrong
from echo_torch.lab.plan import Plan
from echo_torch.lab.reach_figure import draw_reach
from echo_torch.lab.rows import VERSIONS

_MAX_COLUMNS = 12  # of the picture of reach: on a page as wide as this one more could not be read


def reach_parts(page: Page, plan: Plan) -> Iterator[Html]:
    """What a data path allows, in words and as a picture.

    Args:
        page: Takes the picture.
        plan: Of the run.
    """
    c, found = plan.configuration, plan.reach()
    said = explain(found, memory_length=memory_length(c), is_carried=c.reading.carry == "keep")
    yield paragraphs([said])
    yield tag("ul", *(tag("li", line) for line in reach_lines(found)))
    draw = partial(draw_reach, plan.first_chunks(), c.reading.lag, max_columns=_MAX_COLUMNS)
    title = f"Which step each row reads, and which step's symbol it is asked for: lag {c.reading.lag}"
    yield page.figures.add(draw, title, said)


def audit_parts(gaps: Mapping[str, int]) -> Iterator[Html]:
    """What was counted while the training ran: does each row's state belong where the row goes on?

    Args:
        gaps: How often each gap occurred, as in result.json.
    """
    total = sum(gaps.values())
    if not total:
        yield paragraphs(["Nothing was handed over in training."])
        return
    jumps = total - gaps.get("0", 0)
    if jumps:
        yield wrong(
            f"{jumps:,} of {total:,} hand-overs ({jumps / total:.1%}) gave a row a state that belongs to another place "
            "than the one where the row goes on."
        )
    else:
        yield paragraphs([f"All {total:,} hand-overs gave each row the state that belongs where the row goes on."])
    known = {gap if gap == OTHER else int(gap): number for gap, number in gaps.items()}
    rows = [[gap, f"{number:,}", gap_in_words(gap)] for gap, number in known.items()]
    yield table(["gap (steps)", "hand-overs", ""], rows, caption="Gaps at the hand-overs from chunk to chunk")


def configuration_table(configuration: Configuration, caption: str = "The configuration") -> Html:
    """All options, those that differ from the experiment's defaults marked."""
    defaults = configure(configuration.mode).options()
    rows = [
        [name.replace("_", " "), "-" if value is None else str(value), _mark(name, value, defaults)]
        for name, value in configuration.to_dict().items()
    ]
    return table(["option", "value", "default, where it is another"], rows, caption=caption)


def _mark(name: str, value: object, defaults: Mapping[str, object]) -> str:
    """The default of an option, where another value was chosen."""
    if name not in defaults or defaults[name] == value:
        return ""
    return "-" if defaults[name] is None else str(defaults[name])


def versions_table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """What runs were trained with, of each all versions.

    Args:
        rows: Each with versions by name, or with None.
    """
    found = {name: sorted({str(row[name]) for row in rows if row.get(name) is not None}) for name in VERSIONS}
    lines = [[name, ", ".join(versions) or "-"] for name, versions in found.items()]
    return table(["", "version"], lines, caption="What its runs were trained with")
